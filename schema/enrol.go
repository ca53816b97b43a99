// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Paths of the enrolment interface on the fleet's HTTPS address.
const (
	EnrolPath = "/enrol/v1"       // POST EnrolRequest as JSON, server-authenticated TLS
	RenewPath = "/enrol/v1/renew" // POST EnrolRequest without token, mutual TLS
)

// EnrolRequest asks for a board's first (or next) certificate.
type EnrolRequest struct {
	Token string            `json:"token,omitempty"` // secret part of a JoinToken
	Board string            `json:"board"`           // wished name
	CSR   string            `json:"csr"`             // PEM, PKCS #10, signed by the board's key
	Mode  string            `json:"mode"`            // where the key lives: "software", later "tpm"
	Facts map[string]string `json:"facts,omitempty"`
}

// EnrolReply is the answer: who the board is and where it connects.
type EnrolReply struct {
	Tenant      string `json:"tenant"`
	Board       string `json:"board"`
	Certificate string `json:"certificate"` // PEM, leaf
	CA          string `json:"ca"`          // PEM, the authority of boards and server
	Broker      string `json:"broker"`      // host:port of MQTT over TLS
}

// JoinToken lets one or more boards enrol: a secret, and the SHA-256 of the
// fleet's CA certificate (DER) so that the board knows whom it gives it to.
type JoinToken struct {
	Secret string   // 26 characters of base32, 128 bits
	CAHash [32]byte // pins the first contact
}

const joinPrefix = "fe1_"

// String gives the form a person copies: fe1_SECRET_CAHASH.
func (t JoinToken) String() string {
	return joinPrefix + t.Secret + "_" + hex.EncodeToString(t.CAHash[:])
}

// ParseJoinToken reads the form a person copied. Its errors never show the token.
func ParseJoinToken(s string) (JoinToken, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), joinPrefix)
	secret, sum, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || len(secret) < 20 || len(secret) > 64 {
		return JoinToken{}, fmt.Errorf("join token: wants the form %sSECRET_FINGERPRINT; ask the fleet for a new one", joinPrefix)
	}
	for i := range len(secret) {
		if c := secret[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			return JoinToken{}, fmt.Errorf("join token: its secret part holds more than letters and digits; copy it whole, in one line")
		}
	}
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != sha256.Size {
		return JoinToken{}, fmt.Errorf("join token: its fingerprint part is not 64 hex digits; copy it whole")
	}
	return JoinToken{Secret: secret, CAHash: [32]byte(raw)}, nil
}

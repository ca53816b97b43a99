// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package jointoken is the text that lets a board enrol: who may come in, whom the board
// gives that to, and where that is.
package jointoken

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Token lets one or more boards enrol: a secret, the SHA-256 of the fleet's CA
// certificate (DER) so that the board knows whom it gives it to, and where that is.
type Token struct {
	Secret string   // 26 characters of base32, 128 bits
	CAHash [32]byte // pins the first contact
	// Address is host:port of the fleet's HTTPS; "" in a token of an older fleet, whose
	// board has it from its config.
	Address string
}

const prefix = "fe1_"

// Max bounds the text of a join token, in bytes: a secret of 64, a hash of 64
// and an address of [MaxAddress], with what stands between them.
const Max = len(prefix) + 64 + 1 + 64 + 1 + MaxAddress

// String gives the form a person copies: fe1_SECRET_CAHASH_HOST:PORT, or without the
// last part where there is no address.
func (t Token) String() string {
	s := prefix + t.Secret + "_" + hex.EncodeToString(t.CAHash[:])
	if t.Address != "" {
		s += "_" + t.Address
	}
	return s
}

// Parse reads the form a person copied. Its errors never show the token.
func Parse(s string) (Token, error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, prefix)
	secret, rest, ok2 := strings.Cut(rest, "_")
	sum, address, named := strings.Cut(rest, "_")
	if !ok || !ok2 || len(s) > Max || len(secret) < 20 || len(secret) > 64 {
		return Token{}, fmt.Errorf("join token: wants the form %sSECRET_FINGERPRINT_HOST:PORT; ask the fleet for a new one", prefix)
	}
	for i := range len(secret) {
		if c := secret[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			return Token{}, errors.New("join token: its secret part holds more than letters and digits; copy it whole, in one line")
		}
	}
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != sha256.Size {
		return Token{}, errors.New("join token: its fingerprint part is not 64 hex digits; copy it whole")
	}
	if named {
		if err := CheckAddress(address); err != nil {
			return Token{}, fmt.Errorf("join token: its address %w; copy it whole", err)
		}
	}
	return Token{Secret: secret, CAHash: [32]byte(raw), Address: address}, nil
}

// MaxAddress bounds host:port, in bytes: a DNS name has at most 253, and "[", "]", ":"
// and five digits of a port come to it.
const MaxAddress = 253 + 8

// CheckAddress tells whether s is host:port as a fleet has it: a name of letters, digits,
// dots, hyphens and underscores or an IP address (IPv6 in brackets), and a port from 1 to
// 65535. Its errors do not repeat s.
func CheckAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > MaxAddress {
		return errors.New("is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return errors.New("has no port from 1 to 65535")
	}
	if strings.Contains(host, ":") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return errors.New("is no IPv6 address in brackets with a port")
		}
		if strings.Contains(host, "%") {
			return errors.New("names an interface, which other machines do not know by this name")
		}
		return nil
	}
	if host == "" || strings.HasPrefix(s, "[") {
		return errors.New("has no host")
	}
	for i := range len(host) {
		if c := host[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return errors.New("has a host with more than letters, digits, dots, hyphens and underscores")
		}
	}
	if host[0] == '-' {
		return errors.New("has a host that begins with a hyphen")
	}
	return nil
}

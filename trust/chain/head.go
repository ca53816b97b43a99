// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"time"

	"fulmar/trust"
)

// maxSigned bounds a signed head in bytes: some 400 of envelope and 180 of key.
const maxSigned = 4 << 10

// Signed is a head with the signature of a server.
type Signed struct {
	Head
	At time.Time // when it was signed, to the second
	// Envelope is the DSSE envelope over both, JSON; Key the public key it verifies
	// with, PEM. Whose that is has to be known otherwise: see KeyID.
	Envelope []byte
	Key      []byte
	KeyID    string
}

// payload is what is signed.
type payload struct {
	V int `json:"v"`
	Head
	At time.Time `json:"at"`
}

// Sign signs a head.
func Sign(key crypto.Signer, h Head, at time.Time) (*Signed, error) {
	b, err := json.Marshal(payload{1, h, at.UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	e, err := trust.NewEnvelope(trust.TypeAuditHead, b)
	if err != nil {
		return nil, err
	}
	if err := e.Sign(key); err != nil {
		return nil, fmt.Errorf("sign head of the audit log: %w", err)
	}
	env, err := e.Encode()
	if err != nil {
		return nil, err
	}
	pub, err := trust.PublicPEM(key.Public())
	if err != nil {
		return nil, err
	}
	return Open(bytes.TrimSpace(env), pub)
}

// Open verifies a signed head with the public key beside it (PEM).
func Open(envelope, key []byte) (*Signed, error) {
	if len(envelope)+len(key) > maxSigned {
		return nil, fmt.Errorf("%w: signed head of %d bytes, at most %d", trust.ErrMalformed, len(envelope)+len(key), maxSigned)
	}
	pub, err := trust.ParsePublicPEM(key)
	if err != nil {
		return nil, fmt.Errorf("key of the head: %w", err)
	}
	id, err := trust.KeyID(pub)
	if err != nil {
		return nil, fmt.Errorf("key of the head: %w", err)
	}
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, fmt.Errorf("signed head: %w", err)
	}
	if e.Type != trust.TypeAuditHead || !e.SignedBy(pub) {
		return nil, fmt.Errorf("%w: the head is not signed by key %.16s", ErrBroken, id)
	}
	var p payload
	d := json.NewDecoder(bytes.NewReader(e.Unverified())) // it is, by now
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || p.V != 1 || p.Seq < 0 || len(p.Hash) == 0 {
		return nil, fmt.Errorf("signed head: %w: not version 1 of its payload", trust.ErrMalformed)
	}
	return &Signed{Head: p.Head, At: p.At, Envelope: envelope, Key: key, KeyID: id}, nil
}

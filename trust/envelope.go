// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Bounds of an envelope.
const (
	// MaxPayload is the largest payload, in bytes: what one message to a board holds.
	MaxPayload = 64 << 10
	// MaxSignatures is how many signatures an envelope may have: a root set of five
	// old and five new keys, with room.
	MaxSignatures = 16
	// MaxEnvelope bounds the JSON form in bytes: base64 of the payload, and 512 bytes
	// for each signature and the frame.
	MaxEnvelope = MaxPayload/3*4 + 4 + 512*(MaxSignatures+1)
	maxType     = 100 // bytes of a payload type
	maxSig      = 80  // bytes of a signature: 64 Ed25519, at most 72 ECDSA P-256 in DER
	keyIDLen    = 2 * sha256.Size
)

// Errors that callers act upon.
var (
	// ErrMalformed: bytes of a wrong form.
	ErrMalformed = errors.New("malformed")
	// ErrSignatures: not signed by enough keys of the role.
	ErrSignatures = errors.New("not signed by enough keys")
	// ErrRollback: older than what is known already.
	ErrRollback = errors.New("older than what is known")
	// ErrKeyKind: a key that is neither Ed25519 nor ECDSA P-256.
	ErrKeyKind = errors.New("key is neither Ed25519 nor ECDSA P-256")
)

// Type says what a payload is. The signature covers it, and each belongs to one
// [Role], so what was signed as one thing can never be shown as another.
type Type string

// The payload types.
const (
	TypeKeySet     Type = "application/vnd.fulmar.keyset.v1+json"
	TypeRelease    Type = "application/vnd.fulmar.release.v1+json"
	TypeAssignment Type = "application/vnd.fulmar.assignment.v1+json"
	TypeFreshness  Type = "application/vnd.fulmar.freshness.v1+json"
	TypeTime       Type = "application/vnd.fulmar.time.v1+json"
	TypePCRs       Type = "application/vnd.fulmar.pcrs.v1+json"
	TypeCommand    Type = "application/vnd.fulmar.command.v1+cbor"
	TypeTwin       Type = "application/vnd.fulmar.twin.v1+cbor"
	TypeOperator   Type = "application/vnd.fulmar.operator-command.v1+cbor"
	TypeAuditHead  Type = "application/vnd.fulmar.audit-head.v1+json"
)

// Signature is one key's signature over the envelope's [PAE].
type Signature struct {
	KeyID string // of the key, see [KeyID]; a hint, nothing depends on it
	Sig   []byte // Ed25519, or ECDSA in ASN.1 DER over SHA-256
}

// Envelope is a payload with its type and signatures.
type Envelope struct {
	Type       Type
	Signatures []Signature
	payload    []byte
}

// NewEnvelope makes an envelope without signatures.
func NewEnvelope(t Type, payload []byte) (*Envelope, error) {
	e := &Envelope{Type: t, payload: bytes.Clone(payload)}
	return e, e.check()
}

// Unverified gives the payload without any proof of who made it: to show it to a
// person who is to sign it. To act upon it, take it from [KeySet.Verify].
func (e *Envelope) Unverified() []byte { return bytes.Clone(e.payload) }

func (e *Envelope) check() error {
	switch {
	case e.Type == "" || len(e.Type) > maxType:
		return fmt.Errorf("%w: envelope with a payload type of %d bytes, wants 1 to %d", ErrMalformed, len(e.Type), maxType)
	case len(e.payload) == 0 || len(e.payload) > MaxPayload:
		return fmt.Errorf("%w: envelope with a payload of %d bytes, wants 1 to %d", ErrMalformed, len(e.payload), MaxPayload)
	case len(e.Signatures) > MaxSignatures:
		return fmt.Errorf("%w: envelope with %d signatures, at most %d", ErrMalformed, len(e.Signatures), MaxSignatures)
	}
	for i, s := range e.Signatures {
		if _, err := hex.DecodeString(s.KeyID); err != nil || len(s.KeyID) != keyIDLen {
			return fmt.Errorf("%w: envelope: key id of signature %d is not %d hex digits", ErrMalformed, i+1, keyIDLen)
		}
		if len(s.Sig) == 0 || len(s.Sig) > maxSig {
			return fmt.Errorf("%w: envelope: signature %d has %d bytes, wants 1 to %d", ErrMalformed, i+1, len(s.Sig), maxSig)
		}
	}
	return nil
}

// The JSON form of DSSE; byte strings are base64.
type envelopeJSON struct {
	Payload     []byte          `json:"payload"`
	PayloadType Type            `json:"payloadType"`
	Signatures  []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// ParseEnvelope reads the JSON form, at most MaxEnvelope bytes. Unknown and repeated
// fields are refused: two readers must not see two things.
func ParseEnvelope(b []byte) (*Envelope, error) {
	var j envelopeJSON
	if err := strict(b, MaxEnvelope, &j); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	e := &Envelope{Type: j.PayloadType, payload: j.Payload}
	for _, s := range j.Signatures[:min(len(j.Signatures), MaxSignatures+1)] {
		e.Signatures = append(e.Signatures, Signature(s))
	}
	return e, e.check()
}

// Encode gives the JSON form, one line.
func (e *Envelope) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	j := envelopeJSON{Payload: e.payload, PayloadType: e.Type, Signatures: []signatureJSON{}}
	for _, s := range e.Signatures {
		j.Signatures = append(j.Signatures, signatureJSON(s))
	}
	b, err := json.Marshal(j)
	return append(b, '\n'), err
}

// PAE is what is signed: DSSE's pre-authentication encoding of type and payload.
func PAE(t Type, payload []byte) []byte {
	b := append([]byte("DSSEv1 "), strconv.Itoa(len(t))...)
	b = append(append(b, ' '), t...)
	b = append(append(b, ' '), strconv.Itoa(len(payload))...)
	return append(append(b, ' '), payload...)
}

// Sign adds the signature of a key, in place of an older one of the same key.
func (e *Envelope) Sign(key crypto.Signer) error {
	id, err := KeyID(key.Public())
	if err != nil {
		return err
	}
	data, opts := PAE(e.Type, e.payload), crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		sum := sha256.Sum256(data)
		data, opts = sum[:], crypto.SHA256
	}
	sig, err := key.Sign(rand.Reader, data, opts)
	if err != nil {
		return fmt.Errorf("sign envelope with key %s: %w", short(id), err)
	}
	if !verifies(key.Public(), e, sig) {
		return fmt.Errorf("sign envelope with key %s: the signer gave a signature that does not verify", short(id))
	}
	next := &Envelope{Type: e.Type, payload: e.payload}
	for _, s := range e.Signatures {
		if s.KeyID != id {
			next.Signatures = append(next.Signatures, s)
		}
	}
	next.Signatures = append(next.Signatures, Signature{KeyID: id, Sig: sig})
	if err := next.check(); err != nil {
		return err
	}
	e.Signatures = next.Signatures
	return nil
}

// SignedBy tells whether one of the signatures is the key's.
func (e *Envelope) SignedBy(key crypto.PublicKey) bool {
	id, err := KeyID(key)
	if err != nil {
		return false
	}
	for _, s := range e.Signatures {
		// The id only saves work: a signature under a wrong one is somebody else's.
		if s.KeyID == id && verifies(key, e, s.Sig) {
			return true
		}
	}
	return false
}

func verifies(key crypto.PublicKey, e *Envelope, sig []byte) bool {
	data := PAE(e.Type, e.payload)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, data, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(data)
		return k.Curve == elliptic.P256() && ecdsa.VerifyASN1(k, sum[:], sig)
	}
	return false
}

// KeyID names a public key: the SHA-256 of its SubjectPublicKeyInfo (DER), in hex.
// ErrKeyKind for kinds that are not used here.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := marshalPublic(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func marshalPublic(key crypto.PublicKey) ([]byte, error) {
	if !known(key) {
		return nil, ErrKeyKind
	}
	return x509.MarshalPKIXPublicKey(key)
}

func parsePublic(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: public key is not SubjectPublicKeyInfo", ErrMalformed)
	}
	if !known(key) {
		return nil, ErrKeyKind
	}
	return key, nil
}

func known(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	}
	return false
}

// short is as much of a key's id as people compare.
func short(id string) string { return id[:min(16, len(id))] }

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// Why something was refused, for errors.Is.
var (
	ErrMalformed = errors.New("malformed")
	ErrSignature = errors.New("the signature does not verify with this attestation key")
	ErrNonce     = errors.New("not made for this nonce and report")
	ErrPCRs      = errors.New("other PCRs or other values")
	ErrSubject   = errors.New("another key was certified")
	ErrKey       = errors.New("not a key of the kind asked for, fixed in a TPM")
	ErrChain     = errors.New("the endorsement certificate is not trusted")
)

// Bounds on what comes from outside. The largest TPMS_ATTEST of SHA-256 keys is
// under 250 bytes, a public area of RSA 2048 is 314.
const (
	maxAttest    = 1024
	maxSignature = 256
	maxArea      = 1024
)

// PCRs is a set of platform configuration registers, bit n for PCR n, 0..23.
type PCRs uint32

// NewPCRs makes a set; numbers over 23 are left out.
func NewPCRs(n ...int) PCRs {
	var p PCRs
	for _, i := range n {
		if i >= 0 && i < 24 {
			p |= 1 << i
		}
	}
	return p
}

// List is the numbers in rising order.
func (p PCRs) List() []uint {
	var out []uint
	for i := range uint(24) {
		if p>>i&1 == 1 {
			out = append(out, i)
		}
	}
	return out
}

// Selection is the set in the SHA-256 bank as the TPM wants it.
func (p PCRs) Selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(p.List()...)}}}
}

// Digest is the hash of the values, in rising order of PCR, as quotes and policies use it.
func Digest(values [][]byte) []byte {
	h := sha256.Sum256(bytes.Join(values, nil))
	return h[:]
}

// BootPCRs are the registers 0 to 7, into which firmware and boot loader measure.
const BootPCRs PCRs = 0xff

// Measured tells whether values that begin with PCR 0 to 7 come from a boot that was
// measured. All zero is no measurement; all alike is a firmware that closed the
// registers and measured nothing.
func Measured(values [][]byte) bool {
	if len(values) < 8 {
		return false
	}
	for _, v := range values[1:8] {
		if !bytes.Equal(v, values[0]) {
			return true
		}
	}
	return false
}

// Statement is what an attestation key signed: a TPMS_ATTEST and a TPMT_SIGNATURE.
type Statement struct {
	Attested  []byte
	Signature []byte
}

// Qualify binds a nonce and a report hash of any lengths to the 32 bytes that are signed.
func Qualify(nonce, report []byte) []byte {
	h := sha256.New()
	for _, b := range [][]byte{nonce, report} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	return h.Sum(nil)
}

// Clock is what every statement tells of its TPM's time. To both counters the TPM adds
// a secret number, another for each key, where the key is under the storage root key as
// ours are: only differences between statements of one key mean something.
type Clock struct {
	Millis   uint64 // since the TPM was cleared, while powered
	Resets   uint32 // boots
	Restarts uint32
	Safe     bool
}

// VerifyQuote checks that the key with public area ak signed the PCRs for this nonce
// and report, and that their values are the ones given (32 bytes each, rising PCR).
func VerifyQuote(ak []byte, s Statement, nonce, report []byte, pcrs PCRs, values [][]byte) (Clock, error) {
	a, err := verify(ak, s, nonce, report, tpm2.TPMSTAttestQuote)
	if err != nil {
		return Clock{}, err
	}
	q, err := a.Attested.Quote()
	if err != nil {
		return Clock{}, refuse(ErrMalformed, err)
	}
	if !bytes.Equal(tpm2.Marshal(pcrs.Selection()), tpm2.Marshal(q.PCRSelect)) || len(values) != len(pcrs.List()) {
		return Clock{}, fmt.Errorf("attest: %w: PCRs %v were asked for", ErrPCRs, pcrs.List())
	}
	for _, v := range values {
		if len(v) != sha256.Size {
			return Clock{}, fmt.Errorf("attest: %w: a value of %d bytes", ErrPCRs, len(v))
		}
	}
	if !bytes.Equal(Digest(values), q.PCRDigest.Buffer) {
		return Clock{}, fmt.Errorf("attest: %w: the values are not the signed ones", ErrPCRs)
	}
	return Clock{a.ClockInfo.Clock, a.ClockInfo.ResetCount, a.ClockInfo.RestartCount, bool(a.ClockInfo.Safe)}, nil
}

// VerifyCertify checks that the TPM of ak holds the signing key with public area
// subject, which never leaves it, and gives that key.
func VerifyCertify(ak, subject []byte, s Statement, nonce, report []byte) (*ecdsa.PublicKey, error) {
	k, err := CheckKey(subject, false)
	if err != nil {
		return nil, err
	}
	a, err := verify(ak, s, nonce, report, tpm2.TPMSTAttestCertify)
	if err != nil {
		return nil, err
	}
	c, err := a.Attested.Certify()
	if err != nil {
		return nil, refuse(ErrMalformed, err)
	}
	n, err := AreaName(subject)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(n, c.Name.Buffer) {
		return nil, fmt.Errorf("attest: %w", ErrSubject)
	}
	return k, nil
}

func refuse(class, err error) error { return fmt.Errorf("attest: %w: %w", class, err) }

func verify(ak []byte, s Statement, nonce, report []byte, kind tpm2.TPMST) (*tpm2.TPMSAttest, error) {
	k, err := CheckKey(ak, true)
	if err != nil {
		return nil, err
	}
	if len(s.Attested) > maxAttest || len(s.Signature) > maxSignature {
		return nil, fmt.Errorf("attest: %w: %d and %d bytes", ErrMalformed, len(s.Attested), len(s.Signature))
	}
	sig, err := exact[tpm2.TPMTSignature](s.Signature)
	if err != nil {
		return nil, err
	}
	e, err := sig.Signature.ECDSA()
	if err != nil {
		return nil, refuse(ErrMalformed, err)
	}
	d := sha256.Sum256(s.Attested)
	if e.Hash != tpm2.TPMAlgSHA256 || !ecdsa.Verify(k, d[:], new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer)) {
		return nil, fmt.Errorf("attest: %w", ErrSignature)
	}
	a, err := exact[tpm2.TPMSAttest](s.Attested)
	if err != nil {
		return nil, err
	}
	if a.Magic != tpm2.TPMGeneratedValue || a.Type != kind {
		return nil, fmt.Errorf("attest: %w: not the kind of statement that was asked for", ErrMalformed)
	}
	if subtle.ConstantTimeCompare(a.ExtraData.Buffer, Qualify(nonce, report)) != 1 {
		return nil, fmt.Errorf("attest: %w", ErrNonce)
	}
	return a, nil
}

// exact reads a structure that must be its own and only encoding.
func exact[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](b []byte) (*T, error) {
	v, err := tpm2.Unmarshal[T, P](b)
	if err != nil {
		return nil, refuse(ErrMalformed, err)
	}
	if !bytes.Equal(tpm2.Marshal(*v), b) {
		return nil, fmt.Errorf("attest: %w: not in its canonical encoding", ErrMalformed)
	}
	return v, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/agent/chip"
	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
)

const (
	akFile = "ak.tpm.pem" // the attestation key, beside chip.KeyFile
	aside  = ".old"       // what was made in another TPM; one generation is kept
	// maxKeyPEM bounds a key file: a P-256 key in this form has 398 bytes.
	maxKeyPEM = 4096
	// quoteTries is how often PCRs are read and quoted before something that extends
	// them without pause is an error.
	quoteTries = 3
)

// TPMKey is a key that never leaves the board's TPM, and the attestation key beside
// it. Each use waits for the TPM within a bound.
type TPMKey struct {
	chip    *chip.Chip
	key, ak []byte // PEM
	pub     *ecdsa.PublicKey
	broken  chan<- struct{} // 1-buffered: told that this TPM is not the key's
}

// Signer implements [Key].
func (k *TPMKey) Signer() crypto.Signer { return k }

// Mode implements [Key].
func (*TPMKey) Mode() string { return schema.KeyTPM }

// Public implements [crypto.Signer].
func (k *TPMKey) Public() crypto.PublicKey { return k.pub }

// Sign implements [crypto.Signer] in the TPM, within chip.Quick.
func (k *TPMKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := chip.Use(context.Background(), k.chip, chip.Quick, func(t *tpm.TPM) ([]byte, error) {
		key, err := t.ParseKey(k.key)
		if err != nil {
			return nil, err
		}
		return key.Sign(nil, digest, opts)
	})
	if errors.Is(err, tpm.ErrForeign) { // crypto/tls keeps the error's text only
		select {
		case k.broken <- struct{}{}:
		default:
		}
	}
	return sig, err
}

// Info is what the TPM says of itself.
func (k *TPMKey) Info(ctx context.Context) (tpm.Info, error) { return k.chip.Info(ctx) }

// Quote lets the attestation key sign the PCRs of schema.AttestPCRs for a nonce and a
// report hash, and gives their values.
func (k *TPMKey) Quote(ctx context.Context, nonce, report []byte) (*attest.Statement, [][]byte, error) {
	type quoted struct {
		st     *attest.Statement
		values [][]byte
	}
	q, err := chip.Use(ctx, k.chip, chip.Quick, func(t *tpm.TPM) (quoted, error) {
		ak, err := t.ParseKey(k.ak)
		if err != nil {
			return quoted{}, err
		}
		st, values, err := quote(t, ak, nonce, report)
		return quoted{st, values}, err
	})
	return q.st, q.values, err
}

func quote(t *tpm.TPM, ak *tpm.Key, nonce, report []byte) (st *attest.Statement, values [][]byte, err error) {
	pcrs := attest.NewPCRs(schema.AttestPCRs()...)
	for range quoteTries {
		if values, err = t.ReadPCRs(pcrs); err != nil {
			return nil, nil, err
		}
		if st, err = ak.Quote(nonce, report, pcrs); err != nil {
			return nil, nil, err
		}
		// A PCR that was extended between the two is no fault of anybody.
		if _, err = attest.VerifyQuote(ak.Area(), *st, nonce, report, pcrs, values); !errors.Is(err, attest.ErrPCRs) {
			break
		}
	}
	return st, values, err
}

// claim says of this TPM what the fleet needs to judge it. None of it is proven by it.
func (k *TPMKey) claim(ctx context.Context, secret string, csr []byte) (*schema.TPMClaim, error) {
	return chip.Use(ctx, k.chip, chip.Slow, func(t *tpm.TPM) (*schema.TPMClaim, error) {
		key, ak, err := k.parse(t)
		if err != nil {
			return nil, err
		}
		info, err := k.chip.InfoOf(t)
		if err != nil {
			return nil, err
		}
		ek, certs, err := t.EndorsementKey()
		if err != nil {
			return nil, err
		}
		nonce, report := sha256.Sum256([]byte(secret)), sha256.Sum256(csr)
		st, err := ak.Certify(key, nonce[:], report[:])
		if err != nil {
			return nil, err
		}
		return &schema.TPMClaim{
			EK: ek, EKCerts: certs[:min(len(certs), schema.MaxEKCerts)], AK: ak.Area(), Key: key.Area(),
			Certify: schema.TPMStatement{Attested: st.Attested, Signature: st.Signature},
			Kind:    info.Kind, Maker: info.Maker, Firmware: info.Firmware,
		}, nil
	})
}

// prove answers the fleet's challenge.
func (k *TPMKey) prove(ctx context.Context, w *schema.EnrolWait, csr []byte) (*schema.ProveRequest, error) {
	return chip.Use(ctx, k.chip, chip.Slow, func(t *tpm.TPM) (*schema.ProveRequest, error) {
		_, ak, err := k.parse(t)
		if err != nil {
			return nil, err
		}
		secret, err := ak.Activate(&attest.Credential{Blob: w.Blob, Secret: w.Secret})
		if err != nil {
			return nil, fmt.Errorf("open the fleet's challenge: %w", err)
		}
		sum := sha256.Sum256(csr)
		mac := hmac.New(sha256.New, secret)
		mac.Write(sum[:])
		st, values, err := quote(t, ak, w.QuoteNonce, sum[:])
		if err != nil {
			return nil, err
		}
		return &schema.ProveRequest{
			ID: w.ID, Proof: mac.Sum(nil), PCRs: values,
			Quote: schema.TPMStatement{Attested: st.Attested, Signature: st.Signature},
		}, nil
	})
}

func (k *TPMKey) parse(t *tpm.TPM) (key, ak *tpm.Key, err error) {
	if key, err = t.ParseKey(k.key); err != nil {
		return nil, nil, err
	}
	ak, err = t.ParseKey(k.ak)
	return key, ak, err
}

// openTPMKey gives the board's keys in its TPM. The first time they are made; where they
// were made by another TPM, or it was cleared since, they are set aside and new ones
// are made: the fleet, or a person, then decides who the board is.
func (e *Enroller) openTPMKey(ctx context.Context) (*TPMKey, error) {
	load := func() (*TPMKey, error) {
		return chip.Use(ctx, e.Chip, chip.Slow, func(t *tpm.TPM) (*TPMKey, error) { return e.loadTPMKey(t) })
	}
	k, err := load()
	if errors.Is(err, tpm.ErrForeign) { // once more with the storage root key as it is now
		k, err = load()
	}
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, tpm.ErrForeign) || errors.Is(err, tpm.ErrDamaged):
		if err := e.setAside(err); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return chip.Use(ctx, e.Chip, chip.Slow, func(t *tpm.TPM) (*TPMKey, error) { return e.makeTPMKey(t) })
}

// loadTPMKey reads the keys and lets the TPM use both once, so that keys of another
// TPM are noticed here and not in the middle of a handshake.
func (e *Enroller) loadTPMKey(t *tpm.TPM) (*TPMKey, error) {
	text, err := readSmall(filepath.Join(e.Dir, chip.KeyFile))
	if err != nil {
		return nil, err
	}
	akText, err := readSmall(filepath.Join(e.Dir, akFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is gone", tpm.ErrDamaged, akFile)
	} else if err != nil {
		return nil, err
	}
	k := &TPMKey{chip: e.Chip, key: text, ak: akText, broken: e.broken}
	key, ak, err := k.parse(t)
	if err != nil {
		return nil, err
	}
	st, err := ak.Certify(key, nil, nil)
	if err != nil {
		return nil, err
	}
	if k.pub, err = attest.VerifyCertify(ak.Area(), key.Area(), *st, nil, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", tpm.ErrDamaged, err) // keys that lie in each other's file
	}
	return k, nil
}

// makeTPMKey makes both keys and pins the storage root key. The file of the board's
// key is written last: without it there is nothing.
func (e *Enroller) makeTPMKey(t *tpm.TPM) (*TPMKey, error) {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	var text [2][]byte
	for i, kind := range []tpm.KeyKind{tpm.Signing, tpm.Attestation} {
		k, err := t.CreateKey(kind)
		if err != nil {
			return nil, err
		}
		if text[i], err = k.PEM(); err != nil {
			return nil, fmt.Errorf("make board key: %w", err)
		}
	}
	err := e.Chip.Pin(t)
	if err == nil {
		err = atomicfile.WriteFile(filepath.Join(e.Dir, akFile), text[1], 0o600)
	}
	if err == nil {
		err = atomicfile.WriteFile(filepath.Join(e.Dir, chip.KeyFile), text[0], 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	e.Log.Info("the board's key was made in its TPM", "storage_root_key", hex.EncodeToString(t.SRKName()))
	return e.loadTPMKey(t)
}

// setAside moves keys that this TPM cannot use, and the certificate for them, out of
// the way.
func (e *Enroller) setAside(why error) error {
	e.Log.Error("the board's keys are of another TPM, or it was cleared: new ones are made, and the fleet has to let the board in anew",
		"err", why, "kept_as", filepath.Join(e.Dir, "*"+aside))
	for _, n := range []string{File, akFile, chip.PinFile, chip.KeyFile} {
		path := filepath.Join(e.Dir, n)
		if err := os.Rename(path, path+aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set keys of another TPM aside: %w", err)
		}
	}
	if e.Replaced != nil {
		e.Replaced(why)
	}
	return nil
}

// readSmall reads a key file.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyPEM+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxKeyPEM {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", tpm.ErrDamaged, path, maxKeyPEM)
	}
	return b, nil
}

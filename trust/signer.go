// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"fulmar/internal/atomicfile"
)

// maxKeyFile bounds a key file in bytes: one PEM block of under 300.
const maxKeyFile = 8 << 10

// Kinds of keys that [NewKeyFile] makes.
const (
	Ed25519 = "ed25519"
	P256    = "p256"
)

// ErrReference: a reference to a signer that cannot be one.
var ErrReference = errors.New("not a reference to a key")

// Signer is a key that signs, wherever it is held.
type Signer struct {
	crypto.Signer
	// Where is the reference's first word: file, exec or tpm.
	Where string
	// ID is the key's, see [KeyID].
	ID string
}

// Close lets the holder go, where there is something to let go.
func (s *Signer) Close() error {
	if c, ok := s.Signer.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// OpenSigner opens the key that a reference names:
//
//	file:PATH            PKCS #8 PEM that its owner alone may read
//	exec:PROGRAM [ARGS]  an external signer process, see docs/signers/README.md;
//	                     an absolute path, parted by single spaces, no shell, no quotes
//	tpm:...              given to tpm, which may be nil
//
// The key must be Ed25519 or ECDSA P-256.
func OpenSigner(ref string, tpm func(rest string) (crypto.Signer, error)) (*Signer, error) {
	where, rest, ok := strings.Cut(ref, ":")
	if !ok || rest == "" {
		return nil, fmt.Errorf("%w: %.100q wants the form file:PATH, exec:PROGRAM or tpm:PATH", ErrReference, ref)
	}
	var key crypto.Signer
	var err error
	switch where {
	case "file":
		key, err = openKeyFile(rest)
	case "exec":
		key, err = openProcess(rest)
	case "tpm":
		if tpm == nil {
			return nil, fmt.Errorf("%w: %.100q: this program uses no keys of a TPM", ErrReference, ref)
		}
		key, err = tpm(rest)
	default:
		return nil, fmt.Errorf("%w: %.100q wants the form file:PATH, exec:PROGRAM or tpm:PATH", ErrReference, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", ref, err)
	}
	id, err := KeyID(key.Public())
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", ref, err)
	}
	return &Signer{Signer: key, Where: where, ID: id}, nil
}

func openKeyFile(path string) (crypto.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a plain file")
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read it (mode %04o); chmod 600 it", st.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%w: no PEM block \"PRIVATE KEY\"; a key of another form becomes one by: openssl pkcs8 -topk8 -nocrypt", ErrMalformed)
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS #8", ErrMalformed) // without a byte of it
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, ErrKeyKind
	}
	return key, nil
}

// NewKeyFile makes a key of a kind (Ed25519, P256) in a file that its owner alone may
// read, and never writes over one. It is durable when NewKeyFile returns.
func NewKeyFile(path, kind string) (*Signer, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make key: %s is there already; a key is never written over", path)
	}
	var key crypto.Signer
	var err error
	switch kind {
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case P256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		err = fmt.Errorf("kind %.20q, wants %s or %s", kind, Ed25519, P256)
	}
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := atomicfile.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return OpenSigner("file:"+path, nil)
}

// PublicPEM gives a public key as PEM ("PUBLIC KEY").
func PublicPEM(key crypto.PublicKey) ([]byte, error) {
	der, err := marshalPublic(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParsePublicPEM reads what [PublicPEM] gave.
func ParsePublicPEM(text []byte) (crypto.PublicKey, error) {
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("%w: public key of %d bytes, at most %d", ErrMalformed, len(text), maxKeyFile)
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%w: no PEM block \"PUBLIC KEY\"", ErrMalformed)
	}
	return parsePublic(b.Bytes)
}

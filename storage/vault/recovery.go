// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// RecoveryPublic is the half of the fleet's recovery key that boards have: with it
// a key can be wrapped, not unwrapped.
type RecoveryPublic struct {
	key hpke.PublicKey
	raw []byte
	id  uint64
}

// RecoveryKey is the half that stays offline.
type RecoveryKey struct {
	key  hpke.PrivateKey
	priv *ecdh.PrivateKey
	pub  *RecoveryPublic
}

// ErrRecoveryKey says that a file holds no recovery key of the kind asked for.
var ErrRecoveryKey = errors.New("no recovery key")

// Both halves are PEM in the standard forms (PKIX, PKCS #8), X25519.
const (
	publicType  = "PUBLIC KEY"
	privateType = "PRIVATE KEY"
)

// NewRecoveryKey makes a pair.
func NewRecoveryKey() (*RecoveryKey, error) {
	priv, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make recovery key: %w", err)
	}
	return recoveryKey(priv)
}

func recoveryKey(priv *ecdh.PrivateKey) (*RecoveryKey, error) {
	key, err := hpke.NewDHKEMPrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecoveryKey, err)
	}
	pub, err := recoveryPublic(priv.PublicKey())
	if err != nil {
		return nil, err
	}
	return &RecoveryKey{key, priv, pub}, nil
}

func recoveryPublic(pub *ecdh.PublicKey) (*RecoveryPublic, error) {
	if pub.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("%w: it is on another curve than X25519", ErrRecoveryKey)
	}
	key, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecoveryKey, err)
	}
	sum := sha256.Sum256(pub.Bytes())
	return &RecoveryPublic{key, pub.Bytes(), binary.BigEndian.Uint64(sum[:])}, nil
}

// ParseRecoveryPublic reads the PEM of the public half.
func ParseRecoveryPublic(text []byte) (*RecoveryPublic, error) {
	der, err := onePEM(text, publicType)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecoveryKey, err)
	}
	pub, ok := k.(*ecdh.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: a key of another kind (%T), wants X25519", ErrRecoveryKey, k)
	}
	return recoveryPublic(pub)
}

// ParseRecoveryKey reads the PEM of the private half.
func ParseRecoveryKey(text []byte) (*RecoveryKey, error) {
	der, err := onePEM(text, privateType)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: the PEM block cannot be read", ErrRecoveryKey) // without its bytes
	}
	priv, ok := k.(*ecdh.PrivateKey)
	if !ok || priv.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("%w: a key of another kind (%T), wants X25519", ErrRecoveryKey, k)
	}
	return recoveryKey(priv)
}

func onePEM(text []byte, want string) ([]byte, error) {
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("%w: %d bytes are too many", ErrRecoveryKey, len(text))
	}
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: no PEM block %q found", ErrRecoveryKey, want)
	case block.Type != want:
		return nil, fmt.Errorf("%w: found a PEM block %q, wants %q", ErrRecoveryKey, block.Type, want)
	}
	return block.Bytes, nil
}

// ReadRecoveryPublic reads the public half from a file.
func ReadRecoveryPublic(path string) (*RecoveryPublic, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read recovery key: %w", err)
	}
	p, err := ParseRecoveryPublic(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; make a pair with fulmar recovery new", path, err)
	}
	return p, nil
}

// ReadRecoveryKey reads the private half from a file.
func ReadRecoveryKey(path string) (*RecoveryKey, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read recovery key: %w", err)
	}
	k, err := ParseRecoveryKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; give the private file that fulmar recovery new made", path, err)
	}
	return k, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxKeyFile+1))
}

// ID tells recovery keys apart: the first 8 bytes of the SHA-256 of the raw public
// key, as a big-endian number.
func (p *RecoveryPublic) ID() ID { return ID(p.id) }

// PEM is the form that goes to boards.
func (p *RecoveryPublic) PEM() ([]byte, error) {
	k, err := ecdh.X25519().NewPublicKey(p.raw)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der}), nil
}

// Public is the half for boards.
func (k *RecoveryKey) Public() *RecoveryPublic { return k.pub }

// PEM is the form that is kept offline.
func (k *RecoveryKey) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.priv)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der}), nil
}

// wrapInfo binds a wrapped key to its purpose and its id.
func wrapInfo(id ID) []byte {
	return binary.BigEndian.AppendUint64([]byte("fulmar spool recovery v1 "), uint64(id))
}

func (p *RecoveryPublic) wrap(id ID, key []byte) ([]byte, error) {
	b, err := hpke.Seal(p.key, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(id), key)
	if err != nil {
		return nil, fmt.Errorf("wrap key %s to recovery key %s: %w", id, p.ID(), err)
	}
	return b, nil
}

func (k *RecoveryKey) unwrap(id ID, wrapped []byte) ([]byte, error) {
	key, err := hpke.Open(k.key, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(id), wrapped)
	if err != nil {
		return nil, fmt.Errorf("%w: recovery key %s does not open key %s", ErrKeyLost, k.pub.ID(), id)
	}
	return key, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
)

// pieceBytes is how much is sealed at once.
const pieceBytes = 64 << 10

// Errors that callers act upon.
var (
	// ErrDamaged: the file was cut, changed, or is no backup.
	ErrDamaged = errors.New("the backup is damaged, or is none")
	// ErrKey: the wrong recovery key, or none where one is needed.
	ErrKey = errors.New("the recovery key does not fit")
)

// Each piece is a length, whose highest bit marks the last one, and a ciphertext. That
// word is bound to the piece, and its place by HPKE's own count.
const lastPiece = 1 << 31

// A recovery key is PEM with an X25519 key, as fulmar recovery new makes it.
func parsePublic(text []byte) (hpke.PublicKey, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%w: wants the public half, a PEM block \"PUBLIC KEY\"", ErrKey)
	}
	k, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	pub, ok := k.(*ecdh.PublicKey)
	if !ok || pub.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("%w: wants X25519; make a pair with fulmar recovery new", ErrKey)
	}
	return hpke.NewDHKEMPublicKey(pub)
}

func parsePrivate(text []byte) (hpke.PrivateKey, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%w: wants the private half, a PEM block \"PRIVATE KEY\"", ErrKey)
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: its PEM block cannot be read", ErrKey) // without its bytes
	}
	priv, ok := k.(*ecdh.PrivateKey)
	if !ok || priv.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("%w: wants X25519", ErrKey)
	}
	return hpke.NewDHKEMPrivateKey(priv)
}

// keyID is the id of a recovery key as fulmar recovery id tells it.
func keyID(k hpke.PublicKey) string {
	sum := sha256.Sum256(k.Bytes())
	return hex.EncodeToString(sum[:8])
}

// sealer seals what is written to it.
type sealer struct {
	w   io.Writer
	s   *hpke.Sender
	buf []byte
}

func newSealer(w io.Writer, k hpke.PublicKey, info []byte) (*sealer, error) {
	enc, s, err := hpke.NewSender(k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, fmt.Errorf("seal backup: %w", err)
	}
	_, err = w.Write(enc)
	return &sealer{w: w, s: s}, err
}

// Write implements [io.Writer].
func (s *sealer) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if len(s.buf) == pieceBytes { // more follows, so it is not the last
			if err := s.piece(0); err != nil {
				return 0, err
			}
		}
		m := min(len(b), pieceBytes-len(s.buf))
		s.buf, b = append(s.buf, b[:m]...), b[m:]
	}
	return n, nil
}

// Close writes the last piece.
func (s *sealer) Close() error { return s.piece(lastPiece) }

func (s *sealer) piece(mark uint32) error {
	word := binary.BigEndian.AppendUint32(nil, uint32(len(s.buf))|mark)
	text, err := s.s.Seal(word, s.buf)
	if err != nil {
		return fmt.Errorf("seal backup: %w", err)
	}
	s.buf = s.buf[:0]
	_, err = s.w.Write(append(word, text...))
	return err
}

// opener reads what a sealer wrote. Nothing comes out of a piece that is not whole, and
// the end is an end only after the piece that says so.
type opener struct {
	r    io.Reader
	s    *hpke.Recipient
	rest []byte
	last bool
}

// encBytes is the length of X25519's encapsulated key, tagBytes of the tag of AES-GCM.
const (
	encBytes = 32
	tagBytes = 16
)

func newOpener(r io.Reader, k hpke.PrivateKey, info []byte) (*opener, error) {
	enc := make([]byte, encBytes)
	if _, err := io.ReadFull(r, enc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s, err := hpke.NewRecipient(enc, k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &opener{r: r, s: s}, nil
}

// Read implements [io.Reader].
func (o *opener) Read(b []byte) (int, error) {
	for len(o.rest) == 0 {
		if o.last {
			if n, err := io.ReadFull(o.r, make([]byte, 1)); n > 0 || err == nil {
				return 0, fmt.Errorf("%w: more after its end", ErrDamaged)
			}
			return 0, io.EOF
		}
		var word [4]byte
		if _, err := io.ReadFull(o.r, word[:]); err != nil {
			return 0, fmt.Errorf("%w: it ends too soon", ErrDamaged)
		}
		n := binary.BigEndian.Uint32(word[:])
		o.last = n&lastPiece != 0
		n &^= lastPiece
		if n > pieceBytes {
			return 0, fmt.Errorf("%w: a piece of %d bytes", ErrDamaged, n)
		}
		text := make([]byte, n+tagBytes)
		if _, err := io.ReadFull(o.r, text); err != nil {
			return 0, fmt.Errorf("%w: it ends too soon", ErrDamaged)
		}
		plain, err := o.s.Open(word[:], text)
		if err != nil {
			return 0, fmt.Errorf("%w: a piece was changed", ErrDamaged)
		}
		o.rest = slices.Clone(plain)
	}
	n := copy(b, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

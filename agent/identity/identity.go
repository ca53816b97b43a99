// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"fulmar/agent/chip"
	"fulmar/agent/config"
	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/tpm"
)

// Key is a board's private key, wherever it lives: in a file, or in a TPM ([TPMKey]).
// The private part never passes through here.
type Key interface {
	// Signer signs with the key.
	Signer() crypto.Signer
	// Mode names where it lives, schema.KeySoftware or schema.KeyTPM.
	Mode() string
}

type softKey struct{ *ecdsa.PrivateKey }

func (k softKey) Signer() crypto.Signer { return k.PrivateKey }
func (softKey) Mode() string            { return schema.KeySoftware }

// openSoftKey reads the key file, or makes it (ECDSA P-256, readable by the
// owner only) on first start.
func openSoftKey(path string) (Key, error) {
	k, err := readSoftKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSoftKey(path)
	}
	return k, err
}

func readSoftKey(path string) (Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read board key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("board key %s is not a PEM private key; move it away and enrol again", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("board key %s: %w; move it away and enrol again", path, err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("board key %s is no ECDSA key; move it away and enrol again", path)
	}
	return softKey{ec}, nil
}

func makeSoftKey(path string) (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := atomicfile.WriteFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	return softKey{k}, nil
}

// Identity is who the board is to its fleet: what enrolment gave, and the key.
type Identity struct {
	Tenant string
	Board  string
	Broker string // host:port
	Trust  string // how the fleet knows where the key is, one of schema's Trust constants; "" of an older fleet

	key      Key
	leaf     *x509.Certificate
	cert     tls.Certificate
	cas      []*x509.Certificate // the fleet's authorities, at least one
	clock    Clock
	sessions tls.ClientSessionCache // with the broker
}

// Prover is the board's key where it is in a TPM, nil where the board can prove nothing.
func (id *Identity) Prover() *TPMKey {
	k, _ := id.key.(*TPMKey)
	return k
}

// StoredBoard is the name under which the identity kept in dir stands at its fleet; ""
// where there is none, or none of the key that is kept beside it. It asks no TPM.
func StoredBoard(dir string) string {
	b, err := readSmallJSON(filepath.Join(dir, File))
	if err != nil {
		return ""
	}
	var r schema.EnrolReply
	if json.Unmarshal(b, &r) != nil || schema.CheckBoard(r.Board) != nil {
		return ""
	}
	leaf, err := parseCert(r.Certificate)
	if err != nil {
		return ""
	}
	var key crypto.PublicKey
	if Where(dir, config.KeyAuto) == schema.KeyTPM {
		text, err := os.ReadFile(filepath.Join(dir, chip.KeyFile))
		if err != nil {
			return ""
		}
		k, err := new(tpm.TPM).ParseKey(text)
		if err != nil {
			return ""
		}
		key = k.Public()
	} else {
		k, err := readSoftKey(filepath.Join(dir, softFile))
		if err != nil {
			return ""
		}
		key = k.Signer().Public()
	}
	if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key) {
		return ""
	}
	return r.Board
}

// File is the fleet's reply as it came, in an identity's folder; it holds no secret.
const File = "identity.json"

// maxIdentity bounds it: two certificates of a kilobyte and some names.
const maxIdentity = maxEnrolReply

func readSmallJSON(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxIdentity))
}

func loadIdentity(dir string, key Key, clock Clock) (*Identity, error) {
	b, err := readSmallJSON(filepath.Join(dir, File))
	if err != nil {
		return nil, err
	}
	var r schema.EnrolReply
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("identity in %s: %w", dir, err)
	}
	return newIdentity(&r, key, clock)
}

func (id *Identity) save(dir string, r *schema.EnrolReply) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, File), b, 0o600)
}

// newIdentity checks that the reply's certificate is for this key and signed by
// the authority beside it.
func newIdentity(r *schema.EnrolReply, key Key, clock Clock) (*Identity, error) {
	if err := errors.Join(schema.CheckBoard(r.Tenant), schema.CheckBoard(r.Board), checkAddress(r.Broker)); err != nil {
		return nil, fmt.Errorf("enrolment reply: %w", err)
	}
	if len(r.Trust) > schema.MaxName {
		return nil, fmt.Errorf("enrolment reply: trust of %d bytes, at most %d", len(r.Trust), schema.MaxName)
	}
	cas, err := parseCerts(r.CA)
	if err != nil {
		return nil, fmt.Errorf("enrolment reply: authority: %w", err)
	}
	leaf, err := parseCert(r.Certificate)
	if err != nil {
		return nil, fmt.Errorf("enrolment reply: certificate: %w", err)
	}
	pub, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(key.Signer().Public()) {
		return nil, errors.New("enrolment reply: certificate is for another key")
	}
	if !slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil }) {
		return nil, errors.New("enrolment reply: certificate is not signed by its authority")
	}
	return &Identity{
		Tenant: r.Tenant, Board: r.Board, Broker: r.Broker, Trust: r.Trust,
		key: key, leaf: leaf, cas: cas, clock: clock,
		cert: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key.Signer(), Leaf: leaf},
		// One entry for each session ticket's server: there is one broker.
		sessions: tls.NewLRUClientSessionCache(1),
	}, nil
}

func checkAddress(s string) error {
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
		return errors.New("broker is not host:port")
	}
	return nil
}

// maxAuthorities bounds what a fleet may have a board trust: one that issues and one
// that comes or goes, with some earlier certificates of each key.
const maxAuthorities = 8

func parseCerts(s string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := []byte(s); len(out) == 0 || len(bytes.TrimSpace(rest)) > 0; {
		block, more := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(out) == maxAuthorities {
			return nil, fmt.Errorf("is not 1 to %d PEM certificates", maxAuthorities)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out, rest = append(out, c), more
	}
	return out, nil
}

func parseCert(s string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(s))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("is not a PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

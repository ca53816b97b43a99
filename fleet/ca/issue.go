// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"fulmar/schema"
)

// MaxCSR is the longest certificate request that is read, in bytes of PEM.
const MaxCSR = 8 << 10

// ErrBadRequest is wrapped by errors about a certificate request that will never
// be accepted as it is.
var ErrBadRequest = errors.New("certificate request refused")

// Leaf is a certificate made for a board.
type Leaf struct {
	PEM         []byte
	Serial      string   // hex
	Fingerprint [32]byte // SHA-256 of the DER
	KeyHash     [32]byte // SHA-256 of the public key (SubjectPublicKeyInfo)
	NotAfter    time.Time
}

// ParseRequest reads a PEM PKCS #10 request and checks that its key is of an
// accepted kind and that it is signed with it.
func ParseRequest(csr []byte) (*x509.CertificateRequest, error) {
	if len(csr) > MaxCSR {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBadRequest, len(csr), MaxCSR)
	}
	b, rest := pem.Decode(csr)
	if b == nil || b.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) != 0 {
		return nil, fmt.Errorf("%w: not one PEM CERTIFICATE REQUEST", ErrBadRequest)
	}
	req, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS #10", ErrBadRequest)
	}
	switch k := req.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, fmt.Errorf("%w: curve %s, wants P-256 or P-384", ErrBadRequest, k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("%w: key of kind %s, wants ECDSA P-256, P-384 or Ed25519", ErrBadRequest, req.PublicKeyAlgorithm)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: its signature does not match its key", ErrBadRequest)
	}
	return req, nil
}

// KeyHash gives the SHA-256 of a request's public key.
func KeyHash(req *x509.CertificateRequest) [32]byte {
	return sha256.Sum256(req.RawSubjectPublicKeyInfo)
}

// Issue signs the request's key as the identity of a board. Only the key is
// taken from the request: names and usages are ours. trust, a schema.Trust constant,
// is the organizational unit: whoever sees the certificate sees how its key is kept.
func (a *Authority) Issue(csr []byte, tenant, board, trust string) (*Leaf, error) {
	if err := errors.Join(schema.CheckBoard(tenant), schema.CheckBoard(board)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	req, err := ParseRequest(csr)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: board, Organization: []string{tenant}, OrganizationalUnit: []string{trust}},
		URIs:         []*url.URL{identityURI(tenant, board)},
		NotBefore:    now.Add(-skew),
		NotAfter:     minTime(now.Add(boardLife), a.cert.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, req.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of board %s: %w", board, err)
	}
	return &Leaf{
		PEM:         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Serial:      serial.Text(16),
		Fingerprint: sha256.Sum256(der),
		KeyHash:     KeyHash(req),
		NotAfter:    t.NotAfter,
	}, nil
}

func identityURI(tenant, board string) *url.URL {
	return &url.URL{Scheme: "fulmar", Opaque: tenant + "/" + board}
}

// Identity is who a board's certificate says it is.
type Identity struct {
	Tenant      string
	Board       string
	Fingerprint [32]byte
	KeyHash     [32]byte  // SHA-256 of the public key (SubjectPublicKeyInfo)
	Serial      string    // hex
	NotAfter    time.Time // end of the certificate
}

// Identify reads the identity out of a certificate whose chain has been verified.
// Common name, organization and URI must agree.
func Identify(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || len(cert.Subject.Organization) != 1 {
		return Identity{}, errors.New("certificate names no board")
	}
	id := Identity{
		Tenant: cert.Subject.Organization[0], Board: cert.Subject.CommonName, Fingerprint: sha256.Sum256(cert.Raw),
		KeyHash: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Serial: cert.SerialNumber.Text(16), NotAfter: cert.NotAfter,
	}
	if err := errors.Join(schema.CheckBoard(id.Tenant), schema.CheckBoard(id.Board)); err != nil {
		return Identity{}, err
	}
	if cert.URIs[0].String() != identityURI(id.Tenant, id.Board).String() {
		return Identity{}, errors.New("certificate names two boards")
	}
	return id, nil
}

// Verify checks that a certificate presented over HTTPS is a board's of this
// authority and tells whose. An expired one is still good for asking a new one:
// the key was proven in the handshake, and a board that was switched off for
// months must be able to come back.
func (a *Authority) Verify(cert *x509.Certificate) (Identity, error) {
	at := minTime(time.Now(), cert.NotAfter)
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       a.pool,
		CurrentTime: at,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("verify certificate of a board: %w", err)
	}
	return Identify(cert)
}

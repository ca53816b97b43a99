// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

const (
	toldFile  = "told"      // when a server first told boards of the authority
	sinceFile = "since"     // number of the authority that issues, and when a server began with it
	chainFile = "chain.pem" // of the authority above, as it was installed; for people
	maxChain  = 8 * maxCertFile
	// minLeft is what an installed certificate must still be good for: boards renew at
	// two thirds of their certificate's life.
	minLeft = boardLife
)

// ErrRefused is wrapped by errors about changes that are not made.
var ErrRefused = errors.New("refused")

// Pin gives the SHA-256 of the certificate that issues, without asking for its key.
func Pin(dir string) ([32]byte, error) {
	f, err := openFolder(dir)
	if err != nil {
		return [32]byte{}, err
	}
	g := f.issuing()
	if g == nil || len(g.certs) == 0 {
		return [32]byte{}, fmt.Errorf("open authority: there is none in %s yet; the server makes it at its first start", dir)
	}
	return sha256.Sum256(g.certs[0].Raw), nil
}

// Status is one authority of a folder.
type Status struct {
	Issues    bool
	Reference string // of its key
	Cert      *x509.Certificate
	Earlier   int       // certificates of the same key that are still told
	Told      time.Time // since when boards are told of it; zero: not yet
}

// List tells what is in the folder, the one that issues first.
func List(dir string) ([]Status, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	var out []Status
	for _, g := range []*generation{f.issuing(), f.other()} {
		if g == nil || len(g.certs) == 0 {
			continue
		}
		ref, err := g.reference()
		if err != nil {
			return nil, err
		}
		out = append(out, Status{Issues: g.n == f.main, Reference: ref, Cert: g.certs[0], Earlier: len(g.certs) - 1, Told: g.told()})
	}
	return out, nil
}

func (g *generation) told() time.Time {
	text, err := readSmall(g.path(toldFile), maxRef)
	if err != nil {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, string(bytes.TrimSpace(text)))
	if err != nil {
		return time.Time{}
	}
	return at
}

// noteTold notes what a server does from now on: the authorities that it tells boards
// of, and the one that issues.
func (f *folder) noteTold() error {
	now := time.Now().UTC().Format(time.RFC3339Nano) + "\n"
	for _, g := range f.all {
		if len(g.certs) > 0 && g.told().IsZero() {
			if err := atomicfile.WriteFile(g.path(toldFile), []byte(now), 0o600); err != nil {
				return fmt.Errorf("note what boards are told: %w", err)
			}
		}
	}
	n, at, err := f.since()
	switch {
	case err == nil && n == f.main:
		return nil
	case at.IsZero() && f.main == 1: // there was no other one before
		now = f.issuing().certs[0].NotBefore.UTC().Format(time.RFC3339Nano) + "\n"
	}
	if err := atomicfile.WriteFile(filepath.Join(f.dir, sinceFile), []byte(strconv.Itoa(f.main)+" "+now), 0o600); err != nil {
		return fmt.Errorf("note who issues: %w", err)
	}
	return nil
}

func (f *folder) since() (n int, at time.Time, err error) {
	text, err := readSmall(filepath.Join(f.dir, sinceFile), maxRef)
	if err != nil {
		return 0, at, err
	}
	word, rest, _ := strings.Cut(string(bytes.TrimSpace(text)), " ")
	if n, err = strconv.Atoi(word); err == nil {
		at, err = time.Parse(time.RFC3339, rest)
	}
	return n, at, err
}

// Since tells since when all certificates come from the authority that issues.
func Since(dir string) (time.Time, error) {
	f, err := openFolder(dir)
	if err != nil {
		return time.Time{}, err
	}
	n, at, err := f.since()
	if err == nil && n != f.main {
		err = errors.New("the server was not restarted since the switch")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("since when the authority issues: %w", err)
	}
	return at, nil
}

// IssuedAt tells when a board's certificate was made, by its end; earlier than that
// where the authority's own end cut it short.
func IssuedAt(notAfter time.Time) time.Time { return notAfter.Add(-boardLife) }

// Init makes the first authority with a key that exists: a reference of package trust.
func Init(dir, ref string, tpm OpenTPM) error {
	f, err := openFolder(dir)
	if err != nil {
		return err
	}
	if len(f.all) > 0 && (f.issuing() == nil || len(f.issuing().certs) > 0) {
		return fmt.Errorf("%w: there is an authority in %s already; the next one is prepared with ca next", ErrRefused, dir)
	}
	if err := (&generation{n: 1, dir: dir}).create(ref, tpm); err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	return nil
}

// Next prepares the authority that is to follow: boards are told of it and trust it,
// and it signs nothing yet. Its key is made in a file where ref is "".
func Next(dir, ref string, tpm OpenTPM) error {
	f, err := openFolder(dir)
	if err != nil {
		return err
	}
	if f.issuing() == nil {
		return fmt.Errorf("%w: there is no authority in %s yet; use ca init", ErrRefused, dir)
	}
	g := f.other()
	switch {
	case g != nil && len(g.certs) > 0:
		return fmt.Errorf("%w: there are two authorities already; take the other one away with ca drop first", ErrRefused)
	case g == nil: // else its making was cut
		n := f.main%9 + 1
		g = &generation{n: n, dir: generationDir(dir, n)}
	}
	if err := g.create(ref, tpm); err != nil {
		return fmt.Errorf("make the next authority: %w", err)
	}
	return nil
}

// Switch lets the other authority issue from now on. Doing it again goes back.
func Switch(dir string, tpm OpenTPM) error {
	f, err := openFolder(dir)
	if err != nil {
		return err
	}
	g := f.other()
	if g == nil || len(g.certs) == 0 {
		return fmt.Errorf("%w: there is no other authority to switch to; make it with ca next", ErrRefused)
	}
	if err := g.try(g.certs[0], tpm); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, issuing), []byte(strconv.Itoa(g.n)+"\n"), 0o600)
}

// Drop takes the authority that does not issue away, with its key if that is a file of
// the folder. Boards that have only its certificate have to enrol anew.
func Drop(dir string) error {
	f, err := openFolder(dir)
	if err != nil {
		return err
	}
	g := f.other()
	if g == nil {
		return fmt.Errorf("%w: there is no other authority", ErrRefused)
	}
	// The key goes first: what is left after a cut is not taken for an authority that
	// still can issue, and dropping it again completes it.
	for _, name := range []string{keyFile, refFile, toldFile, chainFile, certFile} {
		if err := os.Remove(g.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop authority: %w", err)
		}
		if err := atomicfile.SyncDir(g.dir); err != nil {
			return fmt.Errorf("drop authority: %w", err)
		}
	}
	if g.n == 1 {
		return nil
	}
	if err := os.Remove(g.dir); err != nil {
		return fmt.Errorf("drop authority: %w", err)
	}
	return atomicfile.SyncDir(dir)
}

// pick gives the other authority, or the one that issues.
func (f *folder) pick(other bool) (*generation, error) {
	g := f.issuing()
	if other {
		g = f.other()
	}
	if g == nil || len(g.certs) == 0 {
		return nil, fmt.Errorf("%w: there is no such authority in %s", ErrRefused, f.dir)
	}
	return g, nil
}

// Request gives a PEM certificate request for the authority's own key, or the other
// one's, for an authority above to sign: an intermediate that signs leaves only.
func Request(dir string, other bool, tpm OpenTPM) ([]byte, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	g, err := f.pick(other)
	if err != nil {
		return nil, err
	}
	key, err := g.openKey(tpm)
	if err != nil {
		return nil, err
	}
	constraints, err := asn1.Marshal(struct {
		CA  bool
		Len int
	}{true, 0})
	if err != nil {
		return nil, err
	}
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x06}, BitLength: 7}) // certificates and revocation lists
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: g.certs[0].RawSubject, // it must stay, see Install
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: constraints},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage},
		},
	}, key)
	if err = errors.Join(err, key.Close()); err != nil {
		return nil, fmt.Errorf("sign request of the authority: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// Install takes the certificate that an authority above made for one of our keys,
// followed by the chain upwards, if it is given. Boards trust the certificate itself
// and never ask who signed it. The one before stays told: boards have its hash.
func Install(dir string, chain []byte, tpm OpenTPM) (*x509.Certificate, error) {
	if len(chain) > maxChain {
		return nil, fmt.Errorf("%w: a chain of %d bytes, at most %d", ErrRefused, len(chain), maxChain)
	}
	certs, err := parsePEM(chain)
	if err != nil {
		return nil, fmt.Errorf("%w: the chain: %w", ErrRefused, err)
	}
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	c := certs[0]
	i := slices.IndexFunc(f.all, func(g *generation) bool {
		return len(g.certs) > 0 && bytes.Equal(g.certs[0].RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo)
	})
	if i < 0 {
		return nil, fmt.Errorf("%w: the first certificate is for none of our keys; give the one made from the output of ca csr first", ErrRefused)
	}
	g := f.all[i]
	if err := g.check(certs); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := g.try(c, tpm); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	all := slices.DeleteFunc(slices.Clone(g.certs), c.Equal)
	all = append([]*x509.Certificate{c}, all...)
	var text []byte
	for _, c := range all[:min(len(all), maxCerts)] {
		text = append(text, encode(c)...)
	}
	if err := atomicfile.WriteFile(g.path(chainFile), chain, 0o644); err != nil {
		return nil, err
	}
	return c, atomicfile.WriteFile(g.path(certFile), text, 0o644)
}

// check holds an installed chain to what boards will need.
func (g *generation) check(certs []*x509.Certificate) error {
	c := certs[0]
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is no certificate of an authority (CA:TRUE); ask for an intermediate")
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it may not sign certificates (key usage keyCertSign is missing)")
	case !bytes.Equal(c.RawSubject, g.certs[0].RawSubject):
		return fmt.Errorf("its subject is %q and has to stay %q: boards find the authority by it; have it kept", c.Subject, g.certs[0].Subject)
	case time.Until(c.NotAfter) < minLeft:
		return fmt.Errorf("it ends on %s; wants %d days or more", c.NotAfter.Format(time.DateOnly), int(minLeft.Hours()/24))
	case time.Until(c.NotBefore) > 0:
		return fmt.Errorf("it begins only at %s", c.NotBefore.Format(time.RFC3339))
	}
	for i, above := range certs[1:] {
		if err := certs[i].CheckSignatureFrom(above); err != nil {
			return fmt.Errorf("certificate %d of the chain did not sign the one before it: %w", i+2, err)
		}
	}
	return nil
}

// try issues a server's and a board's certificate in memory and verifies them as boards
// and the server do: name constraints and usages above would show here.
func (g *generation) try(c *x509.Certificate, tpm OpenTPM) (err error) {
	key, err := g.openKey(tpm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, key.Close()) }()
	pool := x509.NewCertPool()
	pool.AddCert(c)
	a := &Authority{key: key, cert: c, told: []*x509.Certificate{c}, pool: pool}
	srv, err := a.Server(nil)
	if err != nil {
		return err
	}
	if _, err := srv.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "localhost"}); err != nil {
		return fmt.Errorf("a server's certificate under it does not verify: %w", err)
	}
	boardKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, boardKey)
	if err != nil {
		return err
	}
	leaf, err := a.Issue(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), "default", "trial", schema.TrustSoftware)
	if err != nil {
		return err
	}
	b, _ := pem.Decode(leaf.PEM)
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return err
	}
	if _, err := a.Verify(cert); err != nil {
		return fmt.Errorf("a board's certificate under it does not verify: %w", err)
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/trust"
)

const (
	keyFile  = "ca.key"  // PKCS #8, where the key is a file
	refFile  = "ca.ref"  // the key's reference, where it is not ca.key
	certFile = "ca.pem"  // the certificate, then earlier ones of the same key
	issuing  = "issuing" // number of the generation that issues; 1 where it is missing

	maxCertFile = 64 << 10 // bytes
	maxCerts    = 4        // certificates of one key that are told: one a year or less
	maxRef      = 4 << 10  // bytes of a reference
)

// generation is one authority in the folder: number 1 lies in the folder itself, where
// it always was, number n in the folder n.
type generation struct {
	n     int
	dir   string
	certs []*x509.Certificate // none where its making was cut
}

// folder is what lies in the folder of the authority.
type folder struct {
	dir  string
	all  []*generation // at most two, by number
	main int           // of the one that issues
}

func openFolder(dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the authority: %w", err)
	}
	f := &folder{dir: dir, main: 1}
	text, err := readSmall(filepath.Join(dir, issuing), maxRef)
	if err == nil {
		f.main, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open authority: which one issues: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	numbers := []int{1}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && e.IsDir() && n > 1 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		g, err := openGeneration(dir, n)
		if err != nil {
			return nil, err
		}
		if g != nil {
			f.all = append(f.all, g)
		}
	}
	switch {
	case len(f.all) > 2:
		return nil, fmt.Errorf("open authority: %s holds %d authorities, at most 2", dir, len(f.all))
	case f.main != 1 && (f.issuing() == nil || len(f.issuing().certs) == 0):
		return nil, fmt.Errorf("open authority: number %d is to issue and is not in %s; restore it from the backup", f.main, dir)
	}
	return f, nil
}

func (f *folder) issuing() *generation {
	for _, g := range f.all {
		if g.n == f.main {
			return g
		}
	}
	return nil
}

// other is the authority that does not issue, or nil.
func (f *folder) other() *generation {
	for _, g := range f.all {
		if g.n != f.main {
			return g
		}
	}
	return nil
}

func (f *folder) told() []*x509.Certificate {
	out := slices.Clone(f.issuing().certs)
	if o := f.other(); o != nil {
		out = append(out, o.certs...)
	}
	return out
}

func generationDir(dir string, n int) string {
	if n == 1 {
		return dir
	}
	return filepath.Join(dir, strconv.Itoa(n))
}

// openGeneration gives nil where there is none.
func openGeneration(dir string, n int) (*generation, error) {
	g := &generation{n: n, dir: generationDir(dir, n)}
	text, err := readSmall(g.path(certFile), maxCertFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !g.hasKey():
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return g, nil
	case err != nil:
		return nil, fmt.Errorf("open certificate of the authority: %w", err)
	}
	if g.certs, err = parseCerts(text); err != nil {
		return nil, fmt.Errorf("open certificate of the authority %s: %w", g.path(certFile), err)
	}
	return g, nil
}

func (g *generation) path(name string) string { return filepath.Join(g.dir, name) }

func (g *generation) hasKey() bool {
	_, keyErr := os.Stat(g.path(keyFile))
	_, refErr := os.Stat(g.path(refFile))
	return !errors.Is(keyErr, fs.ErrNotExist) || !errors.Is(refErr, fs.ErrNotExist)
}

// reference names the holder of the key.
func (g *generation) reference() (string, error) {
	text, err := readSmall(g.path(refFile), maxRef)
	if errors.Is(err, fs.ErrNotExist) {
		return "file:" + g.path(keyFile), nil
	}
	if err != nil {
		return "", fmt.Errorf("open key of the authority: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (g *generation) openKey(tpm OpenTPM) (*trust.Signer, error) {
	if !g.hasKey() {
		return nil, fmt.Errorf("open authority: %s is there but its key is gone; restore it from the backup, or remove it and enrol all boards anew", g.path(certFile))
	}
	ref, err := g.reference()
	if err != nil {
		return nil, err
	}
	key, err := trust.OpenSigner(ref, tpm)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		return nil, errors.Join(fmt.Errorf("open key of the authority %s: wants ECDSA P-256", ref), key.Close())
	}
	return key, nil
}

// create makes the key, in a file where ref is "", or notes its reference, and then the
// certificate that names it. What a cut left is completed.
func (g *generation) create(ref string, tpm OpenTPM) error {
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(g.dir)); err != nil {
		return err
	}
	if _, err := os.Stat(g.path(refFile)); err == nil {
		if old, err := g.reference(); err != nil || ref != "" && ref != old {
			return errors.Join(err, fmt.Errorf("%s names another key; remove it first", g.path(refFile)))
		}
	} else if ref != "" {
		key, err := trust.OpenSigner(ref, tpm)
		if err != nil {
			return err
		}
		if err := key.Close(); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(g.path(refFile), []byte(ref+"\n"), 0o600); err != nil {
			return err
		}
	} else if _, err := os.Stat(g.path(keyFile)); errors.Is(err, fs.ErrNotExist) {
		if _, err := trust.NewKeyFile(g.path(keyFile), trust.P256); err != nil {
			return err
		}
	}
	key, err := g.openKey(tpm)
	if err != nil {
		return err
	}
	c, err := selfSigned(key)
	if err = errors.Join(err, key.Close()); err != nil {
		return err
	}
	return atomicfile.WriteFile(g.path(certFile), encode(c), 0o644)
}

// subject is a name that no other authority has: the key's.
func subject(key *trust.Signer) pkix.Name {
	return pkix.Name{CommonName: "fulmar fleet authority " + key.ID[:8]}
}

func selfSigned(key *trust.Signer) (*x509.Certificate, error) {
	now := time.Now()
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject(key),
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// parseCerts reads PEM certificates, all of the first one's key.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	certs, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if !bytes.Equal(c.RawSubjectPublicKeyInfo, certs[0].RawSubjectPublicKeyInfo) {
			return nil, errors.New("its certificates are for several keys")
		}
	}
	return certs, nil
}

func parsePEM(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			break
		}
		if b.Type != "CERTIFICATE" || len(certs) == 2*maxCerts {
			return nil, fmt.Errorf("PEM block %.40q, or over %d of them; wants certificates only", b.Type, 2*maxCerts)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		certs, text = append(certs, c), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

func readSmall(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, err
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/schema"
)

// What may let a board in, in config words.
const (
	ByToken    = "token"    // a join token
	ByList     = "ek-list"  // its EK is on the list
	ByMaker    = "ek-chain" // a trusted maker signed its EK
	ByApproval = "approval" // a person
)

// Policy is what the fleet lets boards in by. The zero value lets none in.
type Policy struct {
	Token, List, Maker, Approval bool
	// NeedTPM: boards with a key in a file are not let in. Those that are in stay.
	NeedTPM bool
	Roots   *Roots // of makers; nil: no chain is trusted
	Listed  *List  // nil: none
}

// NewPolicy makes a policy of config words: of admit (token, ek-list, ek-chain,
// approval) and least ("software", "" or "tpm"). Its errors name the word.
func NewPolicy(admit []string, least string) (p Policy, err error) {
	for _, w := range admit {
		switch w {
		case ByToken:
			p.Token = true
		case ByList:
			p.List = true
		case ByMaker:
			p.Maker = true
		case ByApproval:
			p.Approval = true
		default:
			return p, fmt.Errorf("admit: %q: wants %s, %s, %s or %s", w, ByToken, ByList, ByMaker, ByApproval)
		}
	}
	switch least {
	case "", schema.KeySoftware:
	case schema.KeyTPM:
		p.NeedTPM = true
	default:
		return p, fmt.Errorf("least: %q: wants %s or %s", least, schema.KeySoftware, schema.KeyTPM)
	}
	return p, nil
}

// Bounds on what a person names in the config.
const (
	maxRootsBytes = 4 << 20 // the makers there are have some hundred certificates
	maxRootFiles  = 1000
	maxListBytes  = 16 << 20 // 50,000 boards, with room for remarks
	listEvery     = 2 * time.Second
)

// Roots are the certificates of makers (and of their intermediates) that are trusted.
type Roots struct {
	pool *x509.CertPool
	all  []*x509.Certificate
}

// LoadRoots reads a PEM file, or all files of a folder.
func LoadRoots(path string) (*Roots, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read makers' certificates: %w", err)
	}
	files := []string{path}
	if st.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("read makers' certificates: %w", err)
		}
		files = nil
		for _, e := range entries {
			if !e.IsDir() {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	if len(files) > maxRootFiles {
		return nil, fmt.Errorf("read makers' certificates: %s holds %d files, at most %d", path, len(files), maxRootFiles)
	}
	r := &Roots{pool: x509.NewCertPool()}
	for _, f := range files {
		if err := r.add(f); err != nil {
			return nil, err
		}
	}
	if len(r.all) == 0 {
		return nil, fmt.Errorf("read makers' certificates: %s holds no PEM certificate (a .cer or .crt of a maker is often DER: openssl x509 -inform der)", path)
	}
	return r, nil
}

func (r *Roots) add(path string) error {
	b, err := readBounded(path, maxRootsBytes)
	if err != nil {
		return fmt.Errorf("read makers' certificates: %w", err)
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("read makers' certificates: %s: %w", path, err)
		}
		if !c.IsCA {
			return fmt.Errorf("read makers' certificates: %s: %q is no authority", path, c.Subject)
		}
		r.all = append(r.all, c)
		r.pool.AddCert(c)
	}
}

// forged tells whether a certificate says that one of the makers signed it, and none did.
func (r *Roots) forged(c *x509.Certificate) bool {
	named := false
	for _, root := range r.all {
		if !bytes.Equal(c.RawIssuer, root.RawSubject) {
			continue
		}
		if c.CheckSignatureFrom(root) == nil {
			return false
		}
		named = true
	}
	return named
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, nil
}

// List is a file of endorsement keys that are let in. It is read again when it changes.
type List struct {
	path string

	mu      sync.Mutex
	by      map[[32]byte]string
	looked  time.Time
	changed time.Time
	size    int64
}

// LoadList reads a list. A line is the SHA-256 of an endorsement key's public area in
// hex, as `fulmar tpm info` tells it, and after a space the one name it may have; without
// it any. What follows a # is a remark.
func LoadList(path string) (*List, error) {
	l := &List{path: path}
	return l, l.load()
}

func (l *List) load() error {
	st, err := os.Stat(l.path)
	if err != nil {
		return fmt.Errorf("read list of endorsement keys: %w", err)
	}
	if l.by != nil && st.ModTime().Equal(l.changed) && st.Size() == l.size {
		return nil
	}
	b, err := readBounded(l.path, maxListBytes)
	if err != nil {
		return fmt.Errorf("read list of endorsement keys: %w", err)
	}
	by, err := parseList(b)
	if err != nil {
		return fmt.Errorf("read list of endorsement keys: %s: %w", l.path, err)
	}
	l.by, l.changed, l.size = by, st.ModTime(), st.Size()
	return nil
}

func parseList(b []byte) (map[[32]byte]string, error) {
	by := map[[32]byte]string{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		h, err := hex.DecodeString(f[0])
		if err != nil || len(h) != 32 || len(f) > 2 {
			return nil, fmt.Errorf("line %d: wants 64 hex digits and at most one name", n)
		}
		name := ""
		if len(f) == 2 {
			name = f[1]
			if err := schema.CheckBoard(name); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
		if _, twice := by[[32]byte(h)]; twice {
			return nil, fmt.Errorf("line %d: the key is on the list already", n)
		}
		by[[32]byte(h)] = name
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return nil, errors.New("a line is over 64 KiB")
	}
	return by, s.Err()
}

// has tells whether a key is listed for a board's name. Where the file cannot be read
// any more the answer is that of the last time it could, and the error says so.
func (l *List) has(ek [32]byte, board string, now time.Time) (ok bool, err error) {
	if l == nil {
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.looked) >= listEvery || now.Before(l.looked) {
		l.looked = now
		err = l.load()
	}
	name, ok := l.by[ek]
	return ok && slices.Contains([]string{"", board}, name), err
}

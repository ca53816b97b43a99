// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

func roots(t testing.TB, m ...*tpmtest.Maker) *Roots {
	t.Helper()
	var b []byte
	for _, m := range m {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Root.Raw})...)
	}
	path := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return must[*Roots](t)(LoadRoots(path))
}

// TestMaker: a certificate of a trusted maker lets a board in where the fleet says so;
// one that is out of its time or of a stranger proves nothing; a forged one is refused.
func TestMaker(t *testing.T) {
	t.Parallel()
	good, liar := tpmtest.NewMaker(t), tpmtest.NewMaker(t)
	sub := good.Sub(t)
	policy := Policy{Token: true, Maker: true, Approval: true, Roots: roots(t, good)}
	b := newBoard(t, tpmtest.Start(t))
	other := newBoard(t, tpmtest.Start(t))
	day := 24 * time.Hour
	from, to := time.Now().Add(-day), time.Now().Add(day)
	unknownSub := tpmtest.NewMaker(t).Sub(t) // of the name of a maker we know
	for name, c := range map[string]struct {
		certs [][]byte
		at    time.Duration // of the fleet's clock, from now
		code  Code
		in    bool
		note  string
	}{
		"good":                     {certs: [][]byte{good.Certify(t, b.ek, from, to)}, in: true, note: "is good: CN=Test maker"},
		"good, with one between":   {certs: [][]byte{sub.Certify(t, b.ek, from, to), sub.Root.Raw}, in: true, note: "is good"},
		"the one between missing":  {certs: [][]byte{sub.Certify(t, b.ek, from, to)}, note: "not told of"},
		"expired":                  {certs: [][]byte{good.Certify(t, b.ek, from.Add(-day), from)}, note: "not accepted"},
		"not yet valid":            {certs: [][]byte{good.Certify(t, b.ek, to, to.Add(day))}, note: "not accepted"},
		"a fleet in 1970":          {certs: [][]byte{good.Certify(t, b.ek, from, to)}, at: -56 * 365 * day, note: "not accepted"},
		"a fleet in 30 years":      {certs: [][]byte{good.Certify(t, b.ek, from, to)}, at: 30 * 365 * day, note: "not accepted"},
		"of another TPM":           {certs: [][]byte{good.Certify(t, other.ek, from, to)}, code: CodeMaker},
		"forged":                   {certs: [][]byte{liar.Certify(t, b.ek, from, to)}, code: CodeMaker},
		"forged, with one between": {certs: [][]byte{unknownSub.Certify(t, b.ek, from, to), unknownSub.Root.Raw}, code: CodeMaker},
		"too long":                 {certs: [][]byte{make([]byte, 4097)}, code: CodeMaker},
		"too long between":         {certs: [][]byte{good.Certify(t, b.ek, from, to), make([]byte, 4097)}, code: CodeMaker},
		"noise":                    {certs: [][]byte{[]byte("noise")}, code: CodeMaker},
		"none":                     {note: "gave it no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, policy)
			h.now = func() time.Time { return time.Now().Add(c.at) }
			b.certs = c.certs
			a, err := b.enrol(t, h.Desk, "b1", "")
			if c.code != "" {
				wants(t, err, c.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if in := a.Leaf != nil; in != c.in || in && a.Trust != schema.TrustMaker {
				t.Fatalf("in: %v, trust %s", in, a.Trust)
			}
			note, trust := "", ""
			if c.in {
				x := must[[]registry.Board](t)(h.reg.Boards(t.Context(), registry.DefaultTenant))
				note, trust = x[0].EKNote, schema.TrustFirstUse
			} else {
				x := must[[]registry.Request](t)(h.reg.Pending(t.Context(), registry.DefaultTenant))
				note, trust = x[0].EKNote, x[0].Trust
			}
			if !strings.Contains(note, c.note) || trust != schema.TrustFirstUse {
				t.Errorf("%q, trust %s", note, trust)
			}
		})
	}
	// Trusted, but not a way in: a person is asked, and sees it.
	h := open(t, Policy{Approval: true, Roots: roots(t, good)})
	b.certs = [][]byte{good.Certify(t, b.ek, from, to)}
	if a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", "")); a.Wait == nil {
		t.Error("let in")
	}
	if q := must[[]registry.Request](t)(h.reg.Pending(t.Context(), registry.DefaultTenant)); q[0].Trust != schema.TrustMaker {
		t.Error(q[0].Trust)
	}
}

// TestSetupTPM: a TPM as swtpm_setup makes it, RSA 2048 and P-384 certified by an
// authority of two steps, from nothing to a certificate.
func TestSetupTPM(t *testing.T) {
	t.Parallel()
	chip, root, between := tpmtest.Made(t)
	dir := t.TempDir()
	for i, f := range []string{root, between} {
		b := must[[]byte](t)(os.ReadFile(f))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := must[*Roots](t)(LoadRoots(dir))
	b := newBoard(t, chip)
	h := open(t, Policy{Maker: true, Roots: r})
	a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", ""))
	if a.Trust != schema.TrustMaker {
		t.Errorf("trust %s", a.Trust)
	}
}

// TestListed: a TPM on the list comes in, under its name only, also when the list was
// written after the fleet began, and not when it was taken off.
func TestListed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "eks")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# nobody yet\n")
	p := usual()
	p.Listed = must[*List](t)(LoadList(path))
	h := open(t, p)
	later := time.Duration(0)
	h.now = func() time.Time { return time.Now().Add(later) }
	b := newBoard(t, tpmtest.Start(t))
	if a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", "")); a.Wait == nil {
		t.Fatal("let in")
	}
	write(fmt.Sprintf("\n%x  b1 # the one at the gate\n", attest.EKHash(b.ek)))
	later += listEvery
	if a := must[*Answer](t)(b.enrol(t, h.Desk, "b2", "")); a.Wait == nil {
		t.Error("let in under another name")
	}
	write("not a list")
	later += listEvery
	if a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", "")); a.Leaf == nil || a.Trust != schema.TrustListed {
		t.Errorf("%+v", a)
	}
	if !strings.Contains(h.out.String(), "line 1") {
		t.Error("nobody is told that the list cannot be read")
	}
	off := open(t, Policy{Approval: true, Listed: p.Listed})
	if a := must[*Answer](t)(b.enrol(t, off.Desk, "b1", "")); a.Wait == nil {
		t.Error("let in where the list is no way in")
	}
	for _, bad := range []string{"zz", strings.Repeat("a", 63), strings.Repeat("aa", 32) + " b1 b2", strings.Repeat("aa", 32) + " B!", strings.Repeat(strings.Repeat("aa", 32)+"\n", 2), strings.Repeat("x", 1<<17)} {
		if _, err := parseList([]byte(bad)); err == nil {
			t.Errorf("taken: %.80s", bad)
		}
	}
}

func TestRootFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := LoadRoots(filepath.Join(dir, "none")); err == nil {
		t.Error("no such file")
	}
	if _, err := LoadRoots(dir); err == nil {
		t.Error("an empty folder")
	}
	m := tpmtest.NewMaker(t)
	b := newBoard(t, tpmtest.Start(t))
	leaf := m.Certify(t, b.ek, time.Now(), time.Now())
	for name, text := range map[string][]byte{"der": m.Root.Raw, "leaf": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}), "big": bytes.Repeat([]byte("x"), maxRootsBytes+1)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadRoots(path); err == nil {
			t.Errorf("taken: %s", name)
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	p, err := NewPolicy([]string{"token", "ek-list", "ek-chain", "approval"}, "tpm")
	if err != nil || !p.Token || !p.List || !p.Maker || !p.Approval || !p.NeedTPM {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := NewPolicy([]string{"anybody"}, ""); err == nil {
		t.Error("taken")
	}
	if _, err := NewPolicy(nil, "hsm"); err == nil {
		t.Error("taken")
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte("# x\n" + strings.Repeat("ab", 32) + " b1\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseList(b) })
}

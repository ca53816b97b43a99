// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/gateway/pieces"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
)

func content(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// TestStore: what is put is what is given, each piece with its proof; what is not what it
// should be, or too much, leaves nothing behind.
func TestStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, size := range []int{1, release.Piece, release.Piece + 1, 9*release.Piece + 7} {
		b := content(byte(i), size)
		o, err := s.Put(bytes.NewReader(b), release.Object{})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.Put(bytes.NewReader(b), o); err != nil || again != o {
			t.Fatalf("again: %v, %v", again, err)
		}
		f, err := s.take(o.Tree)
		if err != nil {
			t.Fatal(err)
		}
		for p := range o.Pieces() {
			data, path, err := f.piece(p)
			if err != nil || !o.Proves(p, data, path) || !bytes.Equal(data, b[p*release.Piece:p*release.Piece+len(data)]) {
				t.Fatalf("piece %d: %v", p, err)
			}
		}
		if _, _, err := f.piece(o.Pieces()); err == nil {
			t.Error("a piece behind the last")
		}
		f.use(-1)
	}
	used, _ := s.Used()
	files := func() int {
		l, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	before := files()
	b := content(9, 100)
	o, _, _ := release.Describe(bytes.NewReader(b))
	for what, want := range map[string]release.Object{"size": {Size: 99}, "longer": {Size: 101}, "sha": {SHA256: release.Hash{1}}, "tree": {Tree: release.Hash{1}}} {
		if _, err := s.Put(bytes.NewReader(b), want); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Put(bytes.NewReader(content(8, 3<<20)), release.Object{}); !errors.Is(err, ErrQuota) {
		t.Errorf("too much: %v", err)
	}
	if now, _ := s.Used(); now != used || files() != before || s.Has(o.Tree) {
		t.Errorf("%d bytes and %d files were there, then %d and %d", used, before, now, files())
	}
	list, err := s.List()
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v", list, err)
	}
	if again, err := Open(dir, 0); err != nil || again.used != used {
		t.Errorf("opened again: %d bytes, %v", again.used, err)
	}
	for _, i := range list {
		if err := s.Remove(i.Tree); err != nil {
			t.Error(err)
		}
		if err := s.Remove(i.Tree); !errors.Is(err, ErrNone) {
			t.Error(err)
		}
	}
	if now, _ := s.Used(); now != 0 || files() != 0 {
		t.Errorf("%d bytes and %d files are left", now, files())
	}
}

// TestDamaged: a piece that the disk changed is not given.
func TestDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := content(1, 3*release.Piece)
	o, err := s.Put(bytes.NewReader(b), release.Object{})
	if err != nil {
		t.Fatal(err)
	}
	b[release.Piece] ^= 1
	if err := os.WriteFile(filepath.Join(dir, o.Tree.String()), b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := s.take(o.Tree)
	if err != nil {
		t.Fatal(err)
	}
	defer f.use(-1)
	for i, good := range []bool{true, false, true} {
		if _, _, err := f.piece(i); (err == nil) != good {
			t.Errorf("piece %d: %v", i, err)
		}
	}
}

// gate counts what boards are sent; a slow one takes a piece a second.
type gate struct {
	mu   sync.Mutex
	sent map[string][]uint32
	told map[string]int
	slow map[string]time.Time
}

func (g *gate) SendPiece(_, board string, payload []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at, ok := g.slow[board]; ok {
		if time.Now().Before(at) {
			return pieces.ErrBusy
		}
		g.slow[board] = time.Now().Add(time.Second)
	}
	var d ota.Down
	if err := schema.Decode(payload, &d); err != nil {
		return err
	}
	if d.Piece != nil {
		g.sent[board] = append(g.sent[board], d.Piece.Index)
	}
	return nil
}

func (g *gate) Hearing(string, string) (int, int) { return 0, 0 }

func (g *gate) Cast(string, string, []byte, func(string) bool) (int, int, error) { return 0, 0, nil }

func (g *gate) tell(_, board string, _ *ota.Down) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told[board]++
	return nil
}

// TestRates: in simulated time no board, site or fleet gets more than its rate, boards of
// one site get the same, and a slow board costs the others nothing.
func TestRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.TempDir(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		o, err := s.Put(bytes.NewReader(content(1, 200*release.Piece)), release.Object{})
		if err != nil {
			t.Fatal(err)
		}
		g := &gate{sent: map[string][]uint32{}, told: map[string]int{}, slow: map[string]time.Time{"b9": {}}}
		c := NewCaster(Config{
			Store: s, Gate: g, Tell: g.tell, Many: -1,
			Entitled: func(_, board string, _ release.Hash) (int64, bool) { return o.Size, board != "stranger" },
			Site: func(_, board string) string {
				if board < "b5" {
					return "one"
				}
				return ""
			},
			Rates: Rates{Board: 4 * release.Piece, Site: 8 * release.Piece},
		})
		done := make(chan error, 1)
		go func() { done <- c.Run(t.Context()) }()
		missing := bytes.Repeat([]byte{255}, 25)
		for i := range 10 {
			c.Want("t", fmt.Sprintf("b%d", i), &ota.Want{V: 1, Object: o.Tree[:], Size: o.Size, Missing: missing, Credit: 200, ID: 1})
			synctest.Wait() // who asks first may take what his own rate gives; he must not stay first for it
		}
		c.Want("t", "stranger", &ota.Want{V: 1, Object: o.Tree[:], Size: o.Size, Missing: missing, Credit: 200})
		time.Sleep(20 * time.Second)
		g.mu.Lock()
		site := 0
		for i := range 10 {
			name := fmt.Sprintf("b%d", i)
			n := len(g.sent[name])
			switch {
			case i < 5:
				if site += n; n < 30 || n > 36 {
					t.Errorf("%s of the site got %d pieces in 20 s", name, n)
				}
			case i == 9:
				if n < 15 || n > 21 {
					t.Errorf("the slow one got %d", n)
				}
			case n < 78 || n > 84:
				t.Errorf("%s got %d", name, n)
			}
			for k, p := range g.sent[name] {
				if int(p) != k {
					t.Fatalf("%s got piece %d as the %d.", name, p, k)
				}
			}
		}
		if site < 158 || site > 168 || len(g.sent["stranger"]) != 0 || g.told["stranger"] != 1 {
			t.Errorf("the site got %d, a stranger %d", site, len(g.sent["stranger"]))
		}
		g.mu.Unlock()
		c.SetRates(Rates{})
		time.Sleep(3 * time.Minute)
		g.mu.Lock()
		for i := range 9 {
			if n := len(g.sent[fmt.Sprintf("b%d", i)]); n != 200 {
				t.Errorf("b%d got %d in the end", i, n)
			}
		}
		g.mu.Unlock()
		if s := c.Stats(); s.Refused != 1 {
			t.Errorf("%+v", s)
		}
		c.Want("t", "b9", &ota.Want{V: 1, Object: o.Tree[:], Size: o.Size})
		if s := c.Stats(); s.Transfers != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzPick(f *testing.F) {
	f.Add(uint32(0), []byte{255, 1}, uint16(3), int64(1<<20))
	f.Add(uint32(1<<32-1), []byte{255}, uint16(256), int64(1))
	f.Fuzz(func(t *testing.T, from uint32, missing []byte, credit uint16, size int64) {
		w := &ota.Want{V: 1, Object: make([]byte, 32), Size: size, From: from, Missing: missing, Credit: credit}
		if w.Validate() != nil || size > release.MaxSize {
			return
		}
		o := release.Object{Size: size}
		asked, n := pick(w, size)
		if len(asked) > int(credit) || n < len(asked) || n > 8*len(missing) {
			t.Fatalf("%d asked of %d", len(asked), n)
		}
		for i, p := range asked {
			if int(p) >= o.Pieces() || i > 0 && p <= asked[i-1] {
				t.Fatalf("asked %v of %d", asked, o.Pieces())
			}
		}
	})
}

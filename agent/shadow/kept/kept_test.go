// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const limit = 100

func open(d Disk) (*State, string, string) {
	s, b, damage := Open(d, limit, func(b []byte) error {
		if string(b) == "not ours" {
			return errors.New("is not ours")
		}
		return nil
	})
	return s, string(b), damage
}

// TestFiles: on a real folder, the newest counts, and what is damaged is put aside.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "twin")
	d := Folder{dir, limit}
	s, got, damage := open(d)
	if got != "" || damage != "" {
		t.Fatalf("at first %q, %q", got, damage)
	}
	for i := range 5 {
		if err := s.Save(fmt.Append(nil, "state ", i)); err != nil {
			t.Fatal(err)
		}
		if _, got, damage = open(d); got != fmt.Sprint("state ", i) || damage != "" {
			t.Fatalf("after save %d: %q, %q", i, got, damage)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "state.0")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if err := s.Save(make([]byte, limit+1)); err == nil {
		t.Error("a state over its limit was taken")
	}
	newest := filepath.Join(dir, "state.1") // saves 1, 3 and 5
	whole, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte { b := bytes.Clone(whole); b[at] ^= 1; return b }
	for what, b := range map[string][]byte{
		"cut off": whole[:len(whole)-1], "empty": {}, "a bit of the state": flip(len(whole) - 1), "a bit of the number": flip(header - 1),
		"a bit of the sum": flip(len(magic)), "another file": []byte(strings.Repeat("x", 60)), "far too large": bytes.Repeat([]byte{1}, 10*limit),
	} {
		if err := os.WriteFile(newest, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, got, damage := open(d)
		if got != "state 3" || !strings.HasPrefix(damage, "state.1 ") {
			t.Errorf("%s: %q, %q", what, got, damage)
		}
		if _, err := os.Stat(newest + ".bad"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := s.Save([]byte("state 3")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(newest); err != nil { // the save went over the damaged one
			t.Errorf("%s: %v", what, err)
		}
	}
	s, _, _ = open(d)
	if err := s.Save([]byte("not ours")); err != nil {
		t.Fatal(err)
	}
	if _, got, damage := open(d); got != "state 3" || !strings.Contains(damage, "is not ours") {
		t.Errorf("what its owner does not take: %q, %q", got, damage)
	}
}

// torn is a disk that stops in the middle of a write: the file then holds what it is told.
type torn struct {
	files map[string][]byte
	left  func(old, b []byte) []byte // nil: it works
}

func (d *torn) Read(name string) ([]byte, error) {
	b, ok := d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

func (d *torn) Write(name string, b []byte) error {
	if d.left != nil {
		if d.files[name] = d.left(d.files[name], b); d.files[name] == nil {
			delete(d.files, name)
		}
		return errors.New("power")
	}
	d.files[name] = bytes.Clone(b)
	return nil
}

func (d *torn) Aside(name string) error { delete(d.files, name); return nil }

// TestCuts: the power goes at each byte of a write, also of several in a row: what was
// saved last is there, or what was to be saved.
func TestCuts(t *testing.T) {
	t.Parallel()
	for cut := range header + 20 {
		for _, tries := range []int{1, 2, 3} {
			d := &torn{files: map[string][]byte{}}
			s, _, _ := open(d)
			for _, st := range []string{"one", "two", "three"} {
				if err := s.Save([]byte(st)); err != nil {
					t.Fatal(err)
				}
			}
			d.left = func(old, b []byte) []byte {
				if cut == 0 {
					return old
				}
				return bytes.Clone(b[:min(cut, len(b))])
			}
			for range tries {
				if err := s.Save([]byte("four")); err == nil {
					t.Fatal("saved without power")
				}
			}
			d.left = nil
			s, got, damage := open(d)
			whole := cut >= header+len("four")
			if got != "three" && !whole || got != "four" && whole {
				t.Fatalf("cut at byte %d, %d times: %q, %q", cut, tries, got, damage)
			}
			if err := s.Save([]byte("five")); err != nil {
				t.Fatal(err)
			}
			if _, got, _ = open(d); got != "five" {
				t.Fatalf("cut at byte %d: then %q", cut, got)
			}
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T, path string) (*Journal, [][]byte) {
	t.Helper()
	j, entries, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, entries
}

func words(entries [][]byte) string {
	return string(bytes.Join(entries, []byte(" ")))
}

func TestAppendAndRewrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "commands")
	j, entries := open(t, path)
	if len(entries) != 0 || j.Damage != "" {
		t.Errorf("a new journal has %q, damage %q", entries, j.Damage)
	}
	if _, _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	for _, w := range []string{"one", "", "two"} {
		if err := j.Append([]byte(w)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Append([]byte("three"), []byte("four")); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	j, entries = open(t, path)
	if words(entries) != "one  two three four" || j.Damage != "" {
		t.Errorf("read %q, damage %q", entries, j.Damage)
	}
	if err := j.Rewrite(entries[3:]); err != nil {
		t.Fatal(err)
	}
	if err := j.Append([]byte("five")); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	if j, entries = open(t, path); words(entries) != "three four five" || j.Damage != "" {
		t.Errorf("read %q, damage %q", entries, j.Damage)
	}
	if err := j.Append(make([]byte, MaxEntry+1)); err == nil {
		t.Error("an entry over the bound was taken")
	}
	var err error
	for n := 0; err == nil && n <= MaxFile/MaxEntry; n++ {
		err = j.Append(make([]byte, MaxEntry))
	}
	if !errors.Is(err, ErrFull) || j.Size() > MaxFile {
		t.Errorf("%d bytes: %v", j.Size(), err)
	}
}

// TestTorn: cut off anywhere, or with zeros at its end, the file holds a prefix of what
// was appended, and more can be appended.
func TestTorn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "j")
	j, _ := open(t, path)
	ends := []int64{j.Size()}
	for i := range 5 {
		if err := j.Append(fmt.Appendf(nil, "entry%d", i)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.Size())
	}
	_ = j.Close()
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(all) + 1 {
		for _, tail := range []string{"", "\x00", strings.Repeat("\x00", 100)} {
			p := filepath.Join(dir, fmt.Sprint("torn", n, len(tail)))
			if err := os.WriteFile(p, append(bytes.Clone(all[:n]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			j, entries := open(t, p)
			want := 0
			for _, end := range ends[1:] {
				if int64(n) >= end {
					want++
				}
			}
			if len(entries) != want {
				t.Fatalf("cut at %d: %q, wants %d entries", n, entries, want)
			}
			if n >= len(magic) && j.Damage != "" {
				t.Errorf("cut at %d is called damage: %s", n, j.Damage)
			}
			if err := j.Append([]byte("more")); err != nil {
				t.Fatal(err)
			}
			_ = j.Close()
			j, entries = open(t, p)
			if len(entries) != want+1 || string(entries[want]) != "more" {
				t.Fatalf("cut at %d, then appended to: %q", n, entries)
			}
			_ = j.Close()
		}
	}
}

// TestDamaged: a bit that changed in the middle is found; what is before it counts, and
// all of it is kept aside.
func TestDamaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	for i := range 5 {
		if err := j.Append(fmt.Appendf(nil, "entry%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	_ = j.Close()
	all, _ := os.ReadFile(path)
	all[len(magic)+2*(header+6)+header] ^= 1
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	j, entries := open(t, path)
	bad, err := os.ReadFile(path + ".bad")
	if words(entries) != "entry0 entry1" || j.Damage == "" || err != nil || !bytes.Equal(bad, all) {
		t.Errorf("read %q, damage %q, aside %d bytes, %v", entries, j.Damage, len(bad), err)
	}
	_ = j.Close()
	if j, _ = open(t, path); j.Damage != "" {
		t.Errorf("still damaged: %s", j.Damage)
	}
	_ = j.Close()
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if j, entries = open(t, path); len(entries) != 0 || j.Damage == "" {
		t.Errorf("another file is read as %q, damage %q", entries, j.Damage)
	}
}

// TestFullDisk: an entry that does not fit is not there, those before are, and when
// there is room again more is taken.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	if err := j.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	f := j.f
	var err error
	if j.f, err = os.OpenFile("/dev/full", os.O_RDWR, 0); err != nil {
		t.Skip(err)
	}
	if err := j.Append([]byte("two")); !errors.Is(err, ErrBroken) { // /dev/full cannot be cut back either
		t.Errorf("a full disk: %v", err)
	}
	if err := j.Append([]byte("three")); !errors.Is(err, ErrBroken) {
		t.Errorf("after it: %v", err)
	}
	_ = j.f.Close()
	j.f, j.broken = f, nil
	_ = j.Close()
	if _, entries := open(t, path); words(entries) != "one" {
		t.Errorf("read %q", entries)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(magic))
	f.Add(frame(frame([]byte(magic), []byte("one")), nil))
	f.Add(append([]byte(magic), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, good := parse(b)
		if good > len(b) {
			t.Fatalf("%d of %d bytes are good", good, len(b))
		}
		again := []byte(magic)
		for _, e := range entries {
			again = frame(again, e)
		}
		if good > 0 && !bytes.Equal(again, b[:good]) {
			t.Fatal("what was read is not what stands there")
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	j, _, err := Open(filepath.Join(b.TempDir(), "j"))
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close() //nolint:errcheck // a bench
	e := make([]byte, 400)
	for b.Loop() {
		if err := j.Append(e); err != nil {
			if err := j.Rewrite(nil); err != nil {
				b.Fatal(err)
			}
		}
	}
}

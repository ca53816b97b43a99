// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ustar

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

type file struct{ name, text string }

func write(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, f := range files {
		if err := w.Create(f.name, int64(len(f.text))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Offset() != int64(b.Len()) {
		t.Errorf("offset %d of %d", w.Offset(), b.Len())
	}
	return b.Bytes()
}

func clean(s string) bool {
	return !strings.HasPrefix(s, "/") && !strings.Contains("/"+s+"/", "/../")
}

func limits() Limits { return Limits{Files: 8, Total: 1 << 20, Name: clean} }

func read(r io.Reader, l Limits) (out []file, err error) {
	t := NewReader(r, l)
	for {
		e, err := t.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return out, err
		}
		b, err := io.ReadAll(t)
		if err != nil {
			return out, err
		}
		out = append(out, file{e.Name, string(b)})
	}
}

func some() []file {
	return []file{
		{"a", ""},
		{"folder/b", strings.Repeat("b", 512)},
		{strings.Repeat("long/", 30) + strings.Repeat("n", 50), "x"},
		{"c.onnx", strings.Repeat("c", 1000)},
	}
}

// TestForm: the bytes are pinned, read back, and what archive/tar makes of them is the same.
func TestForm(t *testing.T) {
	t.Parallel()
	b := write(t, some()...)
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != "ef1e0c6274c27c64e9b2eae07a91af8d9b926c115e732053602871108a66fd87" {
		t.Errorf("the form changed: %x", sum)
	}
	for name, r := range map[string]io.Reader{"seeks": bytes.NewReader(b), "stream": io.MultiReader(bytes.NewReader(b))} {
		got, err := read(r, limits())
		if err != nil || len(got) != 4 || got[2] != some()[2] || got[3] != some()[3] {
			t.Errorf("%s: %d files, %v", name, len(got), err)
		}
	}
	r, other := NewReader(bytes.NewReader(b), limits()), tar.NewReader(bytes.NewReader(b))
	for range some() { // nothing of a file is read
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		h, err := other.Next()
		if err != nil || h.Name != e.Name || h.Size != e.Size || h.Mode != 0o644 || h.Typeflag != tar.TypeReg {
			t.Errorf("archive/tar sees %+v, %v; wants %+v", h, err, e)
		}
		if e.Size > 0 && b[e.Offset] != some()[3].text[0] && b[e.Offset] != 'b' && b[e.Offset] != 'x' {
			t.Errorf("%s is not at %d", e.Name, e.Offset)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// TestLargeSizes: sizes that octal digits cannot say are as other programs read them.
func TestLargeSizes(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, 1, maxOctal, maxOctal + 1, 16 << 30} {
		b, err := header("f", size)
		if err != nil {
			t.Fatal(err)
		}
		name, got, err := parse(&b)
		if err != nil || name != "f" || got != size {
			t.Errorf("%d was read as %d of %q, %v", size, got, name, err)
		}
		h, err := tar.NewReader(bytes.NewReader(b[:])).Next()
		if err != nil || h.Size != size {
			t.Errorf("archive/tar: %+v, %v", h, err)
		}
	}
}

// TestRefused: what tar can do beside plain files, and what is over a limit.
func TestRefused(t *testing.T) {
	t.Parallel()
	whole := write(t, some()...)
	other := func(h tar.Header, text string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, text)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	change := func(at int, c byte) []byte {
		b := bytes.Clone(whole)
		b[at] = c
		return b
	}
	dir := func(b []byte) []byte { // another name under a sum that is right
		h, _ := header("../e", 0)
		return append(h[:], b...)
	}
	for name, b := range map[string][]byte{
		"empty":          {},
		"cut":            whole[:len(whole)-1],
		"cut in a file":  whole[:1100],
		"one end block":  whole[:len(whole)-block],
		"more":           append(bytes.Clone(whole), 0),
		"end with bytes": change(len(whole)-1, 1),
		"padding":        change(len(whole)-2*block-1, 1),
		"sum":            change(sumAt, '1'),
		"mode":           change(100, '7'),
		"a link":         other(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""),
		"a folder":       other(tar.Header{Name: "d/", Typeflag: tar.TypeDir}, ""),
		"an owner":       other(tar.Header{Name: "f", Uid: 1}, "x"),
		"pax":            other(tar.Header{Name: "f", PAXRecords: map[string]string{"comment": "x"}, Format: tar.FormatPAX}, "x"),
		"upwards":        dir(whole),
	} {
		for _, r := range []io.Reader{bytes.NewReader(b), io.MultiReader(bytes.NewReader(b))} {
			if _, err := read(r, limits()); !errors.Is(err, ErrForm) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if r := NewReader(bytes.NewReader(b), limits()); true {
			var err error
			for err == nil {
				_, err = r.Next()
			}
			if !errors.Is(err, ErrForm) {
				t.Errorf("%s, passed over: %v", name, err)
			}
		}
	}
	for name, l := range map[string]Limits{
		"files": {Files: 3, Total: 1 << 20, Name: clean},
		"total": {Files: 8, Total: 1000, Name: clean},
		"names": {Files: 8, Total: 1 << 20, Name: func(s string) bool { return len(s) < 100 }},
	} {
		if _, err := read(bytes.NewReader(whole), l); !errors.Is(err, ErrForm) {
			t.Errorf("over the limit of %s: %v", name, err)
		}
	}
}

// TestNames: two files never fall onto one place.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"a", "a"}, {"a", "A"}, {"a", "a/b"}, {"a/b", "a"}, {"x/A/b", "X/a"}} {
		w := NewWriter(io.Discard)
		if err := w.Create(pair[0], 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Create(pair[1], 0); !errors.Is(err, ErrForm) {
			t.Errorf("%v: %v", pair, err)
		}
		// And who writes them nevertheless is not read.
		var b []byte
		for _, n := range pair {
			h, err := header(n, 0)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, h[:]...)
		}
		if _, err := read(bytes.NewReader(append(b, make([]byte, 2*block)...)), limits()); !errors.Is(err, ErrForm) {
			t.Errorf("%v was read: %v", pair, err)
		}
	}
	w := NewWriter(io.Discard)
	for _, bad := range []string{"", strings.Repeat("n", 101), strings.Repeat("f", 156) + "/n", "a\x00b"} {
		if err := w.Create(bad, 0); !errors.Is(err, ErrForm) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	if err := w.Create("f", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); !errors.Is(err, ErrForm) {
		t.Errorf("more than was said: %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrForm) {
		t.Errorf("less than was said: %v", err)
	}
}

// FuzzReader: what is read is, written again, the same bytes.
func FuzzReader(f *testing.F) {
	f.Add(write(f, some()...))
	f.Add(write(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := read(bytes.NewReader(b), limits())
		stream, serr := read(io.MultiReader(bytes.NewReader(b)), limits())
		if (err == nil) != (serr == nil) || len(files) != len(stream) {
			t.Fatalf("%v with Seek, %v without", err, serr)
		}
		if err == nil && !bytes.Equal(write(t, files...), b) {
			t.Fatal("written again it is another one")
		}
	})
}

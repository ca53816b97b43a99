// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/internal/merkle"
	"fulmar/ota/release"
)

func content(seed byte, size int) ([]byte, release.Object, *merkle.Tree) {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	o, tree, err := release.Describe(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return b, o, tree
}

// server serves objects as the fleet does, and may be made to lie.
type server struct {
	data    []byte
	tree    *merkle.Tree
	asked   atomic.Int64 // bytes of pieces
	corrupt func(from int, b []byte) []byte
	leaves  func([]byte) []byte
	wrap    http.HandlerFunc
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.wrap != nil {
		s.wrap(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/leaves") {
		var b []byte
		for _, l := range s.tree.Levels()[0] {
			b = append(b, l[:]...)
		}
		if s.leaves != nil {
			b = s.leaves(b)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		return
	}
	var from, to int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil || to >= len(s.data) {
		http.Error(w, "range", http.StatusRequestedRangeNotSatisfiable)
		return
	}
	b := s.data[from : to+1]
	s.asked.Add(int64(len(b)))
	if s.corrupt != nil {
		b = s.corrupt(from, bytes.Clone(b))
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(s.data)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(b)
}

func (s *server) source(t testing.TB) *HTTP {
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return &HTTP{URL: h.URL, Client: h.Client()}
}

func fetcher(t testing.TB, dir string, s ...Source) *Fetcher {
	t.Helper()
	f, err := New(Config{Dir: dir, Sources: s})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func same(t testing.TB, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s is not the object: %d bytes, %v", path, len(got), err)
	}
}

// TestHTTP: a server's objects come whole; a second fetch asks for nothing.
func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, release.Piece, 40*release.Piece + 3} {
		data, o, tree := content(1, size)
		s := &server{data: data, tree: tree}
		f := fetcher(t, t.TempDir(), s.source(t))
		path, err := f.Fetch(within(t, time.Minute), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, path, data)
		asked := s.asked.Load()
		if again, err := f.Fetch(within(t, time.Minute), o, nil); err != nil || again != path || asked != int64(size) || s.asked.Load() != asked {
			t.Errorf("again: %s, %v; %d bytes asked, then %d", again, err, asked, s.asked.Load()-asked)
		}
		if err := f.Drop(o); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("dropped, and %v is left", left)
		}
	}
}

// TestLiars: a server that sends other bytes, other leaves, too little, too much, without
// end, or says that it sent another range, costs one answer; the honest one behind it
// brings all, and nothing wrong is ever in the file.
func TestLiars(t *testing.T) {
	t.Parallel()
	data, o, tree := content(2, 20*release.Piece+9)
	endless := func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 1<<20)
		for {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
	for name, liar := range map[string]*server{
		"one bit":         {data: data, tree: tree, corrupt: func(_ int, b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		"another place":   {data: append(bytes.Clone(data[release.Piece:]), data[:release.Piece]...), tree: tree},
		"too little":      {data: data, tree: tree, corrupt: func(_ int, b []byte) []byte { return b[:len(b)/3] }},
		"too much":        {data: data, tree: tree, corrupt: func(_ int, b []byte) []byte { b[0] ^= 1; return append(b, b...) }},
		"a leaf":          {data: data, tree: tree, leaves: func(b []byte) []byte { b[40] ^= 1; return b }},
		"few leaves":      {data: data, tree: tree, leaves: func(b []byte) []byte { return b[:64] }},
		"no leaves":       {data: data, tree: tree, leaves: func([]byte) []byte { return nil }},
		"endless":         {wrap: endless},
		"an error":        {wrap: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) }},
		"it has none":     {wrap: http.NotFound},
		"not for you":     {wrap: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }},
		"a page":          {wrap: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }},
		"round in circle": {wrap: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			honest := &server{data: data, tree: tree}
			f := fetcher(t, t.TempDir(), liar.source(t), honest.source(t))
			path, err := f.Fetch(within(t, time.Minute), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			same(t, path, data)
			if s := f.Stats(); s.Wrong > 1 || s.Duplicates != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestAllRefuse: where no source gives it, that is said in the end, by what it was.
func TestAllRefuse(t *testing.T) {
	t.Parallel()
	_, o, _ := content(3, release.Piece)
	f := fetcher(t, t.TempDir(), (&server{wrap: http.NotFound}).source(t), (&server{wrap: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }}).source(t))
	_, err := f.Fetch(within(t, time.Minute), o, nil)
	if !errors.Is(err, ErrNotHere) || !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// cutting is a source that stops after some pieces.
type cutting struct {
	Source
	pieces int
}

func (c *cutting) Bring(ctx context.Context, j *Job) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if j.mu.Lock(); j.n >= c.pieces {
				cancel()
			}
			j.mu.Unlock()
			time.Sleep(100 * time.Microsecond)
		}
	}()
	return c.Source.Bring(ctx, j)
}

// TestResume: what was there before is not asked for again, unless it was changed on the
// disk meanwhile; junk beside it is no harm.
func TestResume(t *testing.T) {
	t.Parallel()
	data, o, tree := content(4, 64*release.Piece+1)
	for name, harm := range map[string]func(dir string){
		"nothing": func(string) {},
		"a piece changed": func(dir string) {
			change(t, filepath.Join(dir, o.Tree.String()+partSuffix), 3*release.Piece+5)
		},
		"a leaf changed":  func(dir string) { change(t, filepath.Join(dir, o.Tree.String()+LeavesSuffix), 2*merkle.Size) },
		"leaves are gone": func(dir string) { _ = os.Remove(filepath.Join(dir, o.Tree.String()+LeavesSuffix)) },
		"leaves are junk": func(dir string) {
			_ = os.WriteFile(filepath.Join(dir, o.Tree.String()+LeavesSuffix), bytes.Repeat([]byte("junk"), 9999), 0o600)
		},
		"the part is short": func(dir string) { _ = os.Truncate(filepath.Join(dir, o.Tree.String()+partSuffix), 1000) },
		"a whole one of junk": func(dir string) {
			_ = os.WriteFile(filepath.Join(dir, o.Tree.String()), []byte("junk"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, s := t.TempDir(), &server{data: data, tree: tree}
			src := s.source(t)
			ctx, cancel := context.WithCancel(t.Context())
			f := fetcher(t, dir, &cutting{src, 40})
			f.SetRate(20 << 20)
			_, err := f.Fetch(ctx, o, func(have, _ int64) {
				if have >= 40*release.Piece {
					cancel()
				}
			})
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			harm(dir)
			s.asked.Store(0)
			f = fetcher(t, dir, src)
			path, err := f.Fetch(within(t, time.Minute), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			same(t, path, data)
			asked := s.asked.Load()
			t.Logf("asked %d of %d bytes", asked, o.Size)
			if most := o.Size - 23*release.Piece; (name == "nothing" || strings.HasPrefix(name, "a ")) && asked > most {
				t.Errorf("asked for %d bytes, at most %d are missing", asked, most)
			}
		})
	}
}

func change(t testing.TB, file string, at int64) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := []byte{0}
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestWrongManifest: an object whose tree is right and whose SHA-256 is another's is
// refused when it is whole, and nothing of it stays.
func TestWrongManifest(t *testing.T) {
	t.Parallel()
	data, o, tree := content(6, 3*release.Piece)
	o.SHA256[0] ^= 1
	dir := t.TempDir()
	_, err := fetcher(t, dir, (&server{data: data, tree: tree}).source(t)).Fetch(within(t, time.Minute), o, nil)
	if left, _ := os.ReadDir(dir); !errors.Is(err, ErrHash) || len(left) != 0 {
		t.Errorf("%v, left %v", err, left)
	}
}

// TestBeside: two sources side by side bring no piece twice, and the second takes over
// from a first that stands still.
func TestBeside(t *testing.T) {
	t.Parallel()
	data, o, tree := content(7, 200*release.Piece)
	s := &server{data: data, tree: tree}
	a, b := s.source(t), s.source(t)
	f := fetcher(t, t.TempDir())
	j, err := f.open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	done := make(chan error, 2)
	for _, src := range []*HTTP{a, b} {
		go func() { done <- src.Bring(within(t, time.Minute), j) }()
	}
	if err := errors.Join(<-done, <-done, j.finish()); err != nil {
		t.Fatal(err)
	}
	if st := f.Stats(); st.Duplicates != 0 || s.asked.Load() != o.Size {
		t.Errorf("%+v, %d bytes asked of %d", st, s.asked.Load(), o.Size)
	}
}

// FuzzPut: whatever comes as a piece, the file has nothing but pieces of the object.
func FuzzPut(f *testing.F) {
	data, o, tree := content(8, 5*release.Piece+77)
	for i := range o.Pieces() {
		end := min(len(data), (i+1)*release.Piece)
		f.Add(i, data[i*release.Piece:end], tree.Path(nil, i))
	}
	f.Add(-1, []byte{}, []byte{})
	f.Add(1<<40, data[:release.Piece], []byte{1})
	dir := f.TempDir()
	g, err := New(Config{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	j, err := g.open(f.Context(), o)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, i int, b, path []byte) {
		fresh, _ := j.Put(i, b, path)
		if fresh && (i < 0 || i >= o.Pieces() || !bytes.Equal(b, data[i*release.Piece:min(len(data), (i+1)*release.Piece)])) {
			t.Fatalf("piece %d of %d bytes was taken", i, len(b))
		}
		_, _ = j.PutKnown(i, b)
	})
}

// FuzzLearn: a list of leaves is believed where it is that of the object, and only there.
func FuzzLearn(f *testing.F) {
	_, o, tree := content(9, 3*release.Piece)
	var good []byte
	for _, l := range tree.Levels()[0] {
		good = append(good, l[:]...)
	}
	f.Add(good)
	f.Add(good[:40])
	f.Add(append(bytes.Clone(good), 1))
	dir := f.TempDir()
	g, err := New(Config{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := g.open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		j.trusted = false
		err = j.Learn(bytes.NewReader(b))
		if is := len(b) >= len(good) && bytes.Equal(b[:len(good)], good); is != (err == nil) {
			t.Fatalf("%x: %v", b, err)
		}
	})
}

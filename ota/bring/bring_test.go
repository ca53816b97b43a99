// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"fulmar/internal/disk"
	"fulmar/internal/ustar"
	"fulmar/ota/release"
	words "fulmar/schema/ota"
)

// fleet is a fetcher over a folder, and a codec that puts "+" between base and patch.
type fleet struct {
	t       *testing.T
	dir     string
	objects map[release.Hash][]byte
	fails   map[release.Hash]error
	got     []string // sizes, as names: what travelled, and was dropped
	applied int
}

func object(b []byte) release.Object {
	o, _, err := release.Describe(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return o
}

func (f *fleet) add(b []byte) release.Object {
	o := object(b)
	f.objects[o.Tree] = b
	return o
}

func (f *fleet) path(o release.Object) string { return filepath.Join(f.dir, "o-"+o.Tree.String()) }

func (f *fleet) Fetch(ctx context.Context, o release.Object, progress func(have, all int64)) (string, error) {
	if err := errors.Join(f.fails[o.Tree], ctx.Err()); err != nil {
		return "", err
	}
	if _, err := os.Stat(f.path(o)); err == nil {
		return f.path(o), nil
	}
	f.got = append(f.got, string(f.objects[o.Tree]))
	progress(o.Size, o.Size)
	return f.path(o), os.WriteFile(f.path(o), f.objects[o.Tree], 0o600)
}

func (f *fleet) Drop(o release.Object) error {
	if err := os.Remove(f.path(o)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (f *fleet) apply(_ context.Context, codec, base, patch, out string, _ release.Object) error {
	f.applied++
	p, err := os.ReadFile(patch)
	if err != nil {
		return err
	}
	if codec == "add" {
		b, err := os.ReadFile(base)
		if err != nil {
			return err
		}
		p = append(append(b, '+'), p...)
	}
	return os.WriteFile(out, p, 0o600)
}

type world struct {
	*fleet
	b    *Bringer
	base map[release.Hash]string
}

func newWorld(t *testing.T) *world {
	f := &fleet{t: t, dir: t.TempDir(), objects: map[release.Hash][]byte{}, fails: map[release.Hash]error{}}
	w := &world{fleet: f, base: map[release.Hash]string{}}
	w.restart()
	return w
}

func (w *world) restart() {
	w.b = New(Config{Dir: filepath.Join(w.dir, "files"), Disk: disk.OS{}, Fetch: w.fleet, Apply: w.apply})
}

// runs puts a file in force.
func (w *world) runs(content string) release.Hash {
	sum := release.Hash(sha256.Sum256([]byte(content)))
	path := filepath.Join(w.dir, "run-"+sum.String())
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.base[sum] = path
	return sum
}

func (w *world) files(c *release.Component, patches ...release.Patch) (map[string]string, error) {
	return w.b.Files(w.t.Context(), c, patches, func(_ context.Context, sha release.Hash) (string, error) {
		if p := w.base[sha]; p != "" {
			return p, nil
		}
		return "", errors.New("no such base")
	}, func(have, all int64) {
		if have > all {
			w.t.Errorf("%d of %d bytes", have, all)
		}
	})
}

func (w *world) want(got map[string]string, err error, content map[string]string) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	for name, c := range content {
		if b, err := os.ReadFile(filepath.Join(w.dirOf(got, name), filepath.Base(name))); err != nil || string(b) != c {
			if b, err = os.ReadFile(got[name]); err != nil || string(b) != c {
				w.t.Errorf("%s is %.60q, %v", name, b, err)
			}
		}
	}
}

func (w *world) dirOf(got map[string]string, name string) string { return got[filepath.Dir(name)] }

func component(files ...release.File) *release.Component {
	return &release.Component{Name: "agent", Version: "2.0", Files: files}
}

// TestWays: the shortest way whose base is here is gone first; each way that fails is followed by
// the next, once; what is here already does not travel.
func TestWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.runs("old")
	other := object([]byte("what others run")).SHA256
	whole := w.add([]byte("old+new and a long rest of it"))
	good, wrong, foreign := w.add([]byte("new and a long rest of it")), w.add([]byte("wrong")), w.add([]byte("f"))
	same := release.File{Path: "lib", Object: object([]byte("old"))}
	f := release.File{Path: "fulmard", Object: whole, Encodings: []release.Encoding{
		{Codec: "add", From: &other, Object: foreign}, {Codec: "add", From: &old, Object: good}, {Codec: "zstd", Object: wrong},
	}}
	got, err := w.files(component(f, same))
	w.want(got, err, map[string]string{"fulmard": "old+new and a long rest of it", "lib": "old"})
	if want := []string{"wrong", "new and a long rest of it"}; !slices.Equal(w.got, want) {
		t.Errorf("%q travelled, wants %q", w.got, want)
	}
	w.restart() // and nothing travels again
	got, err = w.files(component(f, same))
	w.want(got, err, map[string]string{"fulmard": "old+new and a long rest of it"})
	if len(w.got) != 2 || w.applied != 2 {
		t.Errorf("%q travelled, %d patches were applied", w.got, w.applied)
	}
	// Damaged meanwhile: it comes again.
	if err := os.WriteFile(got["fulmard"], []byte("old+new and a long rest of iT"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.restart()
	got, err = w.files(component(f, same))
	w.want(got, err, map[string]string{"fulmard": "old+new and a long rest of it"})
	// A patch of the directive counts like those of the manifest.
	w.got = nil
	tiny := w.add([]byte("new and"))
	p := release.File{Path: "fulmard", Object: w.add([]byte("old+new and"))}
	got, err = w.files(component(p), release.Patch{To: p.SHA256, Encoding: release.Encoding{Codec: "add", From: &old, Object: tiny}})
	w.want(got, err, map[string]string{"fulmard": "old+new and"})
	if want := []string{"new and"}; !slices.Equal(w.got, want) {
		t.Errorf("%q travelled, wants %q", w.got, want)
	}
	if err := w.b.Forget(component(f, same, p), nil); err != nil {
		t.Fatal(err)
	}
	ents, _ := filepath.Glob(filepath.Join(w.dir, "[of]*"))
	if len(ents) != 0 {
		t.Errorf("left: %q", ents)
	}
}

// TestFails: what cannot be got says why, and whether another try may help.
func TestFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(w *world, f *release.File)
		reason string
		final  bool
	}{
		"the whole does not come":             {func(w *world, f *release.File) { w.fails[f.Tree] = errors.New("no route") }, words.Fetch, false},
		"another whole comes":                 {func(w *world, f *release.File) { w.objects[f.Tree] = []byte("evil") }, words.HashWrong, true},
		"a full disk":                         {func(w *world, f *release.File) { w.fails[f.Tree] = syscall.ENOSPC }, words.NoSpace, false},
		"a patch is wrong, and no whole here": {patchOnly, words.Fetch, false},
	} {
		w := newWorld(t)
		f := release.File{Path: "fulmard", Object: w.add([]byte("the new program"))}
		c.spoil(w, &f)
		_, err := w.files(component(f))
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.reason || e.Final != c.final || e.File != "fulmard" || (c.reason == words.NoSpace) != (e.Missing >= 15) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.b.Files(ctx, component(release.File{Path: "x", Object: w.add([]byte("x"))}), nil, func(context.Context, release.Hash) (string, error) { return "", os.ErrNotExist }, func(_, _ int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func patchOnly(w *world, f *release.File) {
	w.fails[f.Tree] = errors.New("gone")
	f.Encodings = []release.Encoding{{Codec: "zstd", Object: w.add([]byte("wrong"))}}
}

func tar(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := ustar.NewWriter(&b)
	for _, name := range files {
		if err := w.Create(name, int64(len(name))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestUnpack: a tar is unpacked below one folder, and one that would leave it, is longer than it says, or
// is none at all, is refused for good.
func TestUnpack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := release.File{Path: "model", Object: w.add(tar(t, "model.yaml", "golden/in.bin")), Unpack: true, Unpacked: 23}
	got, err := w.files(component(f))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.yaml", "golden/in.bin"} {
		if b, err := os.ReadFile(filepath.Join(got["model"], name)); err != nil || string(b) != name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, c := range map[string]struct {
		data []byte
		size int64
	}{
		"out of it":      {tar(t, "../../etc/passwd"), 100},
		"absolute":       {tar(t, "/etc/passwd"), 100},
		"hidden":         {tar(t, ".profile"), 100},
		"more than said": {tar(t, "model.yaml", "golden/in.bin"), 22},
		"no tar":         {[]byte("no tar at all"), 100},
		"cut off":        {tar(t, "model.yaml")[:700], 100},
	} {
		w := newWorld(t)
		f := release.File{Path: "model", Object: w.add(c.data), Unpack: true, Unpacked: c.size}
		_, err := w.files(component(f))
		var e *Error
		if !errors.As(err, &e) || e.Reason != words.HashWrong || !e.Final {
			t.Errorf("%s: %v", name, err)
		}
		if ents, _ := filepath.Glob(filepath.Join(w.dir, "..", "*", "etc", "passwd")); len(ents) > 0 {
			t.Errorf("%s: %q", name, ents)
		}
	}
}

// TestNeed: what is here does not count, what a patch makes does.
func TestNeed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.runs("old")
	f := release.File{Path: "fulmard", Object: w.add([]byte("old+new")), Encodings: []release.Encoding{{Codec: "add", From: &old, Object: w.add([]byte("new"))}}}
	lib := release.File{Path: "lib", Object: object([]byte("old"))}
	c := component(f, lib)
	base := func(_ context.Context, sha release.Hash) (string, error) {
		if p := w.base[sha]; p != "" {
			return p, nil
		}
		return "", os.ErrNotExist
	}
	if n := w.b.Need(t.Context(), c, nil, base); n != 10 {
		t.Errorf("needs %d", n)
	}
	if _, err := w.files(c); err != nil {
		t.Fatal(err)
	}
	if n := w.b.Need(t.Context(), c, nil, base); n != 0 {
		t.Errorf("needs %d", n)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorder does what a store asks on a real folder and keeps a log of it, of which
// [crash] makes what a disk may hold after the power failed.
type recorder struct {
	osDisk
	t         *testing.T
	root      string
	log       []step
	noSync    bool // controls: fsync of files is forgotten,
	noSyncDir bool // or that of folders
}

type step struct {
	what     string // mkdir create write sync rename symlink remove syncdir
	path, to string // relative to root
	data     []byte
	mode     fs.FileMode
}

func (r *recorder) rel(path string) string {
	p, err := filepath.Rel(r.root, path)
	if err != nil || strings.HasPrefix(p, "..") {
		r.t.Errorf("%s is changed, outside %s", path, r.root)
	}
	return p
}

func (r *recorder) did(s step, err error) error {
	if err == nil {
		r.log = append(r.log, s)
	}
	return err
}

func (r *recorder) mkdir(path string) error {
	return r.did(step{what: "mkdir", path: r.rel(path)}, r.osDisk.mkdir(path))
}

func (r *recorder) create(path string, mode fs.FileMode) (file, error) {
	f, err := r.osDisk.create(path, mode)
	if r.did(step{what: "create", path: r.rel(path), mode: mode}, err) != nil {
		return nil, err
	}
	return &recordedFile{f, r, r.rel(path)}, nil
}

func (r *recorder) rename(from, to string) error {
	return r.did(step{what: "rename", path: r.rel(from), to: r.rel(to)}, r.osDisk.rename(from, to))
}

func (r *recorder) symlink(to, path string) error {
	return r.did(step{what: "symlink", path: r.rel(path), to: to}, r.osDisk.symlink(to, path))
}

func (r *recorder) removeAll(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil // nothing happens
	}
	return r.did(step{what: "remove", path: r.rel(path)}, r.osDisk.removeAll(path))
}

func (r *recorder) syncDir(path string) error {
	if r.noSyncDir {
		return nil
	}
	return r.did(step{what: "syncdir", path: r.rel(path)}, nil)
}

type recordedFile struct {
	file
	r    *recorder
	path string
}

func (f *recordedFile) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	return n, f.r.did(step{what: "write", path: f.path, data: slices.Clone(b[:n])}, err)
}

func (f *recordedFile) Sync() error {
	if f.r.noSync {
		return nil
	}
	return f.r.did(step{what: "sync", path: f.path}, nil)
}

// node is a file, folder or link as the kernel has it and as the disk surely has it.
type node struct {
	link    string
	dir     bool
	mode    fs.FileMode
	data    []byte
	durable []byte
	names   map[string]*node
	stable  map[string]*node
	pending []func(map[string]*node) // changes of names since the last fsync of the folder
}

func newDirNode() *node {
	return &node{dir: true, names: map[string]*node{}, stable: map[string]*node{}}
}

func (n *node) at(path string) *node {
	if path == "." {
		return n
	}
	for part := range strings.SplitSeq(path, "/") {
		n = n.names[part]
	}
	return n
}

func (n *node) change(fn func(map[string]*node)) {
	fn(n.names)
	n.pending = append(n.pending, fn)
}

// picture makes the volatile picture of a log.
func picture(base *node, log []step) *node {
	for _, s := range log {
		dir, name := base.at(filepath.Dir(s.path)), filepath.Base(s.path)
		switch s.what {
		case "mkdir":
			d := newDirNode()
			dir.change(func(m map[string]*node) { m[name] = d })
		case "create":
			f := &node{mode: s.mode}
			dir.change(func(m map[string]*node) { m[name] = f })
		case "symlink":
			l := &node{link: s.to}
			dir.change(func(m map[string]*node) { m[name] = l })
		case "write":
			f := base.at(s.path)
			f.data = append(f.data, s.data...)
		case "sync":
			f := base.at(s.path)
			f.durable = slices.Clone(f.data)
		case "rename":
			moved, to, toName := base.at(s.path), base.at(filepath.Dir(s.to)), filepath.Base(s.to)
			if to != dir {
				panic("a rename between folders: the model has no such")
			}
			dir.change(func(m map[string]*node) { delete(m, name); m[toName] = moved })
		case "remove":
			gone := base.at(s.path)
			for child := range gone.names { // one by one, in any order
				gone.change(func(m map[string]*node) { delete(m, child) })
			}
			dir.change(func(m map[string]*node) { delete(m, name) })
		case "syncdir":
			d := base.at(s.path)
			d.stable, d.pending = maps.Clone(d.names), nil
		}
	}
	return base
}

// crash writes what is left of a picture into a folder: of the changes since the last
// fsync any may be there or not; share is how many.
func (n *node) crash(t *testing.T, path string, r *rand.Rand, share float64) {
	t.Helper()
	var err error
	switch {
	case n.link != "":
		err = os.Symlink(n.link, path)
	case n.dir:
		if err = os.MkdirAll(path, 0o755); err != nil {
			break
		}
		names := maps.Clone(n.stable)
		for _, change := range n.pending {
			if r.Float64() < share {
				change(names)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			names[name].crash(t, filepath.Join(path, name), r, share)
		}
	default:
		data := n.data
		if string(n.durable) != string(n.data) && r.Float64() >= share {
			data = n.data[:max(len(n.durable), r.IntN(len(n.data)+1))]
		}
		err = os.WriteFile(path, data, n.mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// load takes a folder as it lies on a disk that was at rest.
func load(t *testing.T, path string) *node {
	t.Helper()
	n := newDirNode()
	ents, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		p := filepath.Join(path, e.Name())
		var c *node
		switch {
		case e.IsDir():
			c = load(t, p)
		case e.Type() == fs.ModeSymlink:
			to, err := os.Readlink(p)
			if err != nil {
				t.Fatal(err)
			}
			c = &node{link: to}
		default:
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			c = &node{mode: 0o755, data: b, durable: slices.Clone(b)}
		}
		n.names[e.Name()], n.stable[e.Name()] = c, c
	}
	return n
}

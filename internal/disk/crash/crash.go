// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package crash is a disk that loses its power, for tests: a [Recorder] does on a real folder
// what is asked of it and keeps a log, and of any beginning of the log [Picture] and [Node.Crash]
// make what a disk may hold after the power failed there: of what was not synced any part
// may be there or not, in any order; a file that is changed in place is a mix of its sectors.
package crash

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"fulmar/internal/disk"
)

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// Recorder does what is asked of it on the machine's disk and keeps a log of it.
type Recorder struct {
	disk.OS
	T         *testing.T
	Root      string // nothing outside is changed
	Log       []Step
	NoSync    bool // controls: the fsync of files is forgotten,
	NoSyncDir bool // or that of folders
	// Before is asked before each step; its error stands for the step, which is not done.
	Before func(what, path string) error

	mu sync.Mutex // the log is in the order in which things were done
}

// Step is one that was done.
type Step struct {
	What     string // mkdir create write patch sync rename symlink link remove syncdir
	Path, To string // relative to the root
	Data     []byte
	At       int64 // of a patch
	Mode     fs.FileMode
}

func (r *Recorder) rel(path string) string {
	p, err := filepath.Rel(r.Root, path)
	if err != nil || strings.HasPrefix(p, "..") {
		r.T.Errorf("%s is changed, outside %s", path, r.Root)
	}
	return p
}

func (r *Recorder) do(s Step, fn func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Before != nil {
		if err := r.Before(s.What, s.Path); err != nil {
			return err
		}
	}
	err := fn()
	if err == nil {
		r.Log = append(r.Log, s)
	}
	return err
}

// Mkdir implements [disk.Disk].
func (r *Recorder) Mkdir(path string) error {
	return r.do(Step{What: "mkdir", Path: r.rel(path)}, func() error { return r.OS.Mkdir(path) })
}

// Create implements [disk.Disk].
func (r *Recorder) Create(path string, mode fs.FileMode) (f disk.File, err error) {
	err = r.do(Step{What: "create", Path: r.rel(path), Mode: mode}, func() error {
		f, err = r.OS.Create(path, mode)
		return err
	})
	return &recorded{f, r, r.rel(path)}, err
}

// Open implements [disk.Disk].
func (r *Recorder) Open(path string) (disk.File, error) {
	f, err := r.OS.Open(path)
	return &recorded{f, r, r.rel(path)}, err
}

// Rename implements [disk.Disk].
func (r *Recorder) Rename(from, to string) error {
	return r.do(Step{What: "rename", Path: r.rel(from), To: r.rel(to)}, func() error { return r.OS.Rename(from, to) })
}

// Symlink implements [disk.Disk].
func (r *Recorder) Symlink(to, path string) error {
	return r.do(Step{What: "symlink", Path: r.rel(path), To: to}, func() error { return r.OS.Symlink(to, path) })
}

// Link implements [disk.Disk].
func (r *Recorder) Link(from, to string) error {
	return r.do(Step{What: "link", Path: r.rel(from), To: r.rel(to)}, func() error { return r.OS.Link(from, to) })
}

// RemoveAll implements [disk.Disk].
func (r *Recorder) RemoveAll(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil // nothing happens
	}
	return r.do(Step{What: "remove", Path: r.rel(path)}, func() error { return r.OS.RemoveAll(path) })
}

// SyncDir implements [disk.Disk].
func (r *Recorder) SyncDir(path string) error {
	if r.NoSyncDir {
		return nil
	}
	return r.do(Step{What: "syncdir", Path: r.rel(path)}, func() error { return nil })
}

type recorded struct {
	disk.File
	r    *Recorder
	path string
}

// Write implements [disk.File].
func (f *recorded) Write(b []byte) (n int, err error) {
	err = f.r.do(Step{What: "write", Path: f.path, Data: slices.Clone(b)}, func() error {
		n, err = f.File.Write(b)
		return err
	})
	return n, err
}

// WriteAt implements [disk.File].
func (f *recorded) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.r.do(Step{What: "patch", Path: f.path, Data: slices.Clone(b), At: at}, func() error {
		n, err = f.File.WriteAt(b, at)
		return err
	})
	return n, err
}

// Sync implements [disk.File].
func (f *recorded) Sync() error {
	if f.r.NoSync {
		return nil
	}
	return f.r.do(Step{What: "sync", Path: f.path}, func() error { return nil })
}

// Node is a file, folder or link as the kernel has it and as the disk surely has it.
type Node struct {
	link    string
	dir     bool
	mode    fs.FileMode
	data    []byte
	durable []byte
	names   map[string]*Node
	stable  map[string]*Node
	pending []func(map[string]*Node) // changes of names since the last fsync of the folder
}

// Empty is a folder without anything in it.
func Empty() *Node {
	return &Node{dir: true, names: map[string]*Node{}, stable: map[string]*Node{}}
}

func (n *Node) at(path string) *Node {
	if path == "." {
		return n
	}
	for part := range strings.SplitSeq(path, "/") {
		n = n.names[part]
	}
	return n
}

func (n *Node) change(fn func(map[string]*Node)) {
	fn(n.names)
	n.pending = append(n.pending, fn)
}

// empty takes everything out of a folder, one by one, in any order.
func (n *Node) empty() {
	for name, child := range n.names {
		child.empty()
		n.change(func(m map[string]*Node) { delete(m, name) })
	}
}

// Picture makes the volatile picture of a log.
func Picture(base *Node, log []Step) *Node {
	for _, s := range log {
		dir, name := base.at(filepath.Dir(s.Path)), filepath.Base(s.Path)
		switch s.What {
		case "mkdir":
			d := Empty()
			dir.change(func(m map[string]*Node) { m[name] = d })
		case "create":
			f := &Node{mode: s.Mode}
			dir.change(func(m map[string]*Node) { m[name] = f })
		case "symlink":
			l := &Node{link: s.To}
			dir.change(func(m map[string]*Node) { m[name] = l })
		case "link":
			was, to, toName := base.at(s.Path), base.at(filepath.Dir(s.To)), filepath.Base(s.To)
			to.change(func(m map[string]*Node) { m[toName] = was })
		case "write":
			f := base.at(s.Path)
			f.data = append(f.data, s.Data...)
		case "patch":
			f := base.at(s.Path)
			f.data = slices.Clone(f.data)
			if end := int(s.At) + len(s.Data); end > len(f.data) {
				f.data = append(f.data, make([]byte, end-len(f.data))...)
			}
			copy(f.data[s.At:], s.Data)
		case "sync":
			f := base.at(s.Path)
			f.durable = slices.Clone(f.data)
		case "rename":
			moved, to, toName := base.at(s.Path), base.at(filepath.Dir(s.To)), filepath.Base(s.To)
			if to != dir {
				panic("a rename between folders: the model has no such")
			}
			dir.change(func(m map[string]*Node) { delete(m, name); m[toName] = moved })
		case "remove":
			base.at(s.Path).empty()
			dir.change(func(m map[string]*Node) { delete(m, name) })
		case "syncdir":
			d := base.at(s.Path)
			d.stable, d.pending = maps.Clone(d.names), nil
		}
	}
	return base
}

// Crash writes what is left of a picture into a folder: of the changes since the last
// fsync any may be there or not; share is how many.
func (n *Node) Crash(t *testing.T, path string, r *rand.Rand, share float64) {
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
			names[name].Crash(t, filepath.Join(path, name), r, share)
		}
	default:
		data := n.data
		if string(n.durable) != string(n.data) && r.Float64() >= share {
			data = n.torn(r, share)
		}
		err = os.WriteFile(path, data, n.mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// torn is what is there of a file that was not synced: some of the sectors that were
// changed, and of what was added a beginning.
func (n *Node) torn(r *rand.Rand, share float64) []byte {
	out := slices.Clone(n.data[:max(len(n.durable), r.IntN(len(n.data)+1))])
	for at := 0; at < len(n.durable); at += sector {
		if r.Float64() >= share {
			copy(out[at:], n.durable[at:min(at+sector, len(n.durable))])
		}
	}
	return out
}

// Load takes a folder as it lies on a disk that was at rest.
func Load(t *testing.T, path string) *Node {
	t.Helper()
	n := Empty()
	ents, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		p := filepath.Join(path, e.Name())
		var c *Node
		switch {
		case e.IsDir():
			c = Load(t, p)
		case e.Type() == fs.ModeSymlink:
			to, err := os.Readlink(p)
			if err != nil {
				t.Fatal(err)
			}
			c = &Node{link: to}
		default:
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			c = &Node{mode: 0o755, data: b, durable: slices.Clone(b)}
		}
		n.names[e.Name()], n.stable[e.Name()] = c, c
	}
	return n
}

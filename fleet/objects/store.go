// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/internal/merkle"
	"fulmar/ota/release"
)

const (
	treeSuffix = ".tree"
	tmpPrefix  = ".put-"
	// maxOpen bounds the open files: an object each, two files.
	maxOpen = 64
	// putAge is how old a file of an upload that was cut off is when it is swept away.
	putAge = 24 * time.Hour
)

var (
	// ErrNone: no such object is here.
	ErrNone = errors.New("no such object")
	// ErrQuota: the store may not become larger.
	ErrQuota = errors.New("the store of objects is full")
	// ErrOther: what was uploaded is not the object that was told.
	ErrOther = errors.New("it is not the object that it should be")
)

// Info is an object of the store.
type Info struct {
	release.Object // SHA256 is zeros in a list
	Since          time.Time
}

// Store keeps objects in a folder. Its methods may be called from several goroutines.
type Store struct {
	dir   string
	quota int64 // bytes in all; 0 none

	mu    sync.Mutex
	used  int64 // bytes of objects, with those that come in
	open  map[release.Hash]*object
	order []release.Hash // of open, the longest unused first
}

// Open opens or makes the folder. It sweeps away what uploads left that were cut off.
func Open(dir string, quota int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store of objects: %w", err)
	}
	s := &Store{dir: dir, quota: quota, open: map[release.Hash]*object{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open store of objects: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			continue // gone meanwhile
		}
		if strings.HasPrefix(f.Name(), tmpPrefix) && time.Since(info.ModTime()) > putAge {
			_ = os.Remove(filepath.Join(dir, f.Name())) // tried again at the next start
		} else if _, err := release.ParseHash(f.Name()); err == nil {
			s.used += info.Size()
		}
	}
	return s, nil
}

// Close closes the files. The store is not to be used any more.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		o.drop()
	}
	clear(s.open)
	s.order = nil
}

func (s *Store) path(tree release.Hash) string { return filepath.Join(s.dir, tree.String()) }

// Has tells whether an object is here.
func (s *Store) Has(tree release.Hash) bool {
	_, err := os.Stat(s.path(tree))
	return err == nil
}

// Put reads an object, checks that it is the one that want says (a zero Tree and SHA256 are
// not compared), and keeps it, durably. One that is here already is read and left as it
// is. [ErrQuota], [ErrOther].
func (s *Store) Put(r io.Reader, want release.Object) (o release.Object, err error) {
	limit := int64(release.MaxSize)
	if want.Size > 0 {
		limit = want.Size
	}
	f, err := os.CreateTemp(s.dir, tmpPrefix+"*")
	if err != nil {
		return o, fmt.Errorf("keep object: %w", err)
	}
	w := &metered{f: f, s: s}
	keep := false
	defer func() {
		if !keep {
			_ = f.Close()
			_ = os.Remove(f.Name())
			s.grow(-w.n)
		}
	}()
	o, tree, err := release.Describe(io.TeeReader(io.LimitReader(r, limit+1), w))
	switch {
	case err != nil:
		return o, fmt.Errorf("keep object: %w", err)
	case want.Size > 0 && o.Size != want.Size, want.SHA256 != release.Hash{} && o.SHA256 != want.SHA256, want.Tree != release.Hash{} && o.Tree != want.Tree:
		return o, fmt.Errorf("keep object %s: %w: %d bytes of SHA-256 %s came, %d of %s were told", want.Tree, ErrOther, o.Size, o.SHA256, want.Size, want.SHA256)
	case s.Has(o.Tree):
		return o, nil
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return o, fmt.Errorf("keep object: %w", err)
	}
	// The tree first: an object is here when its file is.
	if err := atomicfile.WriteFile(s.path(o.Tree)+treeSuffix, flat(tree), 0o600); err != nil {
		return o, fmt.Errorf("keep object: %w", err)
	}
	if err := os.Rename(f.Name(), s.path(o.Tree)); err != nil {
		return o, fmt.Errorf("keep object: %w", err)
	}
	keep = true
	return o, atomicfile.SyncDir(s.dir)
}

// flat lays the levels of a tree one behind another, the leaves first.
func flat(t *merkle.Tree) []byte {
	var b bytes.Buffer
	for _, level := range t.Levels() {
		for i := range level {
			b.Write(level[i][:])
		}
	}
	return b.Bytes()
}

// metered counts what comes in against the quota.
type metered struct {
	f *os.File
	s *Store
	n int64
}

func (m *metered) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	if !m.s.grow(int64(len(p))) {
		return 0, fmt.Errorf("%w: at most %d bytes; remove releases that nobody installs any more, or raise the quota", ErrQuota, m.s.quota)
	}
	return m.f.Write(p)
}

// grow counts bytes; false where there are too many.
func (s *Store) grow(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += n
	return s.quota == 0 || s.used <= s.quota || n < 0
}

// Used tells the bytes of all objects, and the quota, 0 for none.
func (s *Store) Used() (used, quota int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.quota
}

// Remove removes an object. [ErrNone].
func (s *Store) Remove(tree release.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[tree]; o != nil {
		s.forget(tree)
		o.drop()
	}
	info, err := os.Stat(s.path(tree))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove object %s: %w", tree, ErrNone)
	}
	if err == nil {
		err = os.Remove(s.path(tree)) // before its tree: without that it could not be given
	}
	if err != nil {
		return fmt.Errorf("remove object %s: %w", tree, err)
	}
	s.used -= info.Size()
	if err := os.Remove(s.path(tree) + treeSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove object %s: %w", tree, err)
	}
	return atomicfile.SyncDir(s.dir)
}

// File opens an object to be read as a file; the caller closes it. [ErrNone].
func (s *Store) File(tree release.Hash) (*os.File, error) {
	f, err := os.Open(s.path(tree))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("object %s: %w", tree, ErrNone)
	}
	return f, err
}

// List lists the objects by their names.
func (s *Store) List() ([]Info, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	var out []Info
	for _, f := range files {
		tree, err := release.ParseHash(f.Name())
		if err != nil {
			continue
		}
		if info, err := f.Info(); err == nil {
			out = append(out, Info{Object: release.Object{Tree: tree, Size: info.Size()}, Since: info.ModTime()})
		}
	}
	return out, nil
}

// object is an open one.
type object struct {
	release.Object // without SHA256
	data, tree     *os.File

	mu   sync.Mutex
	uses int
	gone bool
}

// take opens an object. What it gives is let go of by release.
func (s *Store) take(tree release.Hash) (*object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[tree]; o != nil {
		i := slices.Index(s.order, tree)
		s.order = append(slices.Delete(s.order, i, i+1), tree)
		o.use(1)
		return o, nil
	}
	o, err := s.openFiles(tree)
	if err != nil {
		return nil, err
	}
	for len(s.order) >= maxOpen {
		old := s.open[s.order[0]]
		s.forget(s.order[0])
		old.drop()
	}
	o.use(1)
	s.open[tree], s.order = o, append(s.order, tree)
	return o, nil
}

func (s *Store) openFiles(tree release.Hash) (_ *object, err error) {
	o := &object{Object: release.Object{Tree: tree}}
	if o.data, err = os.Open(s.path(tree)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("object %s: %w", tree, ErrNone)
	} else if err != nil {
		return nil, fmt.Errorf("object %s: %w", tree, err)
	}
	defer func() {
		if err != nil {
			_ = o.data.Close()
		}
	}()
	info, err := o.data.Stat()
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", tree, err)
	}
	o.Size = info.Size()
	if o.tree, err = os.Open(s.path(tree) + treeSuffix); err != nil {
		return nil, fmt.Errorf("object %s: %w", tree, err)
	}
	return o, nil
}

// forget takes an object off the open ones. The caller holds the mutex.
func (s *Store) forget(tree release.Hash) {
	delete(s.open, tree)
	s.order = slices.DeleteFunc(s.order, func(t release.Hash) bool { return t == tree })
}

func (o *object) use(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.uses += n; o.uses == 0 && o.gone {
		_ = o.data.Close() // only read
		_ = o.tree.Close()
	}
}

// drop closes the files when nobody uses them any more.
func (o *object) drop() {
	o.mu.Lock()
	o.gone = true
	o.mu.Unlock()
	o.use(1)
	o.use(-1)
}

// piece reads a piece and its proof, and checks it: a disk that lies must not cost each
// board a piece that it cannot take.
func (o *object) piece(i int) (data, path []byte, err error) {
	if i < 0 || i >= o.Pieces() {
		return nil, nil, fmt.Errorf("piece %d of %d of object %s", i, o.Pieces(), o.Tree)
	}
	data = make([]byte, o.PieceSize(i))
	if _, err := o.data.ReadAt(data, int64(i)*release.Piece); err != nil {
		return nil, nil, fmt.Errorf("read piece %d of object %s: %w", i, o.Tree, err)
	}
	start := int64(0)
	for n, at := o.Pieces(), i; n > 1; n, at = (n+1)/2, at/2 {
		if s := at ^ 1; s < n {
			var h merkle.Hash
			if _, err := o.tree.ReadAt(h[:], (start+int64(s))*merkle.Size); err != nil {
				return nil, nil, fmt.Errorf("read tree of object %s: %w", o.Tree, err)
			}
			path = append(path, h[:]...)
		}
		start += int64(n)
	}
	if !o.Proves(i, data, path) {
		return nil, nil, fmt.Errorf("piece %d of object %s is damaged on this server's disk: upload its release again", i, o.Tree)
	}
	return data, path, nil
}

// willNeed has the kernel read ahead of a pass.
func (o *object) willNeed() { _ = unix.Fadvise(int(o.data.Fd()), 0, o.Size, unix.FADV_SEQUENTIAL) }

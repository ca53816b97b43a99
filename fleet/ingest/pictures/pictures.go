// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package pictures keeps the pictures of boards as files: those that are whole, and
// the parts of those still arriving, each bounded.
package pictures

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

const (
	// maxParts and maxPartBytes bound what one board may have half sent.
	maxParts     = 16
	maxPartBytes = 128 << 20
	// partLife is how long a half-sent picture is kept.
	partLife = 24 * time.Hour
	// stripes is how many locks share the boards: work on one board's files is serial.
	stripes = 64
)

// Folder is where they are kept: the pictures on disk: whole ones under whole/TENANT/BOARD/NAME, those
// still arriving under parts/TENANT/BOARD/NAME. All names have been checked to be
// plain file names (schema.CheckBlobName, schema.CheckBoard).
type Folder struct {
	dir string
	mu  [stripes]sync.Mutex
}

// New opens the folder, making it where it is not there.
func New(dir string) (*Folder, error) {
	for _, d := range []string{"whole", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("make folder of pictures: %w", err)
		}
	}
	return &Folder{dir: dir}, nil
}

func (s *Folder) lock(tenant, board string) func() {
	h := uint32(2166136261) // FNV-1a
	for _, c := range []byte(tenant + "/" + board) {
		h = (h ^ uint32(c)) * 16777619
	}
	m := &s.mu[h%stripes]
	m.Lock()
	return m.Unlock
}

func (s *Folder) path(kind, tenant, board, name string) (string, error) {
	if err := errors.Join(schema.CheckBoard(tenant), schema.CheckBoard(board), schema.CheckBlobName(name)); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, kind, tenant, board, name), nil
}

// Write puts one chunk into its place, durably. A chunk of a picture that is
// already whole changes nothing.
func (s *Folder) Write(tenant, board, name string, c *schema.Chunk) error {
	defer s.lock(tenant, board)()
	whole, err := s.path("whole", tenant, board, name)
	if err != nil {
		return err
	}
	if st, err := os.Stat(whole); err == nil && st.Size() == c.Total {
		return nil
	}
	part, err := s.path("parts", tenant, board, name)
	if err != nil {
		return err
	}
	dir := filepath.Dir(part)
	_, err = os.Stat(part)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if err := makeDir(s.dir, "parts", tenant, board); err != nil {
			return fmt.Errorf("make folder of pictures: %w", err)
		}
		if err := bound(dir, c.Total); err != nil {
			return fmt.Errorf("make room for a picture: %w", err)
		}
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open picture: %w", err)
	}
	_, err = f.WriteAt(c.Data, c.Offset)
	if err == nil && fresh {
		err = f.Truncate(c.Total) // its full size counts against the bound at once
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	if fresh {
		return atomicfile.SyncDir(dir)
	}
	return nil
}

// bound removes half-sent pictures of a board, oldest first, until one of the
// given size has room.
func bound(dir string, size int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for {
		var oldest fs.FileInfo
		sum, n := size, 1
		for _, e := range entries {
			st, err := e.Info()
			if err != nil {
				continue // removed meanwhile
			}
			if time.Since(st.ModTime()) > partLife {
				_ = os.Remove(filepath.Join(dir, st.Name()))
				continue
			}
			sum += st.Size()
			n++
			if oldest == nil || st.ModTime().Before(oldest.ModTime()) {
				oldest = st
			}
		}
		if oldest == nil || (n <= maxParts && sum <= maxPartBytes) {
			return nil
		}
		if err := os.Remove(filepath.Join(dir, oldest.Name())); err != nil {
			return err
		}
		if entries, err = os.ReadDir(dir); err != nil {
			return err
		}
	}
}

// Complete tells whether the picture is here, whole and right; where all its
// chunks have come it is moved to its final place first.
func (s *Folder) Complete(tenant, board, name string, size int64, sum [32]byte) (bool, error) {
	defer s.lock(tenant, board)()
	whole, err := s.path("whole", tenant, board, name)
	if err != nil {
		return false, err
	}
	part, err := s.path("parts", tenant, board, name)
	if err != nil {
		return false, err
	}
	if ok, err := matches(part, size, sum); err != nil || !ok {
		if err != nil {
			return false, err
		}
		return matches(whole, size, sum)
	}
	if err := makeDir(s.dir, "whole", tenant, board); err != nil {
		return false, fmt.Errorf("make folder of pictures: %w", err)
	}
	if err := os.Rename(part, whole); err != nil {
		return false, fmt.Errorf("complete picture: %w", err)
	}
	return true, errors.Join(atomicfile.SyncDir(filepath.Dir(whole)), atomicfile.SyncDir(filepath.Dir(part)))
}

func matches(path string, size int64, sum [32]byte) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("check picture: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if st, err := f.Stat(); err != nil || st.Size() != size {
		return false, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, fmt.Errorf("check picture: %w", err)
	}
	return [32]byte(h.Sum(nil)) == sum, nil
}

// Open opens a whole picture; the error wraps fs.ErrNotExist where there is none.
func (s *Folder) Open(tenant, board, name string) (*os.File, error) {
	p, err := s.path("whole", tenant, board, name)
	if err != nil {
		return nil, errors.Join(err, fs.ErrNotExist)
	}
	return os.Open(p)
}

// Remove removes a whole picture; one that is gone is no error.
func (s *Folder) Remove(tenant, board, name string) error {
	p, err := s.path("whole", tenant, board, name)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveBoard removes all pictures of a board, half-sent ones too.
func (s *Folder) RemoveBoard(tenant, board string) error {
	defer s.lock(tenant, board)()
	for _, kind := range []string{"whole", "parts"} {
		p, err := s.path(kind, tenant, board, "x")
		if err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Dir(p)); err != nil {
			return fmt.Errorf("remove pictures of board %s: %w", board, err)
		}
	}
	return nil
}

// Sweep walks whole pictures and calls drop for each; drop tells whether to
// remove it. Half-sent ones past their life are removed too.
func (s *Folder) Sweep(drop func(tenant, board, name string) (bool, error)) error {
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return nil // removed meanwhile
		}
		dir, name := filepath.Split(path)
		dir, board := filepath.Split(filepath.Clean(dir))
		dir, tenant := filepath.Split(filepath.Clean(dir))
		gone := time.Since(st.ModTime()) > partLife
		if filepath.Base(dir) == "whole" {
			if gone, err = drop(tenant, board, name); err != nil {
				return err
			}
		}
		if gone {
			return os.Remove(path)
		}
		return nil
	})
}

// makeDir makes the folders below base, each durable in its parent.
func makeDir(base string, names ...string) error {
	dir := base
	for _, n := range names {
		next := filepath.Join(dir, n)
		err := os.Mkdir(next, 0o700)
		if err == nil {
			err = atomicfile.SyncDir(dir)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		dir = next
	}
	return nil
}

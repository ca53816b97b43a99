// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package bundles takes releases that people bring to a board in one file. A bundle is read
// once, as it comes, from whoever brings it: its signatures are proven before anything of it
// is kept, and of its objects those are kept that the board can use, until they are installed.
package bundles

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"fulmar/internal/atomicfile"
	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/release"
)

// reserve stays free beside what is kept, in bytes: the spool of the same disk is not to run
// into its end by a stick.
const reserve = 32 << 20

// Shelf keeps objects that came in bundles, and gives them before the network is asked: an
// [ota.Fetcher] before another one.
type Shelf struct {
	dir   string
	next  ota.Fetcher
	using sync.Mutex // by who takes a bundle in, or removes all of it
}

// NewShelf makes a shelf in a folder, which it makes when there is something to keep.
func NewShelf(dir string, next ota.Fetcher) *Shelf { return &Shelf{dir: dir, next: next} }

func (s *Shelf) path(o release.Object) string { return filepath.Join(s.dir, o.Tree.String()) }

// Fetch implements [ota.Fetcher].
func (s *Shelf) Fetch(ctx context.Context, o release.Object, progress func(have, all int64)) (string, error) {
	f, err := os.Open(s.path(o))
	if errors.Is(err, fs.ErrNotExist) {
		return s.next.Fetch(ctx, o, progress)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	// It was proven when it came; the disk may have changed it since.
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, o.Size+1)); err != nil || n != o.Size || release.Hash(h.Sum(nil)) != o.SHA256 {
		return s.next.Fetch(ctx, o, progress)
	}
	progress(o.Size, o.Size)
	return s.path(o), nil
}

// Drop implements [ota.Fetcher].
func (s *Shelf) Drop(o release.Object) error {
	return errors.Join(s.remove(o), s.next.Drop(o))
}

func (s *Shelf) remove(o release.Object) error {
	if err := os.Remove(s.path(o)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Clear removes all of it: no update wants it any more. What is being taken in stays.
func (s *Shelf) Clear() error {
	if !s.using.TryLock() {
		return nil
	}
	defer s.using.Unlock()
	return os.RemoveAll(s.dir)
}

// put keeps an object, durably and only if its bytes are the right ones. fresh tells that it
// is here now and was not before.
func (s *Shelf) put(o release.Object, r io.Reader) (fresh bool, err error) {
	_, err = os.Lstat(s.path(o))
	fresh = errors.Is(err, fs.ErrNotExist)
	if err := s.write(o, r); err != nil {
		return false, err
	}
	return fresh, nil
}

func (s *Shelf) write(o release.Object, r io.Reader) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	free, _, _, err := disk.Free(s.dir)
	if err != nil {
		return err
	}
	if free < o.Size+reserve {
		return fmt.Errorf("%d MiB are free in %s, this wants %d", free>>20, s.dir, (o.Size+reserve)>>20)
	}
	tmp := filepath.Join(s.dir, ".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(r, o.Size))
	if err == nil && release.Hash(h.Sum(nil)) != o.SHA256 {
		err = fmt.Errorf("its bytes are not those that the release names (SHA-256 %.16s)", o.SHA256)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		if err = os.Rename(tmp, s.path(o)); err == nil {
			return atomicfile.SyncDir(s.dir)
		}
	}
	return errors.Join(err, os.Remove(tmp))
}

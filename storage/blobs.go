// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/storage/internal/disk"
)

// ErrBlobGone says that a blob is not there (any more): evicted for newer ones,
// or removed after it was sent.
var ErrBlobGone = errors.New("blob is gone")

const (
	// blobTmp begins the names of blobs that are being written; a blob's own
	// name cannot begin with a dot.
	blobTmp = ".put-"
	// blobTmpAge is after how long such a file was left by a crash: no Put takes as long.
	blobTmpAge = 10 * time.Minute
	// blobStep is how far apart the files' times are at least: every file system that
	// carries a spool keeps milliseconds.
	blobStep = time.Millisecond
	// blobTries bounds how often one Put evicts on a full disk.
	blobTries = 3
)

// Blobs keeps pictures as files of one folder, bounded in bytes; the oldest go
// first, in the order of the files' times. These never run backwards: each Put
// dates its file after all that are there, whatever the wall clock says. Where a file
// system knows no later time they are equal, and names decide.
//
// Two processes use the folder at once: the worker puts and evicts,
// fulmard opens and removes. So a file may vanish at any time, and an opened one
// stays readable. The methods may be called from any goroutine.
type Blobs struct {
	dir   string
	quota int64

	mu      sync.Mutex
	used    int64     // at most this much: other processes only take away
	newest  time.Time // no file is dated later
	evicted atomic.Uint64
}

// Blob is one opened blob. Close it after use.
type Blob struct {
	*os.File
	size int64
}

// Size is the length of the blob in bytes.
func (b *Blob) Size() int64 { return b.size }

// OpenBlobs opens the folder, made if it is not there; quota bounds its bytes.
func OpenBlobs(dir string, quota int64) (*Blobs, error) {
	if quota <= 0 {
		return nil, fmt.Errorf("open blobs %s: a quota of %d bytes, wants more than 0", dir, quota)
	}
	// The other process may run as another user of our group, whatever our umask.
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(dir, 0o770), os.Chmod(dir, 0o770)); err != nil {
			return nil, fmt.Errorf("open blobs: %w", err)
		}
	}
	b := &Blobs{dir: dir, quota: quota}
	files, used, err := b.scan()
	if err != nil {
		return nil, err
	}
	b.used = used
	b.sawNewest(files)
	for _, f := range files {
		// Abs: what was written while the clock stood ahead is left over, too.
		if f.tmp && time.Since(f.at).Abs() > blobTmpAge {
			_ = os.Remove(f.path) // not ours, or gone already: the next start tries again
		}
	}
	return b, nil
}

// sawNewest notes the latest time in a list by scan.
func (b *Blobs) sawNewest(files []blobFile) {
	for _, f := range files {
		if !f.tmp && f.at.After(b.newest) {
			b.newest = f.at
		}
	}
}

type blobFile struct {
	path string
	size int64
	at   time.Time
	tmp  bool
}

// scan lists the folder's blobs, oldest first, and their bytes.
func (b *Blobs) scan() (files []blobFile, used int64, err error) {
	ents, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list blobs: %w", err)
	}
	for _, e := range ents {
		tmp := strings.HasPrefix(e.Name(), blobTmp)
		if !e.Type().IsRegular() || !tmp && schema.CheckBlobName(e.Name()) != nil {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			continue // vanished
		}
		files = append(files, blobFile{filepath.Join(b.dir, e.Name()), fi.Size(), fi.ModTime(), tmp})
		used += fi.Size()
	}
	slices.SortFunc(files, func(x, y blobFile) int {
		if c := x.at.Compare(y.at); c != 0 {
			return c
		}
		return strings.Compare(x.path, y.path)
	})
	return files, used, nil
}

// Put stores data under name, replacing what was there, and gives its SHA-256.
// When it returns, the blob is on disk. The oldest blobs go to make room.
func (b *Blobs) Put(name string, data []byte) (sum [32]byte, err error) {
	if err := schema.CheckBlobName(name); err != nil {
		return sum, fmt.Errorf("put blob: %w", err)
	}
	size := int64(len(data))
	if size == 0 || size > b.quota {
		return sum, fmt.Errorf("put blob %s: %d bytes, wants 1 to the quota of %d", name, size, b.quota)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.makeRoom(size, false); err != nil {
		return sum, fmt.Errorf("put blob %s: %w", name, err)
	}
	at := time.Now()
	if next := b.newest.Add(blobStep); at.Before(next) {
		at = next
	}
	b.newest = at
	for try := 1; ; try++ {
		err = b.write(name, data, at)
		if try == blobTries || !disk.Full(err) || b.makeRoom(size, true) != nil {
			break
		}
	}
	if err != nil {
		return sum, fmt.Errorf("put blob %s: %w", name, err)
	}
	b.used += size
	return sha256.Sum256(data), nil
}

func (b *Blobs) write(name string, data []byte, at time.Time) error {
	f, err := os.CreateTemp(b.dir, blobTmp+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o640)
	}
	if err == nil {
		err = os.Chtimes(f.Name(), at, at)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(b.dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // else removed as left over later
		return err
	}
	return atomicfile.SyncDir(b.dir)
}

// makeRoom evicts the oldest blobs until size more bytes fit the quota, or with
// force until size bytes were freed; mu is held.
func (b *Blobs) makeRoom(size int64, force bool) error {
	if !force && b.used+size <= b.quota {
		return nil
	}
	files, used, err := b.scan()
	if err != nil {
		return err
	}
	goal := b.quota - size
	if force {
		goal = max(0, min(goal, used-size))
	}
	before := used
	b.sawNewest(files)
	for _, f := range files {
		if used <= goal {
			break
		}
		if f.tmp {
			continue
		}
		switch err := os.Remove(f.path); {
		case err == nil:
			b.evicted.Add(1)
		case !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("evict the oldest blob: %w", err)
		}
		used -= f.size
	}
	b.used = used
	if force && used == before {
		return errors.New("the disk is full and no blob is left to evict")
	}
	return nil
}

// Open opens a blob for reading; the error wraps [ErrBlobGone] if it is not there.
func (b *Blobs) Open(name string) (*Blob, error) {
	if err := schema.CheckBlobName(name); err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", name, ErrBlobGone)
	} else if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no plain file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return &Blob{f, fi.Size()}, nil
}

// Remove takes a blob away; one that is not there is no error.
func (b *Blobs) Remove(name string) error {
	if err := schema.CheckBlobName(name); err != nil {
		return fmt.Errorf("remove blob: %w", err)
	}
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	return nil
}

// Bytes is what the blobs take now; it lists the folder. Zero if that fails.
func (b *Blobs) Bytes() int64 {
	_, used, err := b.scan()
	if err != nil {
		return 0
	}
	return used
}

// Evicted is how many blobs this process evicted since OpenBlobs.
func (b *Blobs) Evicted() uint64 { return b.evicted.Load() }

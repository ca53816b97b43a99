// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"fulmar/internal/atomicfile"
)

const (
	// DefaultQuota is what a cache may hold when nothing else is said: a detector's
	// engine has 5 to 100 MB.
	DefaultQuota = 2 << 30
	// MaxEntries bounds how many engines are kept.
	MaxEntries = 64
	maxMeta    = 256 << 10 // bytes of meta.json
	maxTiming  = 64 << 20  // bytes of a timing cache; a detector's has under 10 MB
)

// Names in the folder. An entry is a folder with its key's name.
const (
	planName   = "plan"
	metaName   = "meta.json"
	newPrefix  = ".new-"
	lockName   = "lock"
	buildName  = "build.lock"
	recordTail = ".record.json"
	timingHead = "timing-"
)

// Errors that callers tell apart.
var (
	// ErrNone says that the cache has no such engine.
	ErrNone = errors.New("no such engine in the cache")
	// ErrDamaged says that an entry was not what it was when written; it is gone now.
	ErrDamaged = errors.New("engine in the cache was damaged and is removed")
	// ErrQuota says that an engine alone is larger than the cache may be.
	ErrQuota = errors.New("engine is larger than the cache may be")
	// ErrFull says that the disk has no room for an engine.
	ErrFull = errors.New("disk is full")
)

// Meta tells of an engine how it came to be.
type Meta struct {
	Key    Key    `json:"key"`
	Bytes  int64  `json:"plan_bytes"`
	SHA256 string `json:"plan_sha256"`
	// Release is that of the program that built it, Device what it was built on.
	Release string `json:"release"`
	Device  string `json:"device"`
	Model   string `json:"model"`
	// Package is the SHA-256 of the model.yaml by which it was judged.
	Package string    `json:"package"`
	Built   time.Time `json:"built"`
	// Took is how long the build was, in seconds, RunUs a run for one picture.
	Took  float64 `json:"took_s"`
	RunUs int64   `json:"run_us"`
	// Golden is how many golden pictures it passed; Gate is the accuracy gate's word.
	Golden int    `json:"golden"`
	Gate   string `json:"gate,omitempty"`
	Layers int    `json:"layers"`
	// OnGPU are the layers that a DLA engine leaves to the GPU.
	OnGPU []string `json:"on_gpu,omitempty"`
	// Log is the end of what the library said.
	Log []string `json:"log,omitempty"`
}

// Cache is a folder of engines.
type Cache struct {
	dir   string
	quota int64
	log   *slog.Logger
	// write is (*os.File).Write but for tests of a full disk.
	write func(f *os.File, b []byte) (int, error)
}

// Open opens the cache in dir, made if need be, with at most quota bytes (0:
// [DefaultQuota]). What a killed process left half written is removed.
func Open(dir string, quota int64, log *slog.Logger) (*Cache, error) {
	if quota <= 0 {
		quota = DefaultQuota
	}
	c := &Cache{dir: dir, quota: quota, log: log, write: (*os.File).Write}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open engine cache: %w", full(err))
	}
	// An engine is code: only its owner may put one there. Not root either, whose files
	// the owner could not open.
	st, err := os.Stat(dir)
	if err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
			return nil, fmt.Errorf("open engine cache: %s belongs to user %d and this is user %d: run it as that one (sudo -u '#%d')", dir, sys.Uid, os.Geteuid(), sys.Uid)
		}
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open engine cache: %w", err)
	}
	return c, c.locked(func() error {
		c.clean()
		c.evict("")
		return nil
	})
}

// View looks into a cache and changes nothing; it is for [Cache.List], Bytes and
// Records alone.
func View(dir string, log *slog.Logger) (*Cache, error) {
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("look into engine cache: %w", err)
	}
	return &Cache{dir: dir, log: log}, nil
}

// Dir is the folder.
func (c *Cache) Dir() string { return c.dir }

// locked runs fn while no other process changes the folder. fn must be short.
func (c *Cache) locked(fn func() error) error {
	l, err := flock(filepath.Join(c.dir, lockName), os.O_RDWR|os.O_CREATE, syscall.LOCK_EX)
	if err != nil {
		return fmt.Errorf("engine cache: %w", full(err))
	}
	defer l.Close()
	return fn()
}

// LockBuild waits until no other build uses the folder, at most until the context
// ends. waiting (may be nil) is called once if there is one.
func (c *Cache) LockBuild(ctx context.Context, waiting func()) (unlock func(), err error) {
	f, err := flockWait(ctx, filepath.Join(c.dir, buildName), waiting)
	if err != nil {
		return nil, fmt.Errorf("wait for another build: %w", err)
	}
	return func() { f.Close() }, nil
}

// Entry is an engine out of the cache. It is in use until Release.
type Entry struct {
	Meta Meta
	// Plan is its content, verified. Set it to nil when it is loaded.
	Plan []byte
	hold *os.File
}

// Release says that the engine is not in use any more.
func (e *Entry) Release() { e.hold.Close() }

// Has says whether there is an engine of this key, verified or not.
func (c *Cache) Has(id string) bool {
	_, err := os.Stat(filepath.Join(c.dir, id, metaName))
	return err == nil
}

// Take gives an engine for use, or ErrNone or ErrDamaged.
func (c *Cache) Take(id string) (*Entry, error) {
	var e *Entry
	err := c.locked(func() error {
		hold, err := flock(filepath.Join(c.dir, id), os.O_RDONLY, syscall.LOCK_SH)
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNone
		}
		if err == nil {
			e = &Entry{hold: hold}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.verify(id, e); err != nil {
		e.Release()
		if !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		c.log.Error("engine removed from the cache", "engine", id, "error", err)
		return nil, errors.Join(err, c.Remove(id))
	}
	now := time.Now()
	// The time of use is the file's: one that cannot be set costs an eviction out of
	// order, no more.
	_ = os.Chtimes(filepath.Join(c.dir, id, metaName), now, now)
	return e, nil
}

// verify reads an entry and compares it with what was written. Anything wrong with
// the content wraps ErrDamaged, an error of the disk does not.
func (c *Cache) verify(id string, e *Entry) error {
	damaged := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, a...))
	}
	m, err := c.meta(id)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		return damaged("%v", err)
	}
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(c.dir, id, planName))
	if errors.Is(err, fs.ErrNotExist) {
		return damaged("%v", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != m.Bytes {
		return damaged("the plan has %d bytes, %d were written", st.Size(), m.Bytes)
	}
	plan := make([]byte, m.Bytes)
	if _, err := io.ReadFull(f, plan); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	if sum := sha256.Sum256(plan); hex.EncodeToString(sum[:]) != m.SHA256 {
		return damaged("the plan has SHA-256 %x, %s was written", sum, m.SHA256)
	}
	e.Meta, e.Plan = *m, plan
	return nil
}

// Meta gives the description of an engine, without a look at its plan.
func (c *Cache) Meta(id string) (*Meta, error) { return c.meta(id) }

// meta reads and checks the description of an entry.
func (c *Cache) meta(id string) (*Meta, error) {
	b, err := readBounded(filepath.Join(c.dir, id, metaName), maxMeta)
	if err != nil {
		return nil, err
	}
	m := new(Meta)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, metaName, err)
	}
	if m.Key.ID() != id || m.Bytes < 1 || m.Bytes > maxPlan {
		return nil, fmt.Errorf("%w: %s is of another engine", ErrDamaged, metaName)
	}
	return m, nil
}

// maxPlan bounds a plan before memory is taken for it.
const maxPlan = 1 << 30

// Put keeps an engine. m's Bytes and SHA256 are filled in. When it returns nil the
// engine is whole on disk; when not, there is nothing of it.
func (c *Cache) Put(m Meta, plan []byte) (err error) {
	if len(plan) == 0 || len(plan) > maxPlan {
		return fmt.Errorf("keep engine: its plan has %d bytes, wants 1 to %d", len(plan), maxPlan)
	}
	sum := sha256.Sum256(plan)
	m.Bytes, m.SHA256 = int64(len(plan)), hex.EncodeToString(sum[:])
	meta, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return fmt.Errorf("keep engine: %w", full(err))
	}
	if n := int64(len(plan) + len(meta)); n > c.quota {
		return fmt.Errorf("keep engine: %w: %d bytes, the cache may have %d; raise its quota", ErrQuota, n, c.quota)
	}
	id, tmp := m.Key.ID(), ""
	var hold *os.File
	err = c.locked(func() error {
		if tmp, err = os.MkdirTemp(c.dir, newPrefix); err != nil {
			return err
		}
		hold, err = flock(tmp, os.O_RDONLY, syscall.LOCK_EX) // clean leaves it alone
		return err
	})
	if tmp != "" {
		defer os.RemoveAll(tmp) // it is gone by then if all went well
	}
	if err != nil {
		return fmt.Errorf("keep engine: %w", full(err))
	}
	defer hold.Close()
	for _, f := range []struct {
		name string
		b    []byte
	}{{planName, plan}, {metaName, meta}} {
		if err := c.writeFile(filepath.Join(tmp, f.name), f.b); err != nil {
			return fmt.Errorf("keep engine of %d bytes: %w", len(plan), full(err))
		}
	}
	if err := atomicfile.SyncDir(tmp); err != nil {
		return fmt.Errorf("keep engine: %w", full(err))
	}
	return c.locked(func() error {
		gone, err := c.aside(id)
		if err == nil {
			err = os.Rename(tmp, filepath.Join(c.dir, id))
		}
		if err == nil {
			err = os.RemoveAll(gone)
		}
		if err == nil {
			err = atomicfile.SyncDir(c.dir)
		}
		if err != nil {
			return fmt.Errorf("keep engine: %w", full(err))
		}
		c.evict(id)
		return nil
	})
}

// full says in one word what several errors of a disk mean.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func (c *Cache) writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := c.write(f, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Remove takes an engine out of the cache, unless it is in use.
func (c *Cache) Remove(id string) error {
	return c.locked(func() error { return c.remove(id) })
}

// aside gives an entry, if there is one, a name that clean knows, so that a half
// removed one is never taken for a damaged one. It wants the lock.
func (c *Cache) aside(id string) (gone string, err error) {
	gone = filepath.Join(c.dir, newPrefix+id)
	if err := os.RemoveAll(gone); err != nil {
		return "", err
	}
	err = os.Rename(filepath.Join(c.dir, id), gone)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return gone, err
}

// remove wants the lock.
func (c *Cache) remove(id string) error {
	hold, err := flock(filepath.Join(c.dir, id), os.O_RDONLY, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer hold.Close()
	gone, err := c.aside(id)
	if err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// Timing gives the timing cache of an engine's library and GPU, nil if there is none.
func (c *Cache) Timing(k *Key) []byte {
	b, err := readBounded(filepath.Join(c.dir, timingFile(k)), maxTiming)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("timing cache not used", "error", err)
	}
	return b
}

// PutTiming keeps a timing cache: the next build of this board is faster by it.
func (c *Cache) PutTiming(k *Key, b []byte) error {
	if len(b) == 0 || len(b) > maxTiming {
		return nil
	}
	return c.locked(func() error {
		err := atomicfile.WriteFile(filepath.Join(c.dir, timingFile(k)), b, 0o600)
		c.evict("")
		return full(err)
	})
}

func timingFile(k *Key) string {
	sum := sha256.Sum256([]byte(k.Flavour + " " + k.Version + " " + k.ComputeCapability + " " + k.L4T))
	return timingHead + hex.EncodeToString(sum[:8])
}

// Free is the room on the cache's disk, in bytes; -1 if it cannot be told.
func (c *Cache) Free() int64 {
	var s syscall.Statfs_t
	if syscall.Statfs(c.dir, &s) != nil {
		return -1
	}
	return int64(s.Bavail) * s.Bsize
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s has over %d bytes", ErrDamaged, filepath.Base(path), limit)
	}
	return b, err
}

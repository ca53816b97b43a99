// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// clean removes what a killed process left half written. It wants the lock.
func (c *Cache) clean() {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		c.log.Error("engine cache not cleaned", "error", err)
		return
	}
	for _, n := range names {
		path := filepath.Join(c.dir, n.Name())
		switch {
		case strings.HasPrefix(n.Name(), newPrefix):
			hold, err := flock(path, os.O_RDONLY, syscall.LOCK_EX|syscall.LOCK_NB)
			if err != nil {
				continue // somebody writes it now
			}
			err = os.RemoveAll(path)
			hold.Close()
			c.log.Info("half an engine removed from the cache", "path", path, "error", err)
		case strings.HasPrefix(n.Name(), ".") && strings.Contains(n.Name(), ".tmp-"):
			// Such files are written under the lock, which is ours: it is a dead one's.
			_ = os.Remove(path)
		}
	}
}

// Stock is one thing in the cache.
type Stock struct {
	ID    string    `json:"id"` // of an entry; the file's name of a timing cache
	Bytes int64     `json:"bytes"`
	Used  time.Time `json:"used"`
	InUse bool      `json:"in_use"`
	// Meta is nil where the entry is damaged, or a timing cache.
	Meta *Meta `json:"meta,omitempty"`
}

// List gives the engines, the least recently used first.
func (c *Cache) List() []Stock {
	return slices.DeleteFunc(c.stock(), func(s Stock) bool { return !isID(s.ID) })
}

// Bytes is what engines and timing caches take.
func (c *Cache) Bytes() (n int64) {
	for _, s := range c.stock() {
		n += s.Bytes
	}
	return n
}

// Expect guesses how long a build of a network takes: as long as the last one of it,
// for whatever board; 0 if there was none.
func (c *Cache) Expect(network string) time.Duration {
	var newest time.Time
	var took time.Duration
	for _, s := range c.stock() {
		if m := s.Meta; m != nil && m.Key.Network == network && !m.Built.Before(newest) {
			newest, took = m.Built, time.Duration(m.Took*float64(time.Second))
		}
	}
	return took
}

// stock lists engines and timing caches, the least recently used first.
func (c *Cache) stock() []Stock {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		c.log.Error("engine cache not listed", "error", err)
	}
	var all []Stock
	for _, n := range names {
		path := filepath.Join(c.dir, n.Name())
		switch {
		case isID(n.Name()):
			s := Stock{ID: n.Name()}
			for _, f := range []string{planName, metaName} {
				if st, err := os.Stat(filepath.Join(path, f)); err == nil {
					s.Bytes += st.Size()
					s.Used = st.ModTime()
				}
			}
			if m, err := c.meta(n.Name()); err == nil {
				s.Meta = m
			}
			hold, err := flock(path, os.O_RDONLY, syscall.LOCK_EX|syscall.LOCK_NB)
			if err == nil {
				hold.Close()
			}
			s.InUse = errors.Is(err, errHeld)
			all = append(all, s)
		case strings.HasPrefix(n.Name(), timingHead):
			if st, err := n.Info(); err == nil {
				all = append(all, Stock{ID: n.Name(), Bytes: st.Size(), Used: st.ModTime()})
			}
		}
	}
	slices.SortFunc(all, func(a, b Stock) int {
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// evict holds the cache to its bounds; it wants the lock. The newest, keep, stays.
func (c *Cache) evict(keep string) {
	all := c.stock()
	total, count := int64(0), 0
	for _, s := range all {
		total += s.Bytes
		count++
	}
	for _, s := range all {
		if total <= c.quota && count <= MaxEntries {
			break
		}
		if s.ID == keep || s.InUse {
			continue
		}
		var err error
		if isID(s.ID) {
			err = c.remove(s.ID)
		} else {
			err = os.Remove(filepath.Join(c.dir, s.ID))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.log.Error("engine not evicted", "engine", s.ID, "error", err)
			continue
		}
		total -= s.Bytes
		count--
		c.log.Info("engine evicted: it was the least recently used", "engine", s.ID, "bytes", s.Bytes)
	}
}

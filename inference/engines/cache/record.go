// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fulmar/internal/atomicfile"
)

const (
	// MaxTries is how many deaths of the process an engine is given.
	MaxTries = 3
	// GoodAfter is how long an engine has to run to be forgiven the deaths before.
	GoodAfter  = time.Minute
	maxRecord  = 8 << 10
	maxRecords = 128
	maxWhy     = 400 // bytes, so that it fits a status
)

// Record is what is known of a key beside its engine, and outlives it.
type Record struct {
	// Tries counts the processes that took the engine into use and did not end in order.
	Tries int `json:"tries"`
	// Refused is why no engine of this key is to be used or built; "" if one may.
	Refused string `json:"refused,omitempty"`
	// Package is the model.yaml (its SHA-256) by which it was refused; "" if that has no
	// part in it. With another one there may be another verdict.
	Package string    `json:"package,omitempty"`
	Since   time.Time `json:"since"`
}

// Barred is why the engine must not be used, in words; "" if it may be.
func (r *Record) Barred() string {
	if r.Refused != "" {
		return r.Refused
	}
	if r.Tries >= MaxTries {
		return fmt.Sprintf("the engine is in quarantine: the worker died %d times while it loaded or ran", r.Tries)
	}
	return ""
}

// Record reads what is known of a key. One that cannot be read counts as none: it is
// a memory of faults, and a fault that is still there comes again.
func (c *Cache) Record(id string) Record {
	var r Record
	b, err := readBounded(filepath.Join(c.dir, id+recordTail), maxRecord)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("record of an engine not read", "engine", id, "error", err)
		return Record{}
	}
	return r
}

// change rewrites a record in one step.
func (c *Cache) change(id string, fn func(r *Record)) error {
	return c.locked(func() error {
		r := c.Record(id)
		before := r
		fn(&r)
		if r == before {
			return nil
		}
		path := filepath.Join(c.dir, id+recordTail)
		if r.Tries == 0 && r.Refused == "" {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return atomicfile.SyncDir(c.dir)
		}
		r.Since = time.Now().UTC()
		b, err := json.Marshal(&r)
		if err == nil {
			err = atomicfile.WriteFile(path, b, 0o600)
		}
		c.trimRecords()
		return err
	})
}

// trimRecords removes the oldest records over the bound; it wants the lock.
func (c *Cache) trimRecords() {
	names, _ := filepath.Glob(filepath.Join(c.dir, "*"+recordTail)) // the pattern is sound
	if len(names) <= maxRecords {
		return
	}
	age := func(p string) time.Time {
		st, err := os.Stat(p)
		if err != nil {
			return time.Time{}
		}
		return st.ModTime()
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(age(a).Compare(age(b)), strings.Compare(a, b)) })
	for _, p := range names[:len(names)-maxRecords] {
		_ = os.Remove(p)
	}
}

// BarredFor is Barred for a model whose model.yaml has that SHA-256.
func (r *Record) BarredFor(pkg string) string {
	if r.Refused != "" && r.Package != "" && r.Package != pkg {
		return ""
	}
	return r.Barred()
}

// Begin says that the engine is about to be taken into use: until Good, a death of
// the process is put down to it.
func (c *Cache) Begin(id string) error {
	return c.change(id, func(r *Record) { r.Tries++ })
}

// Good says that the engine ran well, or was given back in order.
func (c *Cache) Good(id string) error {
	return c.change(id, func(r *Record) { r.Tries = 0 })
}

// Refuse says that no engine of this key is to be used, and why, in one line; with
// pkg it holds for models of that model.yaml alone.
func (c *Cache) Refuse(id, pkg, why string) error {
	why = strings.Join(strings.Fields(why), " ")
	if len(why) > maxWhy {
		why = why[:maxWhy-3] + "..."
	}
	return c.change(id, func(r *Record) { r.Refused, r.Package, r.Tries = strings.ToValidUTF8(why, "?"), pkg, 0 })
}

// Forget gives a key a new chance: a person asks for it.
func (c *Cache) Forget(id string) error {
	return c.change(id, func(r *Record) { *r = Record{} })
}

// Records gives all records by key.
func (c *Cache) Records() map[string]Record {
	out := map[string]Record{}
	names, _ := filepath.Glob(filepath.Join(c.dir, "*"+recordTail)) // the pattern is sound
	for _, p := range names {
		if id := strings.TrimSuffix(filepath.Base(p), recordTail); isID(id) {
			out[id] = c.Record(id)
		}
	}
	return out
}

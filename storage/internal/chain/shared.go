// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package chain is the spool of one class: a chain of segments, the numbers given
// out and settled, the queue in front and the committer. Package storage says
// what it promises and puts the classes together.
//
// Each class has a lock of its own for its files (io) and one for its memory
// (mu); mu is taken after io and never held during I/O. Who holds io of a class
// may take io of the alarm class, to write a gap; never the other way round
// except by TryLock.
package chain

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/files"
	"fulmar/storage/internal/segment"
	"fulmar/storage/vault"
)

// Config sets up one class.
type Config = classconf.Config

// What a caller may want to tell apart; see the same names in storage.
var (
	ErrFull    = errors.New("class is full")
	ErrUnknown = errors.New("unknown range")
	ErrClosed  = errors.New("spool is closed")
)

// Shared is what the classes of one spool have in common.
type Shared struct {
	Dir     string
	Clock   schema.Clock
	Log     *slog.Logger
	NoSync  bool
	Balloon disk.Balloon
	Wake    chan struct{} // 1-buffered: something became durable
	Running atomic.Bool   // the committers run
	Online  atomic.Bool   // the link is up: metrics are read from memory
	Failed  func(error)   // told when the disk fails other than by being full

	foreign int
	classes [schema.NumClasses]*Class
}

// New makes the classes of a spool, not yet loaded.
func New(s *Shared, cfg [schema.NumClasses]Config) ([schema.NumClasses]*Class, error) {
	for _, id := range schema.Classes() {
		cc, err := cfg[id].WithDefaults(id)
		if err != nil {
			return s.classes, err
		}
		c := &Class{s: s, id: id, cfg: cc, dir: filepath.Join(s.Dir, id.String()), kick: make(chan struct{}, 1)}
		c.book.Class = id
		c.files = files.Chain{
			Class: id, Dir: c.dir, Quarantine: filepath.Join(s.Dir, "quarantine"), Log: s.Log,
			Opts: segment.Options{MaxBytes: cc.SegmentBytes, NoSync: s.NoSync},
		}
		s.classes[id] = c
	}
	return s.classes, nil
}

// UseKeys makes a class encrypt what it writes from now on.
func (c *Class) UseKeys(k *vault.Keys) { c.files.Opts.Keys = k }

// ForeignFile books a file that is not the spool's. It is left alone.
func (s *Shared) ForeignFile(path string) {
	if s.foreign++; s.foreign <= 10 { // a folder of someone else's must not fill the log
		s.Log.Warn("a file that is not the spool's is left alone", "path", path)
	}
}

// Foreign is how many such files were found while the classes were loaded.
func (s *Shared) Foreign() int { return s.foreign }

// RefillBalloon makes the reserve for a full disk where it is missing.
func (s *Shared) RefillBalloon() {
	if err := s.Balloon.Refill(); err != nil {
		s.Log.Warn("spool has no reserve for a full disk", "err", err)
	}
}

// Signal wakes the reader.
func (s *Shared) Signal() {
	select {
	case s.Wake <- struct{}{}:
	default:
	}
}

// Settle writes the gaps that Load found, and reserves numbers for metrics: those get
// theirs before anything else is written, and a crash must be able to tell of them.
func (c *Class) Settle() error {
	c.io.Lock()
	defer c.io.Unlock()
	if len(c.owed) > 0 {
		if err := c.settleOwed(c.isAlarm()); err != nil {
			return err
		}
		if err := c.persist(); err != nil {
			return err
		}
	}
	if classconf.Durable(c.id) {
		return nil
	}
	return c.reserve(c.book.Next - 1)
}

// Flush commits all that is queued now.
func (c *Class) Flush() error {
	for {
		if err := c.flush(); err != nil || c.queued() == 0 {
			return err
		}
	}
}

func (c *Class) queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.Len()
}

// Cursor tells where the class stands.
func (c *Class) Cursor() schema.Cursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.book.Cursor()
}

// Close commits what waits, gives reserved numbers back if nothing is left
// unaccounted for, writes the cursor and closes the files.
func (c *Class) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.io.Lock()
	defer c.io.Unlock()
	var err error
	for err == nil && c.queued() > 0 {
		err = c.flushLocked(false)
	}
	if err == nil {
		err = c.settleOwed(c.isAlarm())
	}
	if err == nil {
		err = c.cutOff()
	}
	if err == nil {
		c.mu.Lock()
		c.book.Reserved = c.book.Next - 1
		c.mu.Unlock()
	}
	if perr := c.persist(); err == nil {
		err = perr
	}
	c.files.Close()
	if err != nil {
		return fmt.Errorf("close spool class %s: %w", c.id, err)
	}
	return nil
}

// Release closes the files and writes nothing.
func (c *Class) Release() {
	c.io.Lock()
	defer c.io.Unlock()
	c.files.Close()
}

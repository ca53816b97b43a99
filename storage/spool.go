// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"fulmar/internal/atomicfile"
	"fulmar/internal/run"
	"fulmar/schema"
	"fulmar/storage/internal/chain"
	"fulmar/storage/internal/disk"
)

// Spool is the durable queue of a board's records; see the package comment.
type Spool struct {
	shared  chain.Shared
	lock    *os.File
	classes [schema.NumClasses]*chain.Class
	closed  atomic.Bool
}

// Open opens the spool, makes it where it is not there, and repairs what a crash
// left: the numbers lost are written down as gaps before it returns. It fails
// with [ErrLocked] after 1.5 s if another process has the spool, with [ErrNewer]
// if a newer version wrote it, or with the disk's error.
func Open(cfg Config) (_ *Spool, err error) {
	s := &Spool{shared: chain.Shared{Dir: cfg.Dir, Clock: cfg.Clock, Log: cfg.Log, NoSync: cfg.NoSync, Wake: make(chan struct{}, 1)}}
	if cfg.Log == nil {
		s.shared.Log = slog.New(slog.DiscardHandler)
	}
	if s.classes, err = chain.New(&s.shared, cfg.Classes); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool folder: %w", err)
	}
	if s.lock, err = disk.Lock(filepath.Join(cfg.Dir, "lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	s.shared.Balloon.Path = filepath.Join(cfg.Dir, "balloon")
	s.shared.RefillBalloon()
	s.lookAround()
	for i, c := range s.classes {
		if err := c.Load(); err != nil {
			return nil, fmt.Errorf("open spool class %s: %w", schema.Class(i), err)
		}
	}
	for _, dir := range []string{filepath.Dir(cfg.Dir), cfg.Dir} { // both may be new
		if err := atomicfile.SyncDir(dir); err != nil && !cfg.NoSync {
			return nil, fmt.Errorf("open spool: %w", err)
		}
	}
	for i, c := range s.classes {
		if err := c.Settle(); err != nil {
			// The disk may be full: the gaps stay owed and Run tries again.
			s.shared.Log.Error("spool could not write what the last crash lost, will try again", "class", schema.Class(i).String(), "err", err)
		}
	}
	return s, nil
}

// lookAround counts what is in the folder and not ours.
func (s *Spool) lookAround() {
	ents, err := os.ReadDir(s.shared.Dir)
	if err != nil {
		return // loading will say so
	}
	for _, e := range ents {
		switch _, err := schema.ParseClass(e.Name()); {
		case err == nil && e.IsDir():
		case e.Name() == "lock", e.Name() == "balloon", e.Name() == "quarantine":
		default:
			s.shared.ForeignFile(filepath.Join(s.shared.Dir, e.Name()))
		}
	}
}

// Run commits, lingers and writes cursors until ctx ends; then it commits what
// waits. It gives the error of that last commit, or says which class still hangs
// in the disk after 5 s.
func (s *Spool) Run(ctx context.Context) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if !s.shared.Running.CompareAndSwap(false, true) {
		return errors.New("spool: Run is already running")
	}
	g := run.New(ctx)
	for i, c := range s.classes {
		g.Go("spool class "+schema.Class(i).String(), c.Run)
	}
	err := g.Wait(stopGrace)
	s.shared.Running.Store(false)
	if err != nil { // a class hangs in the disk: waiting for it would hang the stop, too
		return err
	}
	return s.Flush()
}

// Flush commits what is queued now, in all classes.
func (s *Spool) Flush() error {
	var errs []error
	for _, c := range s.classes {
		errs = append(errs, c.Flush())
	}
	return errors.Join(errs...)
}

// Append stores one record (1 to [schema.MaxRecord] bytes, copied) and gives its
// number. An alarm, event or snapshot index is on disk when the error is nil. A
// metric is queued, never waits for the disk, and is on disk after its linger; if
// the queue is full it is lost, told as a gap, and the error wraps [ErrFull]. If
// ctx ends first the record may or may not be stored.
func (s *Spool) Append(ctx context.Context, c schema.Class, payload []byte) (uint64, error) {
	if c >= schema.NumClasses {
		return 0, fmt.Errorf("append to spool: unknown class %d", c)
	}
	seq, err := s.classes[c].Append(ctx, payload)
	if err != nil {
		return 0, fmt.Errorf("append to spool class %s: %w", c, err)
	}
	return seq, nil
}

// Read gives durable records of the class that are not settled, from number from
// on, rising: at most maxRecords, and at most maxBytes of payload unless the first
// alone is larger. The payloads are shared with the spool: do not change them.
// Records found corrupt on the way become gaps and are left out.
func (s *Spool) Read(c schema.Class, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	if c >= schema.NumClasses {
		return nil, fmt.Errorf("read spool: unknown class %d", c)
	}
	return s.classes[c].Read(from, maxRecords, maxBytes)
}

// Ack settles numbers first to last, inclusive, in any order and as often as one
// likes. An epoch or number never given out is refused with [ErrUnknown] and
// nothing is dropped. The cursor is on disk within 0.5 s; a crash before that
// makes Read give the records again.
func (s *Spool) Ack(c schema.Class, epoch, first, last uint64) error {
	if c >= schema.NumClasses {
		return fmt.Errorf("acknowledge: %w: class %d", ErrUnknown, c)
	}
	if err := s.classes[c].Ack(epoch, first, last); err != nil {
		return fmt.Errorf("acknowledge in spool class %s: %w", c, err)
	}
	return nil
}

// Cursors tells where each class stands, in the order of [schema.Classes].
func (s *Spool) Cursors() []schema.Cursor {
	out := make([]schema.Cursor, 0, schema.NumClasses)
	for _, c := range s.classes {
		out = append(out, c.Cursor())
	}
	return out
}

// Wake gets a value when something new can be read since the last receive.
func (s *Spool) Wake() <-chan struct{} { return s.shared.Wake }

// Close commits what waits, gives reserved numbers back, writes the cursors and
// lets go of the files. Run should have ended before. The spool is closed even
// where an error says that something did not reach the disk; the next Open then
// writes the gap.
func (s *Spool) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var errs []error
	// Alarms last: the others may still have a gap to write.
	for i := len(s.classes) - 1; i >= 0; i-- {
		errs = append(errs, s.classes[i].Close())
	}
	s.release()
	return errors.Join(errs...)
}

// release lets go of the files without writing anything.
func (s *Spool) release() {
	for _, c := range s.classes {
		c.Release()
	}
	_ = s.lock.Close() // nothing was written to it
}

// Online tells whether the link is up. While it is, Read gives metrics that are
// still only in memory, too, and those acknowledged within 2 s are never written to
// disk; [ClassStats].LossWindow says how much a crash could lose.
func (s *Spool) Online(up bool) {
	if s.shared.Online.Swap(up) != up {
		s.classes[schema.ClassMetric].LinkChanged()
	}
}

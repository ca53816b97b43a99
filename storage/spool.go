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
)

// Spool is the durable queue of a board's records; see the package comment.
type Spool struct {
	cfg     Config
	log     *slog.Logger
	lock    *os.File
	balloon balloon
	classes [schema.NumClasses]*class
	wake    chan struct{}
	running atomic.Bool
	closed  atomic.Bool
	foreigN int
}

// Open opens the spool, makes it where it is not there, and repairs what a crash
// left: the numbers lost are written down as gaps before it returns. It fails
// with [ErrLocked] after 1.5 s if another process has the spool, with [ErrNewer]
// if a newer version wrote it, or with the disk's error.
func Open(cfg Config) (_ *Spool, err error) {
	s := &Spool{cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, id := range schema.Classes() {
		cc, err := cfg.Classes[id].withDefaults(id)
		if err != nil {
			return nil, err
		}
		s.classes[id] = &class{s: s, id: id, cfg: cc, dir: filepath.Join(cfg.Dir, id.String()), kick: make(chan struct{}, 1)}
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	if s.lock, err = lockFile(filepath.Join(cfg.Dir, "lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	s.balloon.path = filepath.Join(cfg.Dir, "balloon")
	s.refillBalloon()
	s.lookAround()
	for _, c := range s.classes {
		if err := c.load(); err != nil {
			return nil, fmt.Errorf("open spool class %s: %w", c.id, err)
		}
	}
	if err := s.syncDir(); err != nil {
		return nil, err
	}
	for _, c := range s.classes {
		if err := c.settle0(); err != nil {
			// The disk may be full: the gaps stay owed and Run tries again.
			s.log.Error("spool could not write what the last crash lost, will try again", "class", c.id.String(), "err", err)
		}
	}
	return s, nil
}

// syncDir makes the names of the class folders durable.
func (s *Spool) syncDir() error {
	if s.cfg.NoSync {
		return nil
	}
	return atomicfile.SyncDir(s.cfg.Dir)
}

// settle0 writes the gaps that load found.
func (c *class) settle0() error {
	c.io.Lock()
	defer c.io.Unlock()
	if len(c.owed) == 0 {
		return nil
	}
	if err := c.settleOwed(c.id == schema.ClassAlarm); err != nil {
		return err
	}
	return c.persist()
}

// lookAround counts what is in the folder and not ours.
func (s *Spool) lookAround() {
	ents, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return // load will say so
	}
	for _, e := range ents {
		switch _, err := schema.ParseClass(e.Name()); {
		case err == nil && e.IsDir():
		case e.Name() == "lock", e.Name() == "balloon", e.Name() == "quarantine":
		default:
			s.foreign(filepath.Join(s.cfg.Dir, e.Name()))
		}
	}
}

// foreign books a file that is not the spool's. It is left alone.
func (s *Spool) foreign(path string) {
	if s.foreigN++; s.foreigN <= 10 { // a folder of someone else's must not fill the log
		s.log.Warn("a file that is not the spool's is left alone", "path", path)
	}
}

func (s *Spool) refillBalloon() {
	if err := s.balloon.refill(); err != nil {
		s.log.Warn("spool has no reserve for a full disk", "err", err)
	}
}

// Run commits, lingers and writes cursors until ctx ends; then it commits what
// waits. It gives the error of that last commit, or says which class still hangs
// in the disk after 5 s.
func (s *Spool) Run(ctx context.Context) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("spool: Run is already running")
	}
	g := run.New(ctx)
	for _, c := range s.classes {
		g.Go("spool class "+c.id.String(), c.run)
	}
	err := g.Wait(stopGrace)
	s.running.Store(false)
	if err != nil { // a class hangs in the disk: waiting for it would hang the stop, too
		return err
	}
	return s.Flush()
}

// Flush commits what is queued now, in all classes.
func (s *Spool) Flush() error {
	var errs []error
	for _, c := range s.classes {
		for {
			err := c.flush()
			errs = append(errs, err)
			if err != nil || c.queued() == 0 {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (c *class) queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
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
	seq, err := s.classes[c].append(ctx, payload)
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
	return s.classes[c].read(from, maxRecords, maxBytes)
}

// Ack settles numbers first to last, inclusive, in any order and as often as one
// likes. An epoch or number never given out is refused with [ErrUnknown] and
// nothing is dropped. The cursor is on disk within 0.5 s; a crash before that
// makes Read give the records again.
func (s *Spool) Ack(c schema.Class, epoch, first, last uint64) error {
	if c >= schema.NumClasses {
		return fmt.Errorf("acknowledge: %w: class %d", ErrUnknown, c)
	}
	if err := s.classes[c].ack(epoch, first, last); err != nil {
		return fmt.Errorf("acknowledge in spool class %s: %w", c, err)
	}
	return nil
}

// Cursors tells where each class stands, in the order of [schema.Classes].
func (s *Spool) Cursors() []schema.Cursor {
	out := make([]schema.Cursor, 0, schema.NumClasses)
	for _, c := range s.classes {
		c.mu.Lock()
		out = append(out, schema.Cursor{Class: c.id, Epoch: c.epoch, Acked: c.done.Low(), Last: c.next - 1})
		c.mu.Unlock()
	}
	return out
}

// Wake gets a value when something new became durable since the last receive.
func (s *Spool) Wake() <-chan struct{} { return s.wake }

func (s *Spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

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
		errs = append(errs, s.classes[i].close())
	}
	s.release()
	return errors.Join(errs...)
}

func (c *class) close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.io.Lock()
	defer c.io.Unlock()
	var err error
	for err == nil && c.queued() > 0 {
		err = c.flushLocked()
	}
	if err == nil {
		err = c.settleOwed(c.id == schema.ClassAlarm)
	}
	c.mu.Lock()
	if err == nil { // nothing is unaccounted for: give the rest of the block back
		c.reserved = c.next - 1
	}
	c.mu.Unlock()
	if perr := c.persist(); perr != nil {
		err = errors.Join(err, perr)
	}
	if err != nil {
		err = fmt.Errorf("close spool class %s: %w", c.id, err)
	}
	c.closeReader()
	c.closeWriter()
	return err
}

// release lets go of the files without writing anything.
func (s *Spool) release() {
	for _, c := range s.classes {
		c.closeReader()
		c.closeWriter()
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

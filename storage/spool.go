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
	"slices"
	"sync/atomic"

	"fulmar/internal/atomicfile"
	"fulmar/internal/run"
	"fulmar/schema"
	"fulmar/storage/internal/age"
	"fulmar/storage/internal/chain"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/owner"
	"fulmar/storage/internal/ram"
	"fulmar/storage/internal/starts"
	"fulmar/storage/vault"
)

// Spool is the durable queue of a board's records; see the package comment.
type Spool struct {
	cfg    Config
	shared chain.Shared
	ram    *ram.Store
	lock   *os.File
	guard  starts.Guard
	closed atomic.Bool
	// classes are those on disk; nil while there is no disk to open.
	classes atomic.Pointer[[schema.NumClasses]*chain.Class]
	memory  memory
	owner   ownership
	ages    ages
	keys    atomic.Pointer[vault.State]
}

// Open opens the spool, makes it where it is not there, and repairs what a crash
// left: the numbers lost are written down as gaps before it returns. It fails with
// [ErrLocked] after 1.5 s if another process has the spool, with [ErrNewer] if a
// newer version wrote it, or for a config that cannot be. Where the disk cannot be
// used, holds the spool of another board, or three starts in a row ended badly, the
// spool works from memory and [Stats].Memory says why.
func Open(cfg Config) (*Spool, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Spool{cfg: cfg, ram: ram.New(cfg.Clock)}
	s.shared = chain.Shared{
		Dir: cfg.Dir, Clock: cfg.Clock, Log: cfg.Log, NoSync: cfg.NoSync, Wake: make(chan struct{}, 1),
		Failed: s.diskFailed,
	}
	s.memory.changed, s.memory.retry = make(chan struct{}, 1), make(chan struct{}, 1)
	s.owner.board = cfg.Owner
	err := s.openDisk()
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, ErrLocked), errors.Is(err, ErrNewer), errors.Is(err, errConfig):
		return nil, err
	}
	// A board with another's disk comes up as well: it can say so only if it runs.
	s.enterMemory(err)
	return s, nil
}

// errConfig marks what no other disk would mend.
var errConfig = errors.New("spool config")

// openDisk opens what is on disk; nothing of it is held where it fails.
func (s *Spool) openDisk() (err error) {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	if s.owner.board != "" {
		if err := schema.CheckBoard(s.owner.board); err != nil {
			return fmt.Errorf("%w: owner: %w", errConfig, err)
		}
	}
	classes, err := chain.New(&s.shared, s.cfg.Classes)
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	lock, err := disk.Lock(filepath.Join(s.cfg.Dir, "lock"))
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ErrNewer) { // a start that refuses in order is no bad one
			err = errors.Join(err, s.guard.Forget())
		}
		if err != nil {
			release(classes, lock)
		}
	}()
	if err := s.mayOpen(); err != nil {
		return err
	}
	if err := s.guard.Begin(filepath.Join(s.cfg.Dir, "starts"), s.cfg.Clock.Boot(), s.cfg.NoSync); err != nil {
		return err
	}
	if err := s.openKeys(classes); err != nil {
		return err
	}
	s.probe()
	s.shared.Balloon.Path = filepath.Join(s.cfg.Dir, "balloon")
	s.shared.RefillBalloon()
	s.lookAround()
	s.openAges()
	for i, c := range classes {
		if err := c.Load(); err != nil {
			return fmt.Errorf("open spool class %s: %w", schema.Class(i), err)
		}
	}
	for _, dir := range []string{filepath.Dir(s.cfg.Dir), s.cfg.Dir} { // both may be new
		if err := atomicfile.SyncDir(dir); err != nil && !s.cfg.NoSync {
			return fmt.Errorf("open spool: %w", err)
		}
	}
	for i, c := range classes {
		if err := c.Settle(); err != nil {
			// The disk may be full: the gaps stay owed and Run tries again.
			s.shared.Log.Error("spool could not write what the last crash lost, will try again", "class", schema.Class(i).String(), "err", err)
		}
	}
	if err := s.own(); err != nil { // the next start does it
		s.shared.Log.Warn("spool does not say whose it is", "err", err)
	}
	s.lock = lock
	s.classes.Store(&classes)
	return nil
}

// openKeys opens the keyring, if the spool is to be encrypted.
func (s *Spool) openKeys(classes [schema.NumClasses]*chain.Class) error {
	if s.cfg.Holder == nil {
		return nil
	}
	keys, err := vault.Open(s.cfg.Dir, s.cfg.Holder, s.cfg.Recovery, s.cfg.Former...)
	if err != nil {
		return fmt.Errorf("open the spool's keys: %w", err)
	}
	for _, c := range classes {
		c.UseKeys(keys)
	}
	st := keys.State()
	s.keys.Store(&st)
	switch log := s.shared.Log; {
	case len(st.Lost) > 0 || st.Damaged:
		log.Error("spool keys are lost: what they encrypted is told as lost, only the recovery key reads it", "lost", len(st.Lost), "keyring_damaged", st.Damaged)
	case st.Kind == vault.KindFile:
		log.Warn("the spool's key lies in a file: who has the disk has the records; a TPM would hold it")
	}
	return nil
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
		case slices.Contains([]string{"lock", "balloon", "quarantine", "starts", owner.Name, age.Name}, e.Name()), vault.Owns(e.Name()):
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
	g.Go("spool disk", func(ctx context.Context) error { return s.keepDisk(ctx, g) })
	if s.classes.Load() != nil {
		s.runClasses(g)
	}
	if s.expires() {
		g.Go("spool ages", s.keepAges)
	}
	err := g.Wait(stopGrace)
	s.shared.Running.Store(false)
	if err != nil { // a class hangs in the disk: waiting for it would hang the stop, too
		return err
	}
	return s.Flush()
}

func (s *Spool) runClasses(g *run.Group) {
	for i, c := range s.classes.Load() {
		g.Go("spool class "+schema.Class(i).String(), c.Run)
	}
}

// Flush commits what is queued now, in all classes.
func (s *Spool) Flush() error {
	var errs []error
	if cl := s.classes.Load(); cl != nil {
		for _, c := range cl {
			errs = append(errs, c.Flush())
		}
	}
	return errors.Join(errs...)
}

// Append stores one record (1 to [schema.MaxRecord] bytes, copied) and gives its
// number. An alarm, event or snapshot index is on disk when the error is nil, or in
// memory while there is no disk. A metric is queued, never waits for the disk, and
// is on disk after its linger; if the queue is full it is lost, told as a gap, and
// the error wraps [ErrFull]. If ctx ends first the record may or may not be stored.
func (s *Spool) Append(ctx context.Context, c schema.Class, payload []byte) (uint64, error) {
	seq, err := s.append(ctx, c, payload)
	if err != nil {
		return 0, fmt.Errorf("append to spool class %s: %w", c, err)
	}
	return seq, nil
}

func (s *Spool) append(ctx context.Context, c schema.Class, payload []byte) (uint64, error) {
	if c >= schema.NumClasses {
		return 0, errors.New("unknown class")
	}
	if !s.memory.on.Load() {
		seq, err := s.classes.Load()[c].Append(ctx, payload)
		if err == nil || !s.memory.on.Load() || !disk.Failed(err) {
			return seq, err
		}
	}
	return s.appendMemory(c, payload)
}

// Read gives records of the class that are not settled, from number from on,
// rising: at most maxRecords, and at most maxBytes of payload unless the first alone
// is larger. They are of the epoch of the class's first cursor; for others see
// [Spool.ReadEpoch]. The payloads are shared with the spool: do not change them.
// Records found corrupt or older than their class's TTL on the way become gaps and are
// left out.
func (s *Spool) Read(c schema.Class, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	if c >= schema.NumClasses {
		return nil, fmt.Errorf("read spool: unknown class %d", c)
	}
	if cl := s.classes.Load(); cl != nil {
		return s.fresh(c, from, cl[c].Read, maxRecords, maxBytes)
	}
	for _, cur := range s.ram.Cursors() {
		if cur.Class == c {
			return s.ReadEpoch(c, cur.Epoch, from, maxRecords, maxBytes)
		}
	}
	return nil, nil
}

// ReadEpoch is Read for one of the epochs that Cursors tells of.
func (s *Spool) ReadEpoch(c schema.Class, epoch, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	if c >= schema.NumClasses {
		return nil, fmt.Errorf("read spool: unknown class %d", c)
	}
	if cl := s.classes.Load(); cl != nil && cl[c].Cursor().Epoch == epoch {
		return s.fresh(c, from, cl[c].Read, maxRecords, maxBytes)
	}
	return s.fresh(c, from, func(from uint64, records, bytes int) ([]schema.Stored, error) {
		return s.ram.Read(c, epoch, from, records, bytes), nil
	}, maxRecords, maxBytes)
}

// Ack settles numbers first to last, inclusive, in any order and as often as one
// likes. An epoch or number never given out is refused with [ErrUnknown] and
// nothing is dropped. The cursor is on disk within 0.5 s; a crash before that
// makes Read give the records again.
func (s *Spool) Ack(c schema.Class, epoch, first, last uint64) error {
	if c >= schema.NumClasses {
		return fmt.Errorf("acknowledge: %w: class %d", ErrUnknown, c)
	}
	err := s.settle(c, epoch, func(cl *chain.Class) error { return cl.Ack(epoch, first, last) },
		func() error { return s.ram.Ack(c, epoch, first, last) })
	if err != nil {
		return fmt.Errorf("acknowledge in spool class %s: %w", c, err)
	}
	return nil
}

// settle does something with numbers where they are: on disk or in memory.
func (s *Spool) settle(c schema.Class, epoch uint64, onDisk func(*chain.Class) error, inMemory func() error) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if cl := s.classes.Load(); cl != nil && cl[c].Cursor().Epoch == epoch {
		return onDisk(cl[c])
	}
	err := inMemory()
	if errors.Is(err, ram.ErrUnknown) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// Cursors tells where each class stands, in the order of [schema.Classes], and
// after those where each does in memory, if there was a time without a disk.
func (s *Spool) Cursors() []schema.Cursor {
	out := make([]schema.Cursor, 0, 2*schema.NumClasses)
	if cl := s.classes.Load(); cl != nil {
		// Alarms are asked last: a gap is among them before a class counts its numbers
		// as settled, so whoever has all these alarms knows each gap below Acked.
		out = out[:len(cl)]
		for i := len(cl) - 1; i >= 0; i-- {
			out[i] = cl[i].Cursor()
		}
	}
	return append(out, s.ram.Cursors()...)
}

// Wake gets a value when something new can be read since the last receive.
func (s *Spool) Wake() <-chan struct{} { return s.shared.Wake }

// Online tells whether the link is up. While it is, Read gives metrics that are
// still only in memory, too, and those acknowledged within 2 s are never written to
// disk; [ClassStats].LossWindow says how much a crash could lose.
func (s *Spool) Online(up bool) {
	if cl := s.classes.Load(); s.shared.Online.Swap(up) != up && cl != nil {
		cl[schema.ClassMetric].LinkChanged()
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
	cl := s.classes.Load()
	if cl == nil {
		return s.lostInMemory()
	}
	if s.expires() {
		s.noteAge()
	}
	errs := []error{s.lostInMemory()}
	// Alarms last: the others may still have a gap to write.
	for i := len(cl) - 1; i >= 0; i-- {
		errs = append(errs, cl[i].Close())
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, s.guard.End())
	}
	release(*cl, s.lock)
	return errors.Join(errs...)
}

// release lets go of the files without writing anything.
func release(classes [schema.NumClasses]*chain.Class, lock *os.File) {
	for _, c := range classes {
		c.Release()
	}
	_ = lock.Close() // nothing was written to it
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/internal/run"
	"fulmar/schema"
	"fulmar/storage/internal/chain"
	"fulmar/storage/internal/ram"
	"fulmar/storage/internal/starts"
)

const (
	// diskRetry is how often a disk that failed is tried again: a card that is put
	// back or a remount is found within a minute, and a dying disk is left alone.
	diskRetry = time.Minute
	// stableAfter is how long the spool must have run for its start to count as good.
	stableAfter = 10 * time.Minute
)

// memory is the mode in which records stay in memory because there is no disk.
type memory struct {
	on      atomic.Bool
	changed chan struct{} // 1-buffered: on was switched, or there is another reason
	retry   chan struct{} // 1-buffered: the disk is to be tried now

	mu    sync.Mutex
	why   error
	since time.Time
}

// diskFailed is told of each failure of a commit or cursor.
func (s *Spool) diskFailed(err error) {
	if !s.memory.on.Load() {
		s.enterMemory(err)
	}
}

// enterMemory makes new records stay in memory.
func (s *Spool) enterMemory(why error) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	if s.memory.on.Load() {
		return
	}
	s.memory.why, s.memory.since = why, time.Now()
	s.memory.on.Store(true)
	s.shared.Log.Error("spool has no disk: records stay in memory, and a crash or a long outage loses them", "err", why)
	s.modeChanged()
}

// claimed makes Run try a disk that was left alone for want of a name.
func (m *memory) claimed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if errors.Is(m.why, errUnclaimed) {
		select {
		case m.retry <- struct{}{}:
		default:
		}
	}
}

// stayInMemory notes why there still is no disk, where somebody must do something
// about it; other errors of a disk that is away may change with each try.
func (s *Spool) stayInMemory(why error) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	known := s.memory.why != nil && s.memory.why.Error() == why.Error()
	if known || !errors.Is(why, ErrOwner) && !errors.Is(why, ErrNewer) && !errors.Is(why, errUnclaimed) {
		return
	}
	s.memory.why = why
	s.shared.Log.Error("spool leaves the disk alone", "err", why)
	s.modeChanged()
}

// leaveMemory makes new records go to disk. What is in memory stays there until the
// fleet has it.
func (s *Spool) leaveMemory() {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	s.memory.on.Store(false)
	s.shared.Log.Info("spool has its disk again", "after", time.Since(s.memory.since).Round(time.Second))
	s.memory.why = nil
	s.modeChanged()
}

func (s *Spool) modeChanged() {
	select {
	case s.memory.changed <- struct{}{}:
	default:
	}
}

// keepDisk tries a disk that failed again, now and then, tells the owner when the
// mode changes, and notes when a start turned out well.
func (s *Spool) keepDisk(ctx context.Context, g *run.Group) error {
	retry := time.NewTicker(diskRetry)
	defer retry.Stop()
	stable := time.NewTimer(stableAfter)
	defer stable.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.memory.changed:
			s.tellMode()
		case <-s.memory.retry:
			s.retryDisk(g)
		case <-retry.C:
			if s.memory.due() {
				s.retryDisk(g)
			}
		case <-stable.C:
			if err := s.guard.End(); err != nil {
				s.shared.Log.Warn("spool could not note that it runs well", "err", err)
			}
		}
	}
}

// due tells whether the disk is to be tried again.
func (m *memory) due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on.Load() && (!errors.Is(m.why, starts.ErrLoop) || time.Since(m.since) >= stableAfter)
}

func (s *Spool) tellMode() {
	if s.cfg.OnMemory == nil {
		return
	}
	s.memory.mu.Lock()
	why := s.memory.why
	s.memory.mu.Unlock()
	s.cfg.OnMemory(why)
}

// retryDisk goes back to disk if it takes everything again.
func (s *Spool) retryDisk(g *run.Group) {
	if cl := s.classes.Load(); cl != nil {
		for i, c := range cl {
			if err := c.Retry(); err != nil {
				s.shared.Log.Debug("spool still has no disk", "class", schema.Class(i).String(), "err", err)
				return
			}
		}
		s.leaveMemory()
		return
	}
	if err := s.openDisk(); err != nil {
		s.shared.Log.Debug("spool still has no disk", "err", err)
		s.stayInMemory(err)
		return
	}
	s.runClasses(g)
	s.leaveMemory()
}

func (s *Spool) appendMemory(c schema.Class, payload []byte) (uint64, error) {
	if s.closed.Load() {
		return 0, ErrClosed
	}
	if err := chain.CheckPayload(payload); err != nil {
		return 0, err
	}
	seq, err := s.ram.Append(c, payload)
	if errors.Is(err, ram.ErrFull) {
		return 0, fmt.Errorf("%w: %w", ErrFull, err)
	}
	s.shared.Signal()
	return seq, err
}

// lostInMemory writes down what memory holds and the fleet has not, before it goes.
func (s *Spool) lostInMemory() error {
	left := s.ram.Left()
	if len(left) == 0 {
		return nil
	}
	n := uint64(0)
	for _, g := range left {
		n += g.Last - g.First + 1
	}
	if s.classes.Load() == nil {
		return fmt.Errorf("%d records were only in memory and are lost: the spool had no disk", n)
	}
	if err := s.shared.WriteGaps(left); err != nil {
		return fmt.Errorf("%d records were only in memory and are lost: %w", n, err)
	}
	return nil
}

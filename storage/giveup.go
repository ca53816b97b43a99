// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"
	"sync"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/age"
	"fulmar/storage/internal/chain"
)

const (
	// agesEvery is how often the time that this boot ran is written down; what it ran
	// after that is missing in the ages of records after the next one.
	agesEvery = 10 * time.Minute
	// expireRecords and expireBytes bound one read of records that may be too old.
	expireRecords, expireBytes = 256, 64 << 10
)

// ages is how old records are.
type ages struct {
	mu   sync.Mutex
	book age.Book
}

// expires tells whether any record grows too old.
func (s *Spool) expires() bool {
	for _, c := range s.cfg.Classes {
		if c.TTL > 0 {
			return true
		}
	}
	return false
}

// openAges reads what is known of past boots. A file that is damaged or cannot be read
// makes records younger than they are.
func (s *Spool) openAges() {
	if !s.expires() {
		return
	}
	book, err := age.Load(s.cfg.Dir)
	if err != nil {
		s.shared.Log.Warn("records of earlier boots count as no older than this boot", "err", err)
	}
	s.ages.mu.Lock()
	defer s.ages.mu.Unlock()
	s.ages.book = book
	s.ages.book.See(s.cfg.Clock.Now())
}

// keepAges writes down how long this boot runs, until ctx ends.
func (s *Spool) keepAges(ctx context.Context) error {
	every := time.NewTicker(agesEvery)
	defer every.Stop()
	for {
		s.noteAge()
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func (s *Spool) noteAge() {
	s.ages.mu.Lock()
	defer s.ages.mu.Unlock()
	s.ages.book.See(s.cfg.Clock.Now())
	if s.classes.Load() == nil {
		return
	}
	if err := s.ages.book.Save(s.cfg.Dir, s.cfg.NoSync); err != nil {
		s.shared.Log.Debug("time that this boot ran is not written down", "err", err)
	}
}

// fresh gives what read reads, once what is too old of it is given up. Records lie in
// the order in which they were made, so the first one tells of all; but for the
// summaries of thinned ones, which go when they come first. It is done for who sends,
// and not while the link is down: a board that is away for long would fill its ledger
// with a gap a minute.
func (s *Spool) fresh(c schema.Class, from uint64, read func(from uint64, records, bytes int) ([]schema.Stored, error), records, bytes int) ([]schema.Stored, error) {
	recs, err := read(from, records, bytes)
	ttl := s.cfg.Classes[c].TTL
	if ttl == 0 || err != nil {
		return recs, err
	}
	for _, r := range recs {
		if _, old, last := s.tooOld(r.Payload, ttl); last {
			return recs, nil
		} else if !old {
			continue
		}
		if err := s.expire(r, read, ttl); err != nil { // better late than never
			s.shared.Log.Warn("records are older than their time to live, and are sent all the same", "class", c.String(), "err", err)
			return recs, nil
		}
		return read(from, records, bytes)
	}
	return recs, nil
}

// expire gives up the records that are older than ttl, from first on up to one that is
// not.
func (s *Spool) expire(first schema.Stored, read func(from uint64, records, bytes int) ([]schema.Stored, error), ttl time.Duration) error {
	gone := schema.Gap{Class: first.Class, Epoch: first.Epoch, Reason: schema.ReasonExpired}
	for from := first.Seq; ; {
		recs, err := read(from, expireRecords, expireBytes)
		if err != nil {
			return err
		}
		if len(recs) == 0 {
			return s.giveUp(gone)
		}
		from = recs[len(recs)-1].Seq + 1
		for _, r := range recs {
			made, old, last := s.tooOld(r.Payload, ttl)
			if old {
				if gone.Last, gone.ToWall = r.Seq, made.Wall; gone.First == 0 {
					gone.First, gone.FromWall = r.Seq, made.Wall
				}
				continue
			}
			if err := s.giveUp(gone); err != nil || last {
				return err
			}
			gone.First = 0
		}
	}
}

// tooOld tells when a record was made, and whether that is too long ago. last: none behind it is. What cannot be read, and
// anchors, by which the fleet places records of other classes, do not grow too old and
// say nothing of what is behind them.
func (s *Spool) tooOld(payload []byte, ttl time.Duration) (made schema.Time, old, last bool) {
	kind, made, err := schema.DecodeTime(payload)
	if err != nil || kind == schema.KindAnchor {
		return made, false, false
	}
	s.ages.mu.Lock()
	defer s.ages.mu.Unlock()
	old = s.ages.book.Age(made, s.cfg.Clock.Now()) > ttl
	return made, old, !old
}

// giveUp settles the numbers of a gap that are not settled, once it is written down.
func (s *Spool) giveUp(g schema.Gap) error {
	if g.First == 0 {
		return nil
	}
	err := s.settle(g.Class, g.Epoch, func(cl *chain.Class) error { return cl.Refuse(g) }, func() error { return s.ram.Refuse(g) })
	if err != nil {
		return fmt.Errorf("give up records %d to %d of spool class %s: %w", g.First, g.Last, g.Class, err)
	}
	s.shared.Signal() // there is a gap to send
	return nil
}

// Refuse settles a record that can never be delivered: its picture is gone, it
// is larger than a message may be. The gap with the reason is durable first. A
// number never given out is refused with [ErrUnknown].
func (s *Spool) Refuse(c schema.Class, epoch, seq uint64, why schema.Reason) error {
	if c >= schema.NumClasses || seq == 0 {
		return fmt.Errorf("give up a record: %w: number %d of class %d", ErrUnknown, seq, c)
	}
	return s.giveUp(schema.Gap{Class: c, Epoch: epoch, First: seq, Last: seq, Reason: why})
}

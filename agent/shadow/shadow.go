// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/shadow/kept"
	"fulmar/agent/shadow/settings"
	"fulmar/schema"
	"fulmar/twin"
)

const (
	// leaseSave is how often what is left of leases goes to disk while there are any: a
	// power cut lengthens a lease by at most that.
	leaseSave = time.Minute
	// saveAgain is how long after a save that failed it is tried again.
	saveAgain = 30 * time.Second
	// inboxSize is how many messages of the fleet may wait: a connection has two, and one
	// more for each change at the fleet. What does not fit is asked for again.
	inboxSize = 8
	stopGrace = 2 * time.Second
)

// Config is what a shadow works with. All functions may be called by several goroutines
// and must not call the shadow, but Apply, Send and Tell may.
type Config struct {
	// Tenant and Board name whose twin it is, as far as that is known: see [Shadow.Name].
	Tenant, Board string
	Dir           string    // made if it is not there
	Disk          kept.Disk // nil: files in Dir
	Clock         schema.Clock
	// BootKnown: the kernel tells the boot of the clock, so that the time since then is
	// told from that of an earlier run.
	BootKnown bool
	// Open gives the bytes that an envelope signs, if keys that may sign did.
	Open func(envelope []byte) ([]byte, error)
	// Base is the config of the board's file.
	Base func() config.Config
	// Check refuses values of the keys that are not of package settings: rules, limits;
	// nil refuses all of them.
	Check func(key string, v twin.Value) error
	// Apply puts a config in force, and tells others what holds. An error counts as ill
	// health. One call at a time.
	Apply  func(ctx context.Context, c *config.Config, effective map[string]twin.Value) error
	Health func() Health
	// Send brings a twin/wire.Up to the fleet, in the connection that is up.
	Send func(ctx context.Context, payload []byte) error
	// Tell keeps a report for the fleet.
	Tell func(schema.Report)
	// Proof is how long a change is on trial; 0: [Proof].
	Proof time.Duration
	Log   *slog.Logger
}

// Shadow is a board's side of its twin.
type Shadow struct {
	cfg      Config
	kept     *kept.State
	instance string
	starts   uint32

	mu      sync.Mutex
	st      *state
	counted int64             // Mono up to which leases are counted
	sum     [sha256.Size]byte // of what was saved last, without its number and time
	savedAt time.Time
	unsaved error // why what holds is not on the disk
	trials  uint64
	talk    talk

	applying sync.Mutex
	applied  applied

	inbox chan []byte
	work  chan struct{} // something may have to be applied or told
	out   chan struct{} // something may have to be sent
}

// New opens what the board keeps of its twin. Damage and a disk that does not work are
// told to the fleet, and are no error: a board must come up without its twin.
func New(cfg Config) *Shadow {
	if cfg.Proof == 0 {
		cfg.Proof = Proof
	}
	s := &Shadow{
		cfg:   cfg,
		inbox: make(chan []byte, inboxSize), work: make(chan struct{}, 1), out: make(chan struct{}, 1),
	}
	if cfg.Disk == nil {
		cfg.Disk = kept.Folder{Dir: cfg.Dir, Limit: maxState}
	}
	now := cfg.Clock.Now()
	st, newest, damage := kept.Open(cfg.Disk, maxState, s.readable)
	old := &saved{}
	if s.kept = st; newest != nil {
		old, _ = unpack(newest) // was readable
	}
	s.open(old, now)
	next := s.st.clone(now)
	if damage != "" {
		cfg.Log.Error("what was kept of the twin is damaged", "err", damage)
		next.tell("", stateDamaged, schema.SeverityWarn, "of what this board kept of its twin "+damage+". What the fleet wants comes from it again")
	} else {
		next.well(stateDamaged, "what is kept of the twin can be read")
	}
	before := effective(next.board)
	if ran := s.ranSince(old, now); ran > 0 {
		next.board.Tick(ran)
	}
	if t := next.trial; t != nil {
		if !t.Stopped {
			t.Crashes++
		}
		if t.Stopped = false; t.Crashes >= maxCrashes {
			why := fmt.Sprintf("the board started anew %d times while it was on trial", t.Crashes)
			cfg.Log.Error("undoing what is on trial", "cause", why)
			next.undo(why)
		}
	}
	next.settle(before, Health{}, "")
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.commit(next, true)
	return s
}

func (s *Shadow) readable(state []byte) error {
	old, err := unpack(state)
	if err == nil {
		_, err = twin.NewBoard(s.boardConfig("b"), old.Twin)
	}
	return err
}

// open takes a saved state, or an empty one.
func (s *Shadow) open(old *saved, now schema.Time) {
	s.starts = old.Starts + 1
	s.instance = twin.InstanceOf('b', s.starts, rand.Uint32())
	b, err := twin.NewBoard(s.boardConfig(s.instance), old.Twin) // was opened before
	if err != nil {
		b, _ = twin.NewBoard(s.boardConfig(s.instance), nil)
	}
	s.counted = now.Mono
	b.Name(old.Tenant, old.Board)
	s.st = &state{
		board: b, tenant: old.Tenant, name: old.Board, trial: old.Trial,
		history: old.History, alarms: old.Alarms, outbox: old.Outbox,
	}
	if s.cfg.Board != "" {
		s.st = s.named(s.cfg.Tenant, s.cfg.Board, now)
	}
}

func (s *Shadow) boardConfig(instance string) twin.BoardConfig {
	return twin.BoardConfig{
		Tenant: s.cfg.Tenant, Board: s.cfg.Board, Instance: instance, Open: s.cfg.Open, Check: s.check,
		Policy: func(key string) twin.Policy { c := s.cfg.Base(); return c.Twin.Policy(key) },
	}
}

func (s *Shadow) check(key string, v twin.Value) error {
	if !settings.Configures(key) && !strings.HasPrefix(key, settings.Free) && s.cfg.Check != nil {
		return s.cfg.Check(key, v)
	}
	base := s.cfg.Base()
	return settings.Check(&base, key, v)
}

// ranSince is how long the board ran since a state was saved, as far as it is known: all
// of it within one boot, what this boot ran after another.
func (s *Shadow) ranSince(old *saved, now schema.Time) time.Duration {
	switch {
	case old.Boot == 0 || !s.cfg.BootKnown:
		return 0
	case old.Boot == now.Boot:
		return time.Duration(now.Mono - old.Mono)
	}
	return time.Duration(now.Mono)
}

// Name says whose twin it is, once the board has an identity. What was kept for another
// board is given up: it is signed for that one.
func (s *Shadow) Name(tenant, board string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.st.tenant == tenant && s.st.name == board {
		return
	}
	_ = s.commit(s.named(tenant, board, s.cfg.Clock.Now()), true)
	s.kick()
}

func (s *Shadow) named(tenant, board string, now schema.Time) *state {
	next := s.st.clone(now)
	if next.name != "" && (next.tenant != tenant || next.name != board) {
		s.cfg.Log.Warn("the twin that was kept is another board's", "was", next.tenant+"/"+next.name)
		was := next.board
		s.starts++
		s.instance = twin.InstanceOf('b', s.starts, rand.Uint32())
		next = &state{now: now}
		next.board, _ = twin.NewBoard(s.boardConfig(s.instance), nil) // only a saved state is an error
		_ = next.board.Report(was.Reported())                         // it fitted before
	}
	next.tenant, next.name = tenant, board
	next.board.Name(tenant, board)
	return next
}

// commit saves a change and puts it in place. What cannot be saved is not put in place,
// unless it must: then it is saved later. Under mu.
func (s *Shadow) commit(next *state, must bool) error {
	err := s.save(next)
	switch {
	case err != nil && !must:
		s.sick(s.st, err)
		return err
	case err != nil:
		s.sick(next, err)
	default:
		next.well(stateNotKept, "the disk takes the twin again")
	}
	if s.unsaved = err; next.restartsTrial {
		s.trials++
	}
	s.st = next
	return nil
}

// sick tells that the disk does not work. Under mu.
func (s *Shadow) sick(st *state, err error) {
	s.cfg.Log.Error("the twin is not kept on the disk", "err", err)
	st.tell("", stateNotKept, schema.SeverityAlarm, "the disk does not take the twin, what is set now is refused or is lost with the power: "+err.Error())
	s.savedAt = time.Now() // tried
	wake(s.work)
}

// save writes a state to the disk, if it is not what lies there. Under mu.
func (s *Shadow) save(next *state) error {
	tw, err := next.board.Save()
	if err != nil {
		return err
	}
	body := &saved{
		V: schema.Version, Starts: s.starts, Tenant: next.tenant, Board: next.name, Twin: tw, Trial: next.trial,
		History: next.history, Alarms: next.alarms, Outbox: next.outbox,
	}
	b, err := pack(body)
	if err != nil {
		return fmt.Errorf("save the twin: %w", err)
	}
	sum := sha256.Sum256(b)
	if sum == s.sum && s.unsaved == nil {
		return nil
	}
	body.Boot, body.Mono = s.cfg.Clock.Boot(), s.counted
	if b, err = pack(body); err != nil {
		return fmt.Errorf("save the twin: %w", err)
	}
	if err := s.kept.Save(b); err != nil {
		return fmt.Errorf("save the twin: %w", err)
	}
	s.sum, s.savedAt = sum, time.Now()
	return nil
}

// tick counts leases down by what the board ran since. Under mu.
func (s *Shadow) tick(h Health) {
	now := s.cfg.Clock.Now()
	ran := time.Duration(now.Mono - s.counted)
	if ran <= 0 {
		return
	}
	s.counted = now.Mono
	in, any := s.st.board.NextEnd()
	if any && ran < in {
		s.st.board.Tick(ran) // nothing ends: no write
		return
	}
	if !any {
		return
	}
	next := s.st.clone(now)
	before := effective(next.board)
	next.board.Tick(ran)
	next.settle(before, h, "")
	_ = s.commit(next, true) // a lease ends whatever the disk does
	s.kick()
}

// change makes a change of a copy, and puts it in place once it is saved.
func (s *Shadow) change(set string, f func(next *state) error) error {
	h := s.cfg.Health()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick(h)
	next := s.st.clone(s.cfg.Clock.Now())
	before := effective(next.board)
	if err := f(next); err != nil {
		return err
	}
	next.settle(before, h, set)
	if err := s.commit(next, false); err != nil {
		return err
	}
	s.kick()
	return nil
}

// kick wakes who applies and who sends.
func (s *Shadow) kick() {
	s.talk.dirty = true
	wake(s.work)
	wake(s.out)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Set sets a key on the board: see [twin.Board.Set]. It is kept when Set returns nil, and
// applied a moment later.
func (s *Shadow) Set(key string, e twin.Edit) error {
	return s.change(key, func(next *state) error {
		if err := next.board.Set(key, e); err != nil {
			return err
		}
		next.remember(Change{Kind: KindSet, Key: key, Author: e.Author, Reason: e.Reason, Value: e.Value})
		return nil
	})
}

// Clear takes back what was set on the board for a key, and tells whether there was
// anything.
func (s *Shadow) Clear(key, author string) (there bool, err error) {
	err = s.change("", func(next *state) error {
		if there = next.board.Clear(key); there {
			v, _ := next.board.Effective(key)
			next.remember(Change{Kind: KindCleared, Key: key, Author: author, Value: v})
		}
		return nil
	})
	return there, err
}

// Report says what the board is: see [twin.Board.Report]. It costs no write, and goes to
// the fleet with what else changes within a moment.
func (s *Shadow) Report(values map[string]twin.Value) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.st.board.Report(values); err != nil {
		return err
	}
	s.talk.dirty = true
	wake(s.out)
	return nil
}

// Rebase is told that the config of the board's file has changed: it puts what holds over
// the new one, and in force. What the old one could not be set to is looked at again.
func (s *Shadow) Rebase(ctx context.Context) {
	if err := s.change("", func(next *state) error { next.board.Recheck(); return nil }); err != nil {
		s.cfg.Log.Error("the twin is not kept on the disk", "err", err)
	}
	s.apply(ctx)
}

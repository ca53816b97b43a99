// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"context"
	"errors"
	"time"

	"fulmar/internal/run"
	"fulmar/schema"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// Run keeps the twin until the context ends.
func (s *Shadow) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("keep", s.keep)
	g.Go("send", s.send)
	return g.Wait(stopGrace)
}

// keep takes what the fleet says, applies what holds, counts leases and judges trials.
func (s *Shadow) keep(ctx context.Context) error {
	s.apply(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var w *watch
	var of uint64 // the trial that w watches
	for {
		select {
		case <-ctx.Done():
			s.stop()
			return nil
		case p := <-s.inbox:
			s.receive(p)
		case <-s.work:
			s.apply(ctx)
		case <-timer.C:
		}
		s.tellOutbox()
		s.beat()
		w, of = s.look(w, of)
		timer.Reset(s.rest())
	}
}

// rest is how long there is nothing to do if nothing happens.
func (s *Shadow) rest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := time.Hour // nothing depends on it
	if s.st.trial != nil {
		d = look
	}
	if in, any := s.st.board.NextEnd(); any {
		d = min(d, in, leaseSave)
	}
	if s.unsaved != nil {
		d = min(d, saveAgain)
	}
	return max(d, time.Millisecond)
}

// beat counts leases, and saves what is left of them or could not be saved before.
func (s *Shadow) beat() {
	h := s.cfg.Health()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick(h)
	_, leased := s.st.board.NextEnd()
	old := time.Since(s.savedAt)
	if !(s.unsaved != nil && old >= saveAgain) && !(leased && old >= leaseSave) {
		return
	}
	_ = s.commit(s.st.clone(s.cfg.Clock.Now()), true)
}

// look judges what is on trial.
func (s *Shadow) look(w *watch, of uint64) (*watch, uint64) {
	s.mu.Lock()
	t, n := s.st.trial, s.trials
	s.mu.Unlock()
	if t == nil {
		return nil, of
	}
	if w == nil || of != n {
		w, of = newWatch(s.cfg.Proof, time.Now()), n
	}
	v, why := w.judge(t, s.cfg.Health(), time.Now())
	if v == wait {
		return w, of
	}
	s.end(n, v, why)
	return nil, of
}

// end ends a trial, if no other has begun since.
func (s *Shadow) end(of uint64, v verdict, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trials != of || s.st.trial == nil {
		return
	}
	next := s.st.clone(s.cfg.Clock.Now())
	if v == good {
		next.passed()
	} else {
		s.cfg.Log.Error("what was set made the board unhealthy, and is undone", "cause", why)
		next.undo(why)
	}
	_ = s.commit(next, true) // what makes the board unhealthy goes whatever the disk does
	s.kick()
}

// stop marks an end in order, so that it does not count as a crash, and keeps what is left of leases.
func (s *Shadow) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick(Health{})
	next := s.st.clone(s.cfg.Clock.Now())
	if next.trial != nil {
		next.trial.Stopped = true
	}
	_ = s.commit(next, true)
}

// tellOutbox tells what is to be told. That it is told is saved with the next change.
func (s *Shadow) tellOutbox() {
	s.mu.Lock()
	out := s.st.outbox
	s.st.outbox = nil
	s.mu.Unlock()
	for _, r := range out {
		s.cfg.Tell(r)
	}
}

// receive takes a message of the fleet.
func (s *Shadow) receive(payload []byte) {
	var d wire.Down
	if err := schema.Decode(payload, &d); err != nil {
		s.cfg.Log.Warn("a message about the twin is not taken", "err", err)
		return
	}
	var answer *wire.Up
	err := s.change("", func(next *state) error {
		was, _ := next.board.Version()
		u, err := next.board.Receive(&d)
		if errors.Is(err, twin.ErrStale) {
			return err
		}
		answer = u
		if err != nil {
			s.cfg.Log.Warn("part of a message about the twin is not taken", "err", err)
		}
		version, _ := next.board.Version()
		switch {
		case errors.Is(err, twin.ErrForged):
			next.tell("", stateForged, schema.SeverityAlarm, err.Error()+"; the board stays with what it has")
		case version > was:
			next.well(stateForged, "the desired section is signed by a key that may")
			next.remember(Change{Kind: KindApplied, Version: version})
		}
		return nil
	})
	if errors.Is(err, twin.ErrStale) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil { // the disk: as if it had not come
		s.cfg.Log.Error("a message about the twin is not taken", "err", err)
		s.talk.again(saveAgain)
		wake(s.out)
		return
	}
	if answer != nil {
		s.talk.answers = append(s.talk.answers, answer)
		if len(s.talk.answers) > inboxSize { // the fleet talks faster than the link takes
			s.talk.again(0)
		}
		wake(s.out)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"sync"
	"time"

	"fulmar/link/internal/beside"
	"fulmar/link/internal/claims"
	"fulmar/link/internal/flights"
	"fulmar/link/internal/pace"
	"fulmar/link/internal/suspect"
	"fulmar/schema"
)

// State is where a session stands.
type State string

// The states of a session.
const (
	StateWaiting    State = "waiting"    // for the next try
	StateConnecting State = "connecting" // up to hello/ack
	StateUp         State = "up"         // records flow
	StateStopped    State = "stopped"
)

// Status is what a session tells of itself. Counts are since it was made.
type Status struct {
	State      State
	Since      time.Time
	Generation uint64 // connections tried
	Mode       schema.AckMode
	Published  uint64 // records, repeats included
	Acked      uint64 // records
	Resent     uint64 // records published again in a later generation
	Refused    uint64 // records that can never be sent, or not in this generation
	InFlight   int    // messages
	Suspects   int    // messages held back: the broker ends each connection that carries them
	FalseAcks  uint64 // words of the fleet that acknowledge records which were never sent; nothing is freed by them
	// Err says why the last generation ended. While up it is nil, or says what the
	// broker does not let through.
	Err error
}

// Up tells whether records flow.
func (s Status) Up() bool { return s.State == StateUp }

// Session keeps a board connected. Make one with [New].
type Session struct {
	cfg   Config
	out   Outbox
	blobs BlobOpener

	mu         sync.Mutex
	status     Status
	conn       uint64        // number of the connection, as told in hello and presence
	window     time.Duration // over which reconnects spread
	retryAfter time.Duration
	unsure     flights.Unsure
	suspects   suspect.Watch
	claims     claims.Book
	desk       beside.Desk              // what goes beside the records
	blocked    [schema.NumClasses]error // of a class nothing gets through, and why it is thought so
}

// New makes a session that sends what out holds. It touches no network.
func New(cfg Config, out Outbox, blobs BlobOpener) (*Session, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, out: out, blobs: blobs, window: cfg.ReconnectWindow}
	s.desk.Tenant, s.desk.Board, s.desk.Filters, s.desk.Log, s.desk.Report = cfg.Tenant, cfg.Board, cfg.Filters, cfg.Log, s.report
	if err := s.desk.Check(); err != nil {
		return nil, err
	}
	s.status = Status{State: StateWaiting, Since: time.Now()}
	if cfg.Mode != nil {
		s.status.Mode = *cfg.Mode
	}
	return s, nil
}

// Status tells where the session stands.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Suspects, st.FalseAcks = s.suspects.Held(), s.claims.False()
	return st
}

// Run keeps connecting until the context ends; it returns nil.
func (s *Session) Run(ctx context.Context) error {
	defer s.to(StateStopped, nil)
	for try := 0; ; try++ {
		s.mu.Lock()
		// What the fleet asks for comes on top of the jitter: boards that were all
		// told the same must not all come back at the same moment.
		wait := s.retryAfter + pace.Backoff(s.window, try, s.cfg.Jitter())
		s.retryAfter = 0
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		up, err := s.generation(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if up >= stableAfter {
			try = -1
		}
		s.to(StateWaiting, err)
		s.cfg.Log.Warn("link lost", "generation", s.Status().Generation, "up", up.Round(time.Millisecond), "err", err)
	}
}

// begin counts a generation and gives its connection a number. The number rises
// within a boot, also over restarts of this program, so that a stale last will is
// known as such: it is the boot's clock in nanoseconds, or one more than the last.
func (s *Session) begin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Generation++
	s.conn = max(s.conn+1, uint64(max(s.cfg.Clock.Now().Mono, 0)))
	return s.conn
}

func (s *Session) to(state State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == StateUp {
		err = errors.Join(s.blocked[:]...)
	}
	if s.status.State != state {
		s.status.State, s.status.Since = state, time.Now()
	}
	if err != nil || state == StateUp {
		s.status.Err = err
	}
	if state != StateUp {
		s.status.InFlight = 0
	}
}

// heard puts the fleet's answer to hello in force.
func (s *Session) heard(a *schema.HelloAck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Mode == nil {
		s.status.Mode = a.Mode
	}
	if w := pace.Millis(a.ReconnectMs, maxReconnectWindow); w > 0 {
		s.window = w
	}
	s.retryAfter = pace.Millis(a.RetryAfterMs, maxRetryAfter)
}

// published counts records that go out; those that went out before are repeats.
func (s *Session) published(f *flights.Flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Published += f.Records()
	s.status.Resent += s.unsure.Again(f)
}

func (s *Session) count(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

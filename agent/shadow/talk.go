// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"context"
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/twin/wire"
)

const (
	// joinFor is how long a change waits for others to go with it, and pause how long
	// after such a message the next goes: four in a second at the most.
	joinFor = 50 * time.Millisecond
	pause   = 250 * time.Millisecond
	// sendTimeout bounds one message: longer than the link takes to find itself dead in a
	// mobile network.
	sendTimeout = 30 * time.Second
	// sendAgain is how long after a message that did not go, on a connection that is up,
	// all is compared anew.
	sendAgain = 10 * time.Second
)

// talk is what is to be said to the fleet. Guarded by Shadow.mu.
type talk struct {
	ctx     context.Context // of the connection; nil: none yet
	conn    uint64
	hello   bool      // the digests are to be compared,
	helloAt time.Time // not before
	answers []*wire.Up
	dirty   bool      // something may have changed since the last message
	joining bool      // and waits for what changes with it,
	quietTo time.Time // until then
}

// again has the digests compared anew on this connection.
func (t *talk) again(in time.Duration) {
	t.hello, t.helloAt, t.answers = true, time.Now().Add(in), nil
}

// Connected begins a connection; ctx ends with it. It returns at once.
func (s *Shadow) Connected(ctx context.Context, conn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.talk = talk{ctx: ctx, conn: conn, hello: true}
	wake(s.out)
}

// Again compares the digests anew, where the fleet is connected: who learned new keys may
// take now what was not signed by the old ones.
func (s *Shadow) Again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.talk.again(0)
	wake(s.out)
}

// Down takes a message of the fleet, a twin/wire.Down. It does not block: what does not
// fit is asked for again.
func (s *Shadow) Down(payload []byte) {
	if len(payload) <= schema.MaxPayload {
		select {
		case s.inbox <- slices.Clone(payload):
			return
		default:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.talk.again(sendAgain)
	wake(s.out)
}

// next gives the next message, or how long there is none. Under mu.
func (s *Shadow) next(now time.Time) (*wire.Up, time.Duration) {
	t := &s.talk
	if t.ctx == nil || t.ctx.Err() != nil {
		return nil, time.Hour // Connected wakes
	}
	if t.hello {
		if in := t.helloAt.Sub(now); in > 0 {
			return nil, in
		}
		t.hello, t.answers, t.quietTo = false, nil, now.Add(pause)
		return s.st.board.Hello(t.conn), 0
	}
	if len(t.answers) > 0 {
		u := t.answers[0]
		t.answers = t.answers[1:]
		return u, 0
	}
	if !t.dirty {
		return nil, time.Hour // a change wakes
	}
	if in := t.quietTo.Sub(now); in > 0 {
		t.joining = true
		return nil, in
	}
	if !t.joining {
		t.joining, t.quietTo = true, now.Add(joinFor)
		return nil, joinFor
	}
	t.dirty, t.joining, t.quietTo = false, false, now.Add(pause)
	if u := s.st.board.Pending(); u != nil {
		return u, 0
	}
	return nil, time.Hour
}

// send says what is to be said, one message after the other.
func (s *Shadow) send(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		now := time.Now()
		u, in := s.next(now)
		link, conn := s.talk.ctx, s.talk.conn
		s.mu.Unlock()
		if u != nil {
			s.say(ctx, link, conn, u)
			continue
		}
		timer.Reset(in)
		select {
		case <-ctx.Done():
			return nil
		case <-s.out:
		case <-timer.C:
		}
	}
}

// say sends one message. One that does not go on a connection that stays up has the
// digests compared anew.
func (s *Shadow) say(ctx, link context.Context, conn uint64, u *wire.Up) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	defer context.AfterFunc(link, cancel)()
	payload, err := schema.Encode(u)
	if err == nil {
		err = s.cfg.Send(ctx, payload)
	}
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.talk.conn == conn && link.Err() == nil {
		s.cfg.Log.Warn("the twin is not told to the fleet, and will be", "err", fmt.Errorf("send: %w", err))
		s.talk.again(sendAgain)
	}
}

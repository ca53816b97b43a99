// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"

	"fulmar/command"
	"fulmar/schema"
)

const (
	// maxWatchers is how many may look on: people at the board.
	maxWatchers = 16
	// maxSeen is how many changes wait for one of them; who reads slower misses some.
	maxSeen = 64
)

// Connected is told of each connection to the fleet, and returns when it ends.
func (s *Service) Connected(ctx context.Context, _ uint64) {
	s.connect(ctx)
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up == ctx { // else there is a newer one already
		s.up = nil
	}
}

func (s *Service) connect(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = ctx
	close(s.changed)
	s.changed = make(chan struct{})
}

// connection gives the connection that is up, or nil, and what closes with the next one.
func (s *Service) connection() (up context.Context, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up, s.changed
}

// tell brings a report to the fleet. That of an end waits for a connection; how far a
// command is, is told now or not at all.
func (s *Service) tell(ctx context.Context, r command.Report) error {
	final := r.Result.State.Final()
	up, next := s.connection()
	for up == nil {
		if !final {
			return errors.New("the fleet cannot be reached")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
		up, next = s.connection()
	}
	if r.Command != nil { // it may have been given before the board had its name
		c := *r.Command
		c.Tenant, c.Board = s.cfg.Address()
		r.Command = &c
	}
	payload, err := schema.Encode(&r)
	if err != nil {
		s.cfg.Log.Error("the report of a command can never be told", "command", r.Result.ID.String(), "err", err)
		return nil // nor will it be better the next time
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	defer context.AfterFunc(up, cancel)()
	if err = s.cfg.Send(ctx, r.Result.ID.String(), payload); err == nil && final {
		s.told.Add(1)
	}
	return err
}

// Watch gives each change of a command as it happens, until the context ends; then, and at
// once where too many look on, the channel is closed.
func (s *Service) Watch(ctx context.Context) <-chan command.Report {
	c := make(chan command.Report, maxSeen)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watchers) >= maxWatchers {
		close(c)
		return c
	}
	s.watchers[c] = true
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, c)
		close(c)
	})
	return c
}

// saw tells those who look on.
func (s *Service) saw(r command.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.watchers {
		select {
		case c <- r:
		default:
		}
	}
}

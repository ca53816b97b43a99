// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"fmt"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/ingest"
)

// shutEvery is how often boards that were shut out are asked for, by whatever process
// shut them: a fifth of the five seconds in which a revocation has to take effect.
const shutEvery = time.Second

// Shutter is an [Admitter] that tells of boards of which a certificate stopped being
// good: revoked, removed, or enrolled anew. A mark below 0 asks for the newest mark.
type Shutter interface {
	Shut(ctx context.Context, mark int64) (boards []ca.Identity, next int64, err error)
}

// watcher gives what ends the sessions of boards that are shut out, until the context
// ends. Its first mark is taken here, before any board is let in.
//
// A board that comes in just now is not missed: mark moves before the sessions are
// looked at, and a session looks at mark after it is among them (OnConnectAuthenticate).
func (g *Gateway) watcher(ctx context.Context) (func(), error) {
	reg, ok := g.admit.(Shutter)
	if !ok {
		return func() { <-ctx.Done() }, nil
	}
	_, mark, err := reg.Shut(ctx, -1)
	if err != nil {
		return nil, err
	}
	g.mark.Store(mark)
	return func() {
		t := time.NewTicker(shutEvery)
		defer t.Stop()
		var again []ca.Identity // the registry could not be asked about them
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			boards, next, err := reg.Shut(ctx, mark)
			if err != nil {
				g.warn(ingest.BoardKey{}, "revocations not read: "+err.Error())
				continue
			}
			mark = next
			g.mark.Store(mark)
			boards, again = append(boards, again...), nil
			for _, b := range boards {
				if !g.recheck(ctx, ingest.BoardKey{Tenant: b.Tenant, Board: b.Board}) {
					again = append(again, b)
				}
			}
		}
	}, nil
}

// recheck ends the session of a board if its certificate is good no longer; false where
// that could not be told.
func (g *Gateway) recheck(ctx context.Context, key ingest.BoardKey) bool {
	g.mu.Lock()
	s := g.sessions[key]
	g.mu.Unlock()
	if s == nil {
		return true
	}
	ok, err := g.admit.Admit(ctx, s.id)
	if err != nil {
		g.warn(key, "board not looked up: "+err.Error())
		return false
	}
	if !ok {
		g.n.shut.Add(1)
		g.log.Warn("connection ended: the certificate is good no longer", "tenant", key.Tenant, "board", key.Board)
		cutOff(s.client)
	}
	return true
}

// Drop ends the connections of a board that was shut out, and returns when nothing of
// them is left to be stored.
func (g *Gateway) Drop(ctx context.Context, key ingest.BoardKey) error {
	for {
		var open []*session
		g.mu.Lock()
		for _, s := range g.conns {
			if s.key == key {
				open = append(open, s)
			}
		}
		g.mu.Unlock()
		if len(open) == 0 {
			return nil
		}
		for _, s := range open {
			cutOff(s.client)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end connections of board %s: %w", key.Board, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

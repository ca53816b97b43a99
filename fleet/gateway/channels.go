// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"fulmar/command"
	"fulmar/fleet/ingest"
	"fulmar/schema"
	"fulmar/twin/wire"
)

var (
	// ErrAway: the board is not connected here, or has not said hello yet.
	ErrAway = errors.New("the board is not connected")
	// ErrBusy: the board is connected and has not taken what it was sent before. It is to
	// be tried again later.
	ErrBusy = errors.New("the board has not taken what it was sent before")
)

// keepRoom is how many of a board's maxInflight messages stay free for the fleet's own
// words: answers to hello, keys, assignments. Commands and settings beyond it wait.
const keepRoom = 16

// Twins takes boards' words on their twins. Up returns once what it says is stored, with
// the answer or nil where there is none: an error closes the connection without PUBACK,
// and the board says it again. The answer is sent after the PUBACK. Words of one
// connection come one after another, and u.Conn is that of the connection.
type Twins interface {
	Up(ctx context.Context, tenant, board string, u wire.Up) (*wire.Down, error)
}

// Commands takes results of commands.
type Commands interface {
	// Report returns once the result is stored: an error closes the connection without
	// PUBACK, and the board says it again.
	Report(ctx context.Context, tenant, board string, r command.Report) error
	// Hello is told that a board is there, after its hello was answered. It may take its
	// time, but the other boards' turns come after it.
	Hello(tenant, board string)
}

// Keys gives the key sets of boards, see trust.KeySet.
type Keys interface {
	// KeySet gives the one in force.
	KeySet() (version uint64, envelope []byte)
	// After gives those that lead a board from the version it has (0: none) to the one in
	// force, or nearer to it, in their order.
	After(version uint64) (envelopes [][]byte)
}

// twinSaid takes a message on schema.ChanTwinUp.
func (h *hook) twinSaid(ctx context.Context, s *session, pk packets.Packet) error {
	if h.g.cfg.Twins == nil {
		return nil
	}
	var up wire.Up
	if err := schema.Decode(pk.Payload, &up); err != nil || !s.spoke.Load() || up.Conn != s.conn.Load() {
		return h.bad(ctx, s, pk)
	}
	down, err := h.g.cfg.Twins.Up(ctx, s.key.Tenant, s.key.Board, up)
	if err == nil {
		s.reply = down
	}
	return err
}

// OnPublished sends the answer to what was acknowledged just now.
func (h *hook) OnPublished(cl *mqtt.Client, _ packets.Packet) {
	if cl.Net.Inline {
		return
	}
	s := h.of(cl)
	if s == nil || s.reply == nil {
		return
	}
	down := s.reply
	s.reply = nil
	// Nothing is lost with an answer that does not get through: the heads of the next
	// word differ then.
	if err := h.g.SendTwin(s.key.Tenant, s.key.Board, down); err != nil && !errors.Is(err, ErrAway) {
		h.g.warn(s.key, "word on the twin not answered: "+err.Error())
	}
}

// resulted takes a message on schema.ChanResult.
func (h *hook) resulted(ctx context.Context, s *session, t schema.Topic, pk packets.Packet) error {
	if h.g.cfg.Commands == nil {
		return nil
	}
	var r command.Report
	if err := schema.Decode(pk.Payload, &r); err != nil || r.Result.ID.String() != t.Tail {
		return h.bad(ctx, s, pk)
	}
	return h.g.cfg.Commands.Report(ctx, s.key.Tenant, s.key.Board, r)
}

// SendTwin sends a word on its twin to a board. [ErrAway] where it is not connected here,
// or the word is of another connection than the present one; [ErrBusy] where too much
// waits for it.
func (g *Gateway) SendTwin(tenant, board string, d *wire.Down) error {
	s, err := g.there(tenant, board)
	if err != nil {
		return err
	}
	if d.Conn != s.conn.Load() {
		return fmt.Errorf("send board %s a word on its twin of connection %d: %w by that one", board, d.Conn, ErrAway)
	}
	b, err := schema.Encode(d)
	if err != nil {
		return fmt.Errorf("send board %s a word on its twin: %w", board, err)
	}
	return g.send(schema.Topic{Tenant: tenant, Board: board, Channel: schema.ChanTwinDown}, b)
}

// SendCommand sends a board the envelope of a command with this id, in hex. Nil says
// that it is on its way, not that it arrived. [ErrAway] where the board is not connected
// here; [ErrBusy] where too much waits for it.
func (g *Gateway) SendCommand(tenant, board, id string, envelope []byte) error {
	if _, err := command.ParseID(id); err != nil {
		return fmt.Errorf("send board %s a command: %w", board, err)
	}
	if _, err := g.there(tenant, board); err != nil {
		return err
	}
	return g.send(schema.Topic{Tenant: tenant, Board: board, Channel: schema.ChanCommand, Tail: id}, envelope)
}

// there gives the session of a board that can be sent to.
func (g *Gateway) there(tenant, board string) (*session, error) {
	g.mu.Lock()
	s := g.sessions[ingest.BoardKey{Tenant: tenant, Board: board}]
	g.mu.Unlock()
	if s == nil || !s.spoke.Load() {
		return nil, fmt.Errorf("board %s: %w", board, ErrAway)
	}
	// The broker drops what is beyond its bounds and says so to nobody.
	if s.client.State.Inflight.Len() >= maxInflight-keepRoom {
		return nil, fmt.Errorf("board %s: %w", board, ErrBusy)
	}
	return s, nil
}

// send publishes to a board.
func (g *Gateway) send(t schema.Topic, payload []byte) error {
	if len(payload) == 0 || len(payload) > schema.MaxPayload {
		return fmt.Errorf("send %d bytes on %s, wants 1 to %d", len(payload), t, schema.MaxPayload)
	}
	return g.server.Publish(t.String(), payload, false, 1)
}

// sendKeys sends key sets to a board that goes by an older one, or by none.
func (g *Gateway) sendKeys(key ingest.BoardKey, has uint64) {
	if g.cfg.Keys == nil {
		return
	}
	if version, _ := g.cfg.Keys.KeySet(); has > version {
		g.warn(key, fmt.Sprintf("board goes by key set %d, this server has %d: was it restored from an older backup? "+
			"the board takes nothing that is signed with a dropped key; install the newer set (fulmar-fleet keys install)", has, version))
		return
	} else if has == version {
		return
	}
	for _, envelope := range g.cfg.Keys.After(has) {
		if err := g.send(schema.Topic{Tenant: key.Tenant, Board: key.Board, Channel: schema.ChanKeys}, envelope); err != nil {
			g.warn(key, "key set not sent: "+err.Error())
			return
		}
	}
}

// arrivals are the boards that came and of which [Commands] has not been told. A board
// is there once, so they are no more than there are boards.
type arrivals struct {
	mu     sync.Mutex
	boards map[ingest.BoardKey]bool
	more   chan struct{}
}

func newArrivals() *arrivals {
	return &arrivals{boards: map[ingest.BoardKey]bool{}, more: make(chan struct{}, 1)}
}

func (a *arrivals) add(key ingest.BoardKey) {
	a.mu.Lock()
	a.boards[key] = true
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// next takes one of them.
func (a *arrivals) next() (key ingest.BoardKey, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key = range a.boards {
		delete(a.boards, key)
		return key, true
	}
	return key, false
}

// tellArrivals tells Commands of boards that came, until the context ends.
func (g *Gateway) tellArrivals(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.came.more:
		}
		for key, ok := g.came.next(); ok && ctx.Err() == nil; key, ok = g.came.next() {
			g.cfg.Commands.Hello(key.Tenant, key.Board)
		}
	}
}

// arrivalsGrace bounds the wait for a Commands.Hello under way at the end.
const arrivalsGrace = 3 * time.Second

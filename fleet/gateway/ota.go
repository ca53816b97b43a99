// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"

	"fulmar/fleet/gateway/pieces"
	"fulmar/schema"
	"fulmar/schema/ota"
)

// Updater takes boards' words on their updates. It returns once the word is stored: an
// error closes the connection without PUBACK, and the board says it again.
type Updater interface {
	Report(ctx context.Context, tenant, board string, s ota.State) error
}

// updated takes a message on schema.ChanOTAState.
func (h *hook) updated(ctx context.Context, s *session, pk packets.Packet) error {
	if h.g.cfg.Updates == nil {
		return nil // a board that was told nothing has nothing to say
	}
	var state ota.State
	if err := schema.Decode(pk.Payload, &state); err != nil {
		return h.bad(ctx, s, pk)
	}
	return h.g.cfg.Updates.Report(ctx, s.key.Tenant, s.key.Board, state)
}

// Pieces is how objects go to boards.
func (g *Gateway) Pieces() *pieces.Hall { return g.pieces }

// wanted takes a message on schema.ChanWant.
func (h *hook) wanted(ctx context.Context, s *session, pk packets.Packet) error {
	w := new(ota.Want)
	if err := schema.Decode(pk.Payload, w); err != nil {
		return h.bad(ctx, s, pk)
	}
	if h.g.cfg.Objects != nil {
		h.g.cfg.Objects.Want(s.key.Tenant, s.key.Board, w)
	}
	return nil
}

// TellOTA sends a board a word on schema.ChanPiece that is no piece. [ErrAway] where it is
// not connected here; [ErrBusy] where too much waits for it.
func (g *Gateway) TellOTA(tenant, board string, d *ota.Down) error {
	if _, err := g.there(tenant, board); err != nil {
		return err
	}
	b, err := schema.Encode(d)
	if err != nil {
		return fmt.Errorf("tell board %s: %w", board, err)
	}
	return g.send(schema.Topic{Tenant: tenant, Board: board, Channel: schema.ChanPiece}, b)
}

// Assign tells a board what it shall run: an encoded ota.Assignment. A board that is
// not connected hears nothing; whoever assigns says it again.
func (g *Gateway) Assign(tenant, board string, payload []byte) error {
	return g.server.Publish(schema.Topic{Tenant: tenant, Board: board, Channel: schema.ChanAssign}.String(), payload, false, 1)
}

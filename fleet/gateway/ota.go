// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"

	"github.com/mochi-mqtt/server/v2/packets"

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

// Assign tells a board what it shall run: an encoded ota.Assignment. A board that is
// not connected hears nothing; whoever assigns says it again.
func (g *Gateway) Assign(tenant, board string, payload []byte) error {
	return g.server.Publish(schema.Topic{Tenant: tenant, Board: board, Channel: schema.ChanAssign}.String(), payload, false, 1)
}

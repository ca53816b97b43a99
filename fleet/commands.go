// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"

	"fulmar/fleet/commands"
	"fulmar/fleet/gateway"
	"fulmar/fleet/joins"
	"fulmar/fleet/web"
)

// newCommands joins the commands to the registry, the look at the fleet, the key that
// signs them and the gateway, which may be made later.
func (s *Server) newCommands(look func(ctx context.Context, tenant string) (*web.Overview, error)) (*commands.Commands, error) {
	return commands.New(context.Background(), commands.Config{
		Rows: s.reg.Commands(), Sign: s.keys.SignCommand, Courier: commandCourier{s}, Fleet: joins.CommandBoards{Look: look, Told: (&joins.Kept{Ask: s.shadow.Commands}).Get}, Approve: s.cfg.Commands.Approve, Log: s.log,
	})
}

// commandCourier sends through the gateway.
type commandCourier struct{ s *Server }

// SendCommand implements [commands.Courier].
func (c commandCourier) SendCommand(tenant, board, id string, envelope []byte) error {
	err := c.s.gate.SendCommand(tenant, board, id, envelope)
	if errors.Is(err, gateway.ErrAway) {
		return fmt.Errorf("%w: %w", commands.ErrAway, err)
	}
	return err
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"

	"fulmar/fleet/commands"
	"fulmar/fleet/joins"
	"fulmar/fleet/web"
)

// newCommands joins the commands to the registry, the look at the fleet, the key that
// signs them and the gateway, which may be made later.
func (s *Server) newCommands(look func(ctx context.Context, tenant string) (*web.Overview, error)) (*commands.Commands, error) {
	return commands.New(context.Background(), commands.Config{
		Rows: s.reg.Commands(), Sign: s.signCommand, Courier: commandCourier{s}, Fleet: joins.CommandBoards{Look: look}, Approve: s.cfg.Commands.Approve, Log: s.log,
	})
}

// errNoKey: this server has no key that boards know for commands.
var errNoKey = errors.New("this server has no key for commands yet")

// signCommand signs what a board is told.
func (s *Server) signCommand([]byte) ([]byte, error) { return nil, errNoKey }

// commandCourier sends through the gateway.
type commandCourier struct{ s *Server }

// SendCommand implements [commands.Courier].
func (c commandCourier) SendCommand(string, string, string, []byte) error { return commands.ErrAway }

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"fulmar/fleet/commands"
	"fulmar/fleet/gateway"
	"fulmar/fleet/joins"
	"fulmar/fleet/web"
)

// CommandsConfig says what commands to boards want.
type CommandsConfig struct {
	// Approve lists the names of commands that a second person has to agree to.
	Approve []string `yaml:"approve"`
}

// maxApprove bounds the names that want a second person.
const maxApprove = 100

func (c *CommandsConfig) validate() error {
	if len(c.Approve) > maxApprove {
		return fmt.Errorf("commands.approve: %d names, at most %d", len(c.Approve), maxApprove)
	}
	form := regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
	for _, n := range c.Approve {
		if !form.MatchString(n) {
			return fmt.Errorf("commands.approve: %.70q is no name of a command: a letter, then up to 63 of a-z 0-9 -", n)
		}
	}
	return nil
}

// newCommands joins the commands to the registry, the look at the fleet, the key that
// signs them and the gateway, which may be made later.
func (s *Server) newCommands(look func(ctx context.Context, tenant string) (*web.Overview, error)) (*commands.Commands, error) {
	return commands.New(context.Background(), commands.Config{
		Rows: s.reg.Commands(), Sign: s.keys.SignCommand, Courier: commandCourier{s}, Fleet: joins.CommandBoards{Look: look}, Approve: s.cfg.Commands.Approve, Log: s.log,
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

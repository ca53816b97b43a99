// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"

	"fulmar/fleet/gateway"
	"fulmar/fleet/twins"
	"fulmar/twin/wire"
)

// newTwins joins the twins to the registry, the keys and the gateway, which may be made
// later.
func (s *Server) newTwins() *twins.Twins {
	return twins.New(twins.Config{
		Rows: s.reg.Twins(), Sign: s.keys.SignTwin, Open: s.keys.OpenTwin, Takes: s.keys.Takes, Courier: courier{s}, Log: s.log,
	})
}

// SendTwin implements [twins.Courier].
func (c courier) SendTwin(tenant, board string, d *wire.Down) error {
	err := c.s.gate.SendTwin(tenant, board, d)
	if errors.Is(err, gateway.ErrAway) {
		return fmt.Errorf("%w: %w", twins.ErrAway, err)
	}
	return err
}

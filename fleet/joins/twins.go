// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"errors"
	"fmt"

	"fulmar/fleet/gateway"
	"fulmar/fleet/keyring"
	"fulmar/fleet/registry/twinrows"
	"fulmar/fleet/twins"
	"fulmar/twin/wire"
)

// TwinCourier sends words on twins through a gateway, which may be made later.
type TwinCourier func() *gateway.Gateway

// SendTwin implements [twins.Courier].
func (g TwinCourier) SendTwin(tenant, board string, d *wire.Down) error {
	err := g().SendTwin(tenant, board, d)
	if errors.Is(err, gateway.ErrAway) {
		return fmt.Errorf("%w: %w", twins.ErrAway, err)
	}
	return err
}

// Twins makes the config of twins that the keyring signs.
func Twins(rows *twinrows.Table, keys *keyring.Keyring, courier TwinCourier) twins.Config {
	return twins.Config{Rows: rows, Sign: keys.SignTwin, Open: keys.OpenTwin, Takes: keys.Takes, Courier: courier}
}

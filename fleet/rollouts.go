// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"

	"fulmar/fleet/gateway"
	"fulmar/fleet/joins"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/store"
	"fulmar/fleet/updates"
)

// wireUpdates joins releases and rollouts to the registry, the look at the fleet and the
// gateway, which is made later.
func (s *Server) wireUpdates(src *store.Store) (err error) {
	s.updates, err = updates.New(context.Background(), updates.Config{
		Data: s.cfg.Data, Bytes: s.cfg.Keep.ReleasesMiB << 20, Registry: s.reg, Keys: s.keys, Proofs: s.proofs, Look: src.Overview, Log: s.log, Maker: s.cfg.Patches,
		Rollouts: func() *runner.Rollouts { return s.rolls }, Gate: func() *gateway.Gateway { return s.gate },
		Rates: s.cfg.Updates,
	})
	if err != nil {
		return err
	}
	s.rolls = runner.New(runner.Config{
		Fleet: joins.Look(src.Overview), Courier: s.updates, Releases: s.updates, Prover: s.updates, Metrics: joins.Metrics{DB: s.series}, Log: s.log,
		Changed: func(string, string) { s.alerts.Wake() }, // what was told waits for the webhooks
	}, book.New(s.reg.Rollouts(), joins.TellRollouts(s.pageURL())))
	return nil
}

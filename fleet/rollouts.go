// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"

	"fulmar/fleet/joins"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/web"
)

// newRollouts joins the rollouts to the registry, the look at the fleet and the gateway,
// which may be made later.
func (s *Server) newRollouts(look func(ctx context.Context, tenant string) (*web.Overview, error), metrics runner.Metrics) *runner.Rollouts {
	return runner.New(runner.Config{
		Fleet: joins.Look(look), Courier: courier{s}, Metrics: metrics, Log: s.log,
		Changed: func(string, string) { s.alerts.Wake() }, // what was told waits for the webhooks
	}, book.New(s.reg.Rollouts(), joins.TellRollouts(s.pageURL())))
}

// courier sends through the gateway.
type courier struct{ s *Server }

// Assign implements [runner.Courier].
func (c courier) Assign(tenant, board string, payload []byte) error {
	return c.s.gate.Assign(tenant, board, payload)
}

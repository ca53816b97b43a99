// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net/http"

	"fulmar/fleet/entrance"

	"fulmar/fleet/api"
	"fulmar/fleet/api/parts"
	"fulmar/fleet/joins"
	"fulmar/fleet/store"
)

// wireAPI makes the API of the parts and puts it where it belongs.
func (s *Server) wireAPI(mux *http.ServeMux, src *store.Store, who entrance.Auth, hub *api.Hub) error {
	h, err := api.New(api.Config{
		Caller: who.Caller, Source: src, Hub: hub, Log: s.log,
		Parse: joins.Parse, Known: joins.Known(), Fault: joins.Fault,
		Parts:      parts.Parts{Metas: joins.Metas{Metas: s.reg.Meta(), Stale: src.Stale}, Rollouts: s.rolls, Accounts: s.reg.Accounts(), Audit: s.book, Alerts: s.alerts, Hooks: s.alerts, Joins: s.joinTokens(), Twins: s.shadow, Commands: joins.Commands{Commands: s.orders}, Releases: s.updates.Releases},
		Prometheus: s.series.Handler(), Targets: joins.Look(src.Overview).Targets(), Within: joins.Within,
		Keys: s.reg.Requests(), Check: src.Check, Keeper: keeper{s.reg, s, src},
	})
	if err != nil {
		return fmt.Errorf("make the API: %w", err)
	}
	mux.Handle("/api/", h)
	return nil
}

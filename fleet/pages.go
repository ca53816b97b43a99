// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"slices"

	"fulmar/fleet/audit"
	"fulmar/fleet/joins"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/fleet/web/auditlog"
	"fulmar/fleet/web/control"
	"fulmar/fleet/web/releases"
	"fulmar/fleet/web/rollouts"
	"fulmar/fleet/web/settings"
	"fulmar/fleet/web/views"
)

// pages puts the views of the page together, in the order of its bar.
func (s *Server) pages(src *store.Store) []web.Page {
	said := joins.PageMetas{Metas: joins.Metas{Metas: s.reg.Meta(), Stale: src.Stale}}
	count := joins.Look(src.Overview).Count
	return slices.Concat(
		views.Pages(views.Config{
			JoinPage: "/settings/boards", Source: src, Keeper: decider{s.reg, src.Stale}, Saved: said, Metas: said, Control: true, Log: s.log,
		}),
		control.Pages(control.Config{
			Commands: joins.PageCommands{Commands: s.orders}, Twins: joins.PageTwins{Twins: s.shadow, Look: src.Overview}, Count: count, Problem: joins.Explain,
		}),
		rollouts.Pages(rollouts.Config{Rollouts: s.rolls, Count: count, Releases: s.updates.Releases.List, Problem: joins.Explain}),
		releases.Pages(releases.Config{Releases: s.updates.Releases, Problem: joins.Explain}),
		auditlog.Pages(auditlog.Config{
			Log: s.book, Command: auditlog.Command, Broken: func(err error) bool { return errors.Is(err, audit.ErrBroken) },
		}),
		settings.Pages(settings.Config{
			Alerts: s.alerts, Hooks: s.alerts, Accounts: s.reg.Accounts(), Logins: s.reg.Accounts(), SecondFactor: "/second-factor",
			Here: func(who web.Session) string { return who.ID }, Joins: s.joinTokens(), Count: count, Problem: joins.Explain,
		}),
	)
}

// joinTokens are the join tokens for the API and the page.
func (s *Server) joinTokens() joins.JoinTokens {
	return joins.JoinTokens{Registry: s.reg, Hash: s.ca.Hash(), Address: func() (string, error) { return Address(s.cfg.Data) }}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"slices"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/joins"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/fleet/web/auditlog"
	"fulmar/fleet/web/rollouts"
	"fulmar/fleet/web/settings"
	"fulmar/fleet/web/views"
	"fulmar/internal/jointoken"
	"fulmar/schema/rest"
)

// pages puts the views of the page together, in the order of its bar.
func (s *Server) pages(src *store.Store) []web.Page {
	said := joins.PageMetas{Metas: joins.Metas{Metas: s.reg.Meta(), Stale: src.Stale}}
	count := joins.Look(src.Overview).Count
	return slices.Concat(
		views.Pages(views.Config{
			JoinPage: "/settings/boards", Source: src, Keeper: decider{s.reg, src.Stale}, Saved: said, Metas: said, Log: s.log,
		}),
		rollouts.Pages(rollouts.Config{Rollouts: s.rolls, Count: count, Problem: joins.Explain}),
		auditlog.Pages(auditlog.Config{
			Log: s.book, Command: auditlog.Command, Broken: func(err error) bool { return errors.Is(err, audit.ErrBroken) },
		}),
		settings.Pages(settings.Config{
			Alerts: s.alerts, Hooks: s.alerts, Accounts: s.reg.Accounts(), Logins: s.reg.Accounts(), SecondFactor: "/second-factor", Here: func(who web.Session) string { return who.ID }, Join: s.join, Count: count, Problem: joins.Explain,
		}),
	)
}

// join makes a token with which boards join, and gives the command for the board. The
// token stands on the page this once, and on no command line of the server.
func (s *Server) join(ctx context.Context, by access.Caller, board string, boards int, life time.Duration) (command string, err error) {
	if err := by.May(rest.BoardsAdmit); err != nil {
		return "", err
	}
	address, err := Address(s.cfg.Data)
	if err != nil {
		return "", err
	}
	secret, err := s.reg.NewJoinTokenBy(ctx, by.Who, by.Tenant, board, boards, life)
	if err != nil {
		return "", err
	}
	return "sudo fulmar enrol " + jointoken.Token{Secret: secret, CAHash: s.ca.Hash(), Address: address}.String(), nil
}

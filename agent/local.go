// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"fulmar/agent/local"
	"fulmar/schema"
	"fulmar/schema/onboard"
)

// serveLocal lets people at the board see it and change it (fulmar local).
func (a *Agent) serveLocal(ctx context.Context) error {
	cfg := a.config()
	err := local.New(local.Config{
		Path: cfg.LocalSocket(),
		Access: func() local.Access {
			cfg := a.config()
			return local.Access{Operators: cfg.Local.Operators, Viewers: cfg.Local.Viewers}
		},
		Name: a.address, State: a,
		Commands: func() local.Commands { return a.commands },
		Twin:     func() local.Twin { return nil },
		Log:      a.log.With("part", "local"),
	}).Run(ctx)
	if err != nil {
		// As with the status: it must not take the board down.
		a.log.Error("people at the board are not heard", "err", err)
		a.say("local", "refused", schema.SeverityWarn, "fulmar local does not reach this board: "+err.Error())
	}
	return nil
}

// State tells a person at the board how it is.
func (a *Agent) State(context.Context) onboard.State {
	h := a.Health()
	s := onboard.State{
		Release: a.opt.Release, At: time.UnixMilli(a.clock.Now().Wall).UTC(), Link: onboard.Link{State: h.Link}, Causes: h.Causes,
		Outputs: []onboard.Output{}, Rules: []onboard.Rule{},
	}
	if l := a.link.Load(); l != nil {
		if since := l.Status().Since; !since.IsZero() {
			s.Link.For = int64(time.Since(since) / time.Second)
		}
	}
	if s.Tenant, s.Board = a.address(); s.Board == "" {
		s.Board = a.config().Board
	}
	return s
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/control"
	"fulmar/agent/shadow"
	"fulmar/schema"
	"fulmar/schema/onboard"
)

// openControl opens what can be told to the board, which touches no network.
func (a *Agent) openControl() (*control.Control, error) {
	return control.Open(control.Config{
		Config: a.config, Base: a.fileConfig, Clock: a.clock, BootKnown: a.bootKnown, Release: a.opt.Release, Program: a.opt.Program,
		Apply: a.apply, Health: a.twinHealth, Worker: &a.errands, Plant: a.plant, Latest: a.latest, UserCommands: config.UserCommandDir(a.opt.ConfigPath), Stop: a.stopFor, Diagnose: a.diagnose, Keep: a.keepFile,
		Tell: a.tellTwin, Updates: a.updates, Say: a.say, Name: a.name, State: a.state, Log: a.log,
	})
}

// fileConfig is the config of the file, without what the twin puts over it.
func (a *Agent) fileConfig() config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.base
}

// tellTwin keeps a report about the twin for the fleet. It does not go by [Agent.say]:
// there may be as many subjects as keys, and each is told once already.
func (a *Agent) tellTwin(r schema.Report) {
	a.append(schema.ClassAlarm, &schema.Record{Kind: schema.KindReport, Time: a.clock.Now(), Report: &r})
}

// twinHealth is how the board is, for a change of the twin that is on trial.
func (a *Agent) twinHealth() shadow.Health {
	cfg := a.config()
	h := shadow.Health{Ticks: a.scheduler.Stats().Ticks, Every: cfg.Sample.TickEvery()}
	for _, c := range a.Health().Causes {
		// That the network is gone is no fault of a setting: none of them reaches it.
		if !strings.HasPrefix(c, "link:") && !strings.HasPrefix(c, "identity:") {
			h.Causes = append(h.Causes, c)
		}
	}
	return h
}

// name tells who the board is to its fleet or its broker; "" before that is known.
func (a *Agent) name() (tenant, board string) {
	if id := a.identity.Load(); id != nil {
		return id.Tenant, id.Board
	}
	if cfg := a.config(); cfg.Broker.Address != "" {
		return cfg.Broker.Tenant, cfg.Board
	}
	return "", ""
}

// state tells a person at the board how it is, but for what can be told to it.
func (a *Agent) state() onboard.State {
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
	if s.Tenant, s.Board = a.name(); s.Board == "" {
		s.Board = a.config().Board
	}
	return s
}

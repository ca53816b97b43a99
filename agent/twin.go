// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"fulmar/agent/config"
	"fulmar/agent/shadow"
	"fulmar/schema"
	"fulmar/twin"
)

// sendsBeside is the link, as far as it carries what goes beside the records.
type sendsBeside interface {
	Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error
}

// openShadow opens the board's side of its twin, which touches no network.
func (a *Agent) openShadow() {
	a.shadow = shadow.New(shadow.Config{
		Dir: filepath.Join(a.cfg.Data, "twin"), Clock: a.clock, BootKnown: a.bootKnown,
		Open: a.openTwin, Base: a.fileConfig, Health: a.twinHealth, Send: a.sendTwin, Tell: a.tellTwin,
		Apply: func(_ context.Context, c *config.Config, _ map[string]twin.Value) error { return a.apply(c) },
		Log:   a.log.With("part", "twin"),
	})
}

// fileConfig is the config of the file, without what the twin puts over it.
func (a *Agent) fileConfig() config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.base
}

// openTwin takes nothing of the fleet: the board does not know the keys that may sign.
func (a *Agent) openTwin([]byte) ([]byte, error) {
	return nil, errors.New("this board knows no keys of its fleet that may sign")
}

func (a *Agent) sendTwin(ctx context.Context, payload []byte) error {
	s := a.link.Load()
	if s == nil {
		return errors.New("the link is not up yet")
	}
	l, ok := any(s).(sendsBeside)
	if !ok {
		return errors.New("the link carries records alone")
	}
	return l.Send(ctx, schema.ChanTwinUp, "", payload)
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
		// That the network is gone is no fault of a setting, unless it stays so: Link.
		if !strings.HasPrefix(c, "link:") && !strings.HasPrefix(c, "identity:") {
			h.Causes = append(h.Causes, c)
		}
	}
	if s := a.link.Load(); s != nil {
		h.Link = s.Status().Up()
	}
	return h
}

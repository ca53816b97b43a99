// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"

	"fulmar/agent/config"
	"fulmar/device/output"
	"fulmar/device/schedule"
	"fulmar/internal/run"
	"fulmar/schema"
)

// outputs are what the board moves, and what of them is news. nil where it moves nothing.
type outputs struct {
	bank   *output.Bank
	latest *schedule.Latest // what interlocks look at
	news   chan struct{}    // cap 1
}

// openOutputs opens the outputs of the config and touches none.
func (a *Agent) openOutputs(cfg *config.Config) error {
	if len(cfg.Outputs) == 0 {
		return nil
	}
	o := &outputs{latest: schedule.NewLatest(a.clock), news: make(chan struct{}, 1)}
	var err error
	o.bank, err = output.Open(cfg.Outputs, output.Deps{
		Dir: cfg.Data, Values: o.latest, Clock: a.clock, Log: a.log.With("part", "output"), Program: a.opt.Program,
		Changed: func() {
			select {
			case o.news <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("open outputs: %w", err)
	}
	a.outputs = o
	return nil
}

// latestReadings are where the sampler puts its newest readings; nil where nobody asks.
func (a *Agent) latestReadings() *schedule.Latest {
	if a.outputs == nil {
		return nil
	}
	return a.outputs.latest
}

// runOutputs drives the outputs until the context ends and tells the fleet of them.
func (a *Agent) runOutputs(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("bank", a.outputs.bank.Run)
	g.Go("news", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-a.outputs.news:
				a.sayOutputs()
			}
		}
	})
	err := g.Wait(stopGrace)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// sayOutputs tells what has changed of the safety state and of outputs that fail.
func (a *Agent) sayOutputs() {
	if active, _, by := a.outputs.bank.Safe(); active {
		a.say("safety", "active", schema.SeverityAlarm, "safety shutdown: "+by+"; outputs are at their safe values until a person releases it")
	} else {
		a.say("safety", "released", schema.SeverityInfo, "no safety shutdown is latched")
	}
	for _, s := range a.outputs.bank.States() {
		switch s.State {
		case output.StateFailed:
			a.say("output/"+s.Name, "failed", schema.SeverityAlarm, "output "+s.Name+": "+s.Why)
		case output.StateSet, output.StateSafe:
			a.say("output/"+s.Name, "ok", schema.SeverityInfo, "output "+s.Name+" answers")
		}
	}
}

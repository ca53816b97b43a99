// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package plant is what a board moves: its bank of outputs, the readings that interlocks
// look at, and what of both is news for the fleet.
package plant

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"fulmar/device/output"
	"fulmar/device/output/kinds"
	"fulmar/device/schedule"
	"fulmar/internal/run"
	"fulmar/schema"
)

// stopGrace is how long the end of a bank may take: a device that hangs is left alone.
const stopGrace = 2 * time.Second

// Say tells the fleet a state of the board, once per change.
type Say func(subject, state string, sev schema.Severity, text string)

// Plant is the outputs of one board. A nil Plant moves nothing.
type Plant struct {
	Bank *output.Bank
	// Changed is told, beside the fleet, that something of Bank is another; set it before Run.
	Changed func()
	say     Say
	news    chan struct{} // cap 1
	bank    *run.Group
	log     *slog.Logger
}

// Open opens outputs and begins to drive them: what a safety shutdown holds must not wait
// for a spool that is salvaged. It gives nil where there are none. dir is the data
// folder, program fulmard's own executable.
// Interlocks look at latest.
func Open(cfg []kinds.Config, dir, program string, latest *schedule.Latest, clock schema.Clock, log *slog.Logger, say Say) (*Plant, error) {
	if len(cfg) == 0 {
		return nil, nil
	}
	p := &Plant{say: say, log: log, news: make(chan struct{}, 1)}
	var err error
	p.Bank, err = output.Open(cfg, output.Deps{
		Dir: dir, Values: latest, Clock: clock, Log: log, Program: program,
		Changed: func() {
			select {
			case p.news <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open outputs: %w", err)
	}
	p.bank = run.New(context.Background())
	p.bank.Go("bank", p.Bank.Run)
	return p, nil
}

// Close ends the driving; the outputs stay as they are. A device that hangs does not keep
// fulmard from ending.
func (p *Plant) Close() {
	if p == nil {
		return
	}
	p.bank.Stop()
	if err := p.bank.Wait(stopGrace); err != nil {
		p.log.Warn("outputs not ended in order", "err", err)
	}
}

// Run tells the fleet of the outputs until the context ends, and closes them then.
func (p *Plant) Run(ctx context.Context) error {
	if p == nil {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			p.Close()
			return nil
		case <-p.bank.Context().Done():
			return p.bank.Wait(stopGrace) // it failed
		case <-p.news:
			p.tell()
		}
	}
}

// tell says what has changed of the safety state and of outputs that fail.
func (p *Plant) tell() {
	if p.Changed != nil {
		p.Changed()
	}
	if active, _, by := p.Bank.Safe(); active {
		p.say("safety", "active", schema.SeverityAlarm, "safety shutdown: "+by+"; outputs are at their safe values until a person releases it")
	} else {
		p.say("safety", "released", schema.SeverityInfo, "no safety shutdown is latched")
	}
	for _, s := range p.Bank.States() {
		switch s.State {
		case output.StateFailed:
			p.say("output/"+s.Name, "failed", schema.SeverityAlarm, "output "+s.Name+": "+s.Why)
		case output.StateSet, output.StateSafe:
			p.say("output/"+s.Name, "ok", schema.SeverityInfo, "output "+s.Name+" answers")
		}
	}
}

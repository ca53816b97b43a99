// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fulmar/agent/identity"
	"fulmar/agent/trial"
	"fulmar/agent/update"
	"fulmar/agent/update/admit"
	"fulmar/agent/update/floor"
	"fulmar/agent/update/gate"
	"fulmar/command"
	"fulmar/device/jetson"
	"fulmar/link"
	"fulmar/ota/fetch"
	"fulmar/schema"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// workerRestart is how long the worker may take to be back before an update goes on.
const workerRestart = 30 * time.Second

// openUpdates wires the updates of the board; it touches no network.
func (a *Agent) openUpdates() error {
	line := fetch.NewMQTT(updateLine{a})
	objects, err := fetch.New(fetch.Config{Dir: filepath.Join(a.cfg.Data, "ota.objects"), Sources: []fetch.Source{line}, Log: a.log.With("part", "fetch")})
	if err != nil {
		return err
	}
	self := trial.Self()
	cfg := update.Config{
		Config: a.config, Program: a.opt.Program, Slot: self.ID(), ConfigPath: a.opt.ConfigPath, Clock: a.clock, Facts: a.facts,
		Keys:  func() (*trust.KeySet, error) { return a.control.Keys().Set() },
		Learn: func(e []byte) (bool, error) { return a.control.Keys().Learn(e) },
		Now:   func() (uint64, bool) { return a.control.Keys().Now() },
		Name:  a.name, Read: a.reading, Ask: a.disturbed, Fetch: objects,
		Pieces: func(m link.Down) {
			if d := new(wire.Down); schema.Decode(m.Payload, d) == nil {
				line.Take(d)
			}
		},
		Send: func(ctx context.Context, ch schema.Channel, b []byte) error { return a.control.Send(ctx, ch, b) },
		Report: func(r schema.Report) error {
			return a.keep(schema.ClassAlarm, &schema.Record{Kind: schema.KindReport, Time: a.clock.Now(), Report: &r})
		},
		Runs: a.runs, Level: a.level, ModelsChanged: a.modelsChanged, ConfigChanged: func() { a.reload(context.Background()) },
		RestartWorker: a.restartWorker, Restart: a.stopFor, Log: a.log.With("part", "updates"),
	}
	if self.ID() != "" { // SLOTS/slots/ID/fulmard
		cfg.Slots = filepath.Dir(filepath.Dir(filepath.Dir(a.opt.Program)))
	}
	cfg.Floor = floor.New(a.chip, a.cfg.FloorDir(), func() bool {
		c := a.config()
		return identity.Where(c.IdentityDir(), c.Key.Mode) == schema.KeyTPM
	})
	a.updates = update.New(cfg)
	for k, v := range a.updates.Facts() {
		a.facts[k] = v
	}
	a.attestor.Updates = a.updates.Proof
	return nil
}

// updateLine is the link as objects come by it: the session of the moment.
type updateLine struct{ a *Agent }

func (l updateLine) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	if s := l.a.link.Load(); s != nil {
		return s.Send(ctx, ch, tail, payload)
	}
	return link.ErrDown
}

func (l updateLine) Hear(ctx context.Context, tree string) (<-chan struct{}, error) {
	if s := l.a.link.Load(); s != nil {
		return s.Hear(ctx, tree)
	}
	return nil, link.ErrDown
}

func (l updateLine) Leave(ctx context.Context, tree string) error {
	if s := l.a.link.Load(); s != nil {
		return s.Leave(ctx, tree)
	}
	return nil
}

// reading is how the board is, for what is on trial.
func (a *Agent) reading() gate.Reading {
	cfg := a.config()
	r := gate.Reading{
		Ticks: a.scheduler.Stats().Ticks, TickEvery: cfg.Sample.TickEvery(), Boot: a.clock.Boot(),
		Linked: cfg.Fleet.Address != "" || cfg.Broker.Address != "", Worker: cfg.Infer.Mode != "off", Throttled: -1, Memory: resident(),
	}
	if s := a.link.Load(); s != nil {
		r.Up = s.Status().Up()
	}
	for _, c := range a.spool.Stats().Classes {
		r.Waiting += c.Outstanding
		r.Acked += c.Acked
	}
	a.status.mu.Lock()
	r.Models, r.Cameras = a.status.worker.Models, a.status.worker.Cameras
	r.Heard = !a.status.workerAt.IsZero() && time.Since(a.status.workerAt) < workerSilence
	a.status.mu.Unlock()
	if n, _, ok := a.latest.Value("throttle.active_count"); ok {
		r.Throttled = int(n)
	}
	return r
}

// resident is the memory of this process in bytes, 0 where it is not known.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
		n, _ := strconv.ParseInt(f[1], 10, 64) // of the kernel
		return n * int64(os.Getpagesize())
	}
	return 0
}

// disturbed fills in what of the board speaks against an update.
func (a *Agent) disturbed(b *admit.Board) {
	b.Root, b.Latest, b.PowerMode, b.Models = a.opt.Root, a.latest, jetson.Facts(a.opt.Root)["power_mode"], a.workerModels()
	if a.plant != nil {
		b.Outputs = a.plant.Bank.States()
		if active, _, by := a.plant.Bank.Safe(); active {
			b.Safety = by
		}
	}
}

// runs is the SHA-256 of what runs of a component.
func (a *Agent) runs(component string) []byte {
	if component == "agent" {
		sum, err := a.attestor.Hash()
		if err != nil {
			a.log.Warn("what runs is not told", "err", err)
		}
		return sum
	}
	for _, m := range a.workerModels() {
		if "model/"+m.Name == component && m.State == "ready" {
			if sum, err := hex.DecodeString(m.SHA256); err == nil && len(sum) == wire.HashSize {
				return sum
			}
		}
	}
	return nil
}

// level is how far the board's word on what runs can be believed.
func (a *Agent) level() uint8 {
	if id := a.identity.Load(); id != nil && id.Prover() != nil {
		return wire.Bound
	}
	return wire.Claimed
}

// modelsChanged has the worker load what came into force.
func (a *Agent) modelsChanged() {
	if c := a.errands.Client(); c != nil {
		if err := a.errands.Update(c); err != nil {
			a.log.Error("the worker is not told of its models", "err", err)
		}
	}
}

// restartWorker has the worker start anew, if one runs.
func (a *Agent) restartWorker(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, workerRestart)
	defer stop()
	err := a.errands.Restart(ctx)
	var none *command.Error
	if errors.As(err, &none) || errors.Is(err, context.DeadlineExceeded) {
		return nil // none runs, or it takes its time: what it runs from is chosen at its start
	}
	if err != nil {
		return fmt.Errorf("start the worker anew: %w", err)
	}
	return nil
}

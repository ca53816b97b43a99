// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"maps"
	"path/filepath"
	"time"

	"fulmar/agent/identity"
	"fulmar/agent/trial"
	"fulmar/agent/update"
	"fulmar/agent/update/admit"
	"fulmar/agent/update/floor"
	"fulmar/agent/update/gate"
	"fulmar/agent/update/sources"
	"fulmar/device/jetson"
	"fulmar/ota/fetch"
	"fulmar/schema"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// openUpdates wires the updates of the board; it touches no network.
func (a *Agent) openUpdates() error {
	line := fetch.NewMQTT(update.Line{Session: a.link.Load})
	objects, err := sources.Open(sources.Config{
		Dir: filepath.Join(a.cfg.Data, "ota.objects"), Link: line, Peers: a.cfg.Updates.Peers, Give: a.cfg.Updates.Give, Log: a.log.With("part", "fetch"),
		Fleet: func() (string, *tls.Config) { return a.identity.Load().Web(a.cfg.Fleet.Address) },
	})
	if err != nil {
		return err
	}
	self := trial.Self()
	cfg := update.Config{
		Config: a.config, Program: a.opt.Program, Slot: self.ID(), ConfigPath: a.opt.ConfigPath, Clock: a.clock, Facts: a.facts,
		Keys:  func() (*trust.KeySet, error) { return a.control.Keys().Set() },
		Learn: func(e []byte) (bool, error) { return a.control.Keys().Learn(e) },
		Now:   func() (uint64, bool) { return a.control.Keys().Now() },
		Name:  a.name, Read: a.reading, Ask: a.disturbed, Fetch: objects, Pieces: line.Take,
		Send: func(ctx context.Context, ch schema.Channel, b []byte) error { return a.control.Send(ctx, ch, b) },
		Report: func(r schema.Report) error {
			return a.keep(schema.ClassAlarm, &schema.Record{Kind: schema.KindReport, Time: a.clock.Now(), Report: &r})
		},
		Runs: a.attestor.Runs, Level: a.level, ModelsChanged: a.errands.Told, ConfigChanged: func() { a.reload(context.Background()) },
		RestartWorker: a.errands.RestartAny, Restart: a.stopFor, Log: a.log.With("part", "updates"),
	}
	if self.ID() != "" { // SLOTS/slots/ID/fulmard
		cfg.Slots = filepath.Dir(filepath.Dir(filepath.Dir(a.opt.Program)))
	}
	cfg.Floor = floor.New(a.chip, a.cfg.FloorDir(), func() bool {
		c := a.config()
		return identity.Where(c.IdentityDir(), c.Key.Mode) == schema.KeyTPM
	})
	a.updates = update.New(cfg)
	maps.Copy(a.facts, a.updates.Facts())
	a.attestor.Updates = a.updates.Proof
	return nil
}

// reading is how the board is, for what is on trial.
func (a *Agent) reading() gate.Reading {
	cfg := a.config()
	r := gate.Reading{
		Ticks: a.scheduler.Stats().Ticks, TickEvery: cfg.Sample.TickEvery(), Boot: a.clock.Boot(),
		Linked: cfg.Fleet.Address != "" || cfg.Broker.Address != "", Worker: cfg.Infer.Mode != "off", Throttled: -1, Memory: gate.Resident(),
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

// level is how far the board's word on what runs can be believed.
func (a *Agent) level() uint8 {
	if id := a.identity.Load(); id != nil && id.Prover() != nil {
		return wire.Bound
	}
	return wire.Claimed
}

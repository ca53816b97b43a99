// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/agent/anchor"
	"fulmar/agent/attest"
	"fulmar/agent/chip"
	"fulmar/agent/config"
	"fulmar/agent/control"
	"fulmar/agent/diagnose"
	"fulmar/agent/errand"
	"fulmar/agent/identity"
	"fulmar/agent/plant"
	"fulmar/agent/trial"
	"fulmar/agent/update"
	"fulmar/device"
	"fulmar/device/jetson"
	"fulmar/device/schedule"
	"fulmar/device/sensor"
	"fulmar/inference/worker"
	"fulmar/internal/lean"
	"fulmar/internal/run"
	"fulmar/internal/sdnotify"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// How long the layers get to end after the stop, together under five seconds as a
// rule: systemd and a person at Ctrl-C both expect an answer by then.
const (
	makersGrace = 3 * time.Second // sensors that hang and the worker have bounds of their own
	restGrace   = time.Second     // for what was made last to reach the fleet
	restCheck   = 20 * time.Millisecond
	stopGrace   = 4 * time.Second
)

// Options are what New is given beside the config.
type Options struct {
	ConfigPath string // watched for changes; "" for none
	// BrokenConfig is what is wrong with the file at ConfigPath when the board
	// was started with the last good copy instead.
	BrokenConfig error
	Release      string // version of the program
	Root         device.Root
	Log          *slog.Logger
	Level        *slog.LevelVar // set by log.level, also while running
	// Program is fulmard's own executable, which looks at the spool's files after a
	// start that ended badly; "": no look.
	Program string
	// Tail keeps the end of the log, for a diagnostics archive; nil: it has none.
	Tail *diagnose.Tail
}

// Agent is one board.
type Agent struct {
	opt   Options
	log   *slog.Logger
	clock schema.Clock
	// bootKnown: the kernel told the boot of the clock.
	bootKnown bool
	facts     map[string]string

	mu   sync.Mutex
	base config.Config // of the file; replaced as a whole on reload
	cfg  config.Config // in force: base with what the twin sets over it

	spool     *storage.Spool
	blobs     *storage.Blobs
	scheduler *schedule.Scheduler
	latest    *schedule.Latest // newest readings, of interlocks and people
	worker    *worker.Client
	child     *worker.Child // nil where the worker is a unit of its own
	link      atomic.Pointer[link.Session]
	identity  atomic.Pointer[identity.Identity]
	control   *control.Control
	plant     *plant.Plant // nil where the board moves nothing
	updates   *update.Service
	chip      *chip.Chip // of the board's identity and its spool
	attestor  *attest.Attestor
	errands   errand.Errands // of the worker
	stop      func()         // ends Run; under mu, nil before it

	notify *sdnotify.Notifier
	said   reports
	status status
}

// New opens what the board keeps on disk and wires its parts. It touches no network but
// what its outputs are behind: a latched safety shutdown is driven before all else.
func New(cfg *config.Config, opt Options) (*Agent, error) {
	a := &Agent{
		opt: opt, log: opt.Log, base: *cfg, cfg: *cfg,
		facts: facts(opt.Root),
		said:  reports{last: map[string]schema.Report{}},
	}
	a.status.link.State = "starting"
	a.clock, a.bootKnown = anchor.BootClock(opt.Root, opt.Log)
	a.latest = schedule.NewLatest(a.clock)
	a.chip = chip.New(cfg.TPM.Path, cfg.IdentityDir(), uptime, opt.Log.With("part", "tpm"))
	a.attestor = &attest.Attestor{Release: opt.Release, Boot: a.clock.Boot(), Program: attest.Self, Models: a.workerModels}
	var err error
	if a.plant, err = plant.Open(cfg.Outputs, cfg.Data, opt.Program, a.latest, a.clock, opt.Log.With("part", "output"), a.say); err != nil {
		return nil, err
	}
	if a.notify, err = sdnotify.FromEnv(); err != nil {
		opt.Log.Warn("systemd is not told", "err", err)
	}
	if a.spool, err = storage.Open(a.spoolConfig()); err != nil {
		a.plant.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if a.blobs, err = storage.OpenBlobs(cfg.BlobDir(), cfg.Spool.PicturesMiB<<20); err != nil {
		a.plant.Close()
		return nil, errors.Join(fmt.Errorf("open pictures: %w", err), a.spool.Close())
	}
	a.wireErrands()
	if err := a.openUpdates(); err != nil {
		a.plant.Close()
		return nil, errors.Join(err, a.spool.Close())
	}
	if a.control, err = a.openControl(); err != nil {
		a.plant.Close()
		return nil, errors.Join(err, a.spool.Close())
	}
	a.cfg = a.control.Overlaid()
	setLevel(opt.Level, a.cfg.Log.Level)
	a.scheduler, err = schedule.New(a.cfg.Sample, a.sensors(cfg), schedule.Deps{
		Clock: a.clock, Sink: sampleSink{a}, Log: opt.Log.With("part", "schedule"), Seed: seed(cfg.Board), Uptime: device.BootMono,
		Latest: a.latest,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make schedule: %w", err), a.Close())
	}
	return a, nil
}

func (a *Agent) sensors(cfg *config.Config) []device.Sensor {
	return append(sensor.New(cfg.Sensors, a.opt.Root), slices.DeleteFunc(jetson.New(a.opt.Root),
		func(s device.Sensor) bool { return !cfg.Sensors.Enabled(s.Name()) })...)
}

// facts tells what the board is, for the page.
func facts(root device.Root) map[string]string {
	f := device.Facts(root)
	maps.Copy(f, jetson.Facts(root))
	return f
}

// seed spreads the first ticks of boards that boot together.
func seed(board string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(board))
	return h.Sum64()
}

// Close closes what New opened on an agent that is not run.
func (a *Agent) Close() error {
	a.plant.Close()
	return errors.Join(a.control.Close(), a.spool.Close())
}

// Run runs the board until the context ends. It returns nil after a stop in
// order.
func (a *Agent) Run(ctx context.Context) error {
	// Three layers, stopped from the top: what makes records, what sends them,
	// what keeps them. So a stop in order leaves little behind on the disk.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.mu.Lock()
	a.stop = stop
	a.mu.Unlock()
	below := context.WithoutCancel(ctx)
	spool, sender, makers := run.New(below), run.New(below), run.New(ctx)
	spool.Go("spool", a.spool.Run)
	sender.Go("link", a.runLink)
	a.startMakers(makers)
	// A part below that fails ends the parts above it.
	context.AfterFunc(spool.Context(), sender.Stop)
	context.AfterFunc(sender.Context(), makers.Stop)
	a.say("agent", "running", schema.SeverityInfo, "fulmard "+a.opt.Release+" started")
	a.sayKeys()
	a.startedWith()
	a.tell(a.notify.Ready())

	err := makers.Wait(makersGrace)
	a.tell(a.notify.Stopping())
	a.sendRest()
	a.chip.Stop()
	sender.Stop()
	err = errors.Join(err, sender.Wait(stopGrace))
	spool.Stop()
	return errors.Join(err, spool.Wait(stopGrace), a.spool.Close())
}

// sendRest gives what was made last a moment to reach the fleet, if the link is up.
func (a *Agent) sendRest() {
	if err := a.spool.Flush(); err != nil {
		a.log.Warn("last records not on disk yet", "err", err)
	}
	for end := time.Now().Add(restGrace); time.Now().Before(end); time.Sleep(restCheck) {
		s := a.link.Load()
		if s == nil || !s.Status().Up() {
			return
		}
		left := uint64(0)
		for _, c := range a.spool.Stats().Classes {
			left += c.Outstanding
		}
		if left == 0 {
			return
		}
	}
}

// startedWith says which config the board runs on, and keeps a copy of a good one.
func (a *Agent) startedWith() {
	if a.opt.ConfigPath == "" {
		return
	}
	a.sayConfig(a.opt.BrokenConfig)
	if a.opt.BrokenConfig != nil {
		a.log.Error("config refused, running with the last good one", "err", a.opt.BrokenConfig)
		return
	}
	cfg := a.fileConfig()
	if err := config.KeepLastGood(a.opt.ConfigPath, &cfg); err != nil {
		a.log.Warn("last good config not kept", "err", err)
	}
}

// startMakers starts what makes records and what tells of the board.
func (a *Agent) startMakers(g *run.Group) {
	g.Go("outputs", a.plant.Run)
	g.Go("control", a.control.Run)
	g.Go("schedule", a.scheduler.Run)
	g.Go("worker", a.runWorker)
	g.Go("status", a.serveStatus)
	g.Go("watchdog", a.watchdog)
	g.Go("lean", lean.Keep)
	g.Go("clock", func(ctx context.Context) error {
		return anchor.Keep(ctx, a.clock, a.log, func(now schema.Time, x *schema.Anchor) {
			a.append(schema.ClassEvent, &schema.Record{Kind: schema.KindAnchor, Time: now, Anchor: x})
		})
	})
	g.Go("trial", func(ctx context.Context) error {
		return trial.Keep(ctx, trial.Self().Unless(a.updates.Owns), func() uint64 { return a.scheduler.Stats().Ticks }, a.say)
	})
	if a.opt.ConfigPath != "" {
		g.Go("config", a.watchConfig)
	}
}

// watchTick is how long no tick at all may pass before the sampler is taken for
// stuck: the slowest default group runs once a minute, the fastest each second. A board
// that was told to sample more rarely gets twice its time.
const watchTick = 90 * time.Second

// alive tells whether the sampler made progress lately.
func (a *Agent) alive() bool {
	cfg := a.config()
	n, most := a.scheduler.Stats().Ticks, max(watchTick, 2*cfg.Sample.TickEvery())
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	if n != a.status.ticks || a.status.tickAt.IsZero() {
		a.status.ticks, a.status.tickAt = n, time.Now()
	}
	return time.Since(a.status.tickAt) < most
}

// watchdog tells systemd that the agent lives, as long as its sampler makes
// progress: a process that only looks alive is worse than one restarted.
func (a *Agent) watchdog(ctx context.Context) error {
	return a.notify.Run(ctx, func() error {
		if !a.alive() {
			return fmt.Errorf("no sample for %v", watchTick)
		}
		return nil
	}, func(err error) { a.log.Warn("systemd not told", "err", err) })
}

// tell gives systemd a word; that it cannot be told is no reason to stop.
func (a *Agent) tell(err error) {
	if err != nil {
		a.log.Warn("systemd not told", "err", err)
	}
}

// runLink enrols, then keeps the session with the fleet until the context ends.
func (a *Agent) runLink(ctx context.Context) error {
	cfg := a.config()
	e := a.enroller(&cfg)
	lc := link.Config{
		Release: a.opt.Release, Clock: a.clock, Facts: a.facts,
		KeepAlive: cfg.Link.KeepAlive, ReconnectWindow: cfg.Link.ReconnectWindow,
		Log: a.log.With("part", "link"), Report: a.linkSays,
	}
	if cfg.Broker.Address != "" {
		if err := a.brokerLink(&lc, &cfg); err != nil {
			return err
		}
		a.control.Broker(&lc)
	} else {
		id, err := e.Enrol(ctx)
		if err != nil {
			return err
		}
		a.identity.Store(id)
		lc.Tenant, lc.Board, lc.ClientID = id.Tenant, id.Board, id.Board
		lc.Dial = a.dialFleet
		a.control.Link(&lc) // only over a connection that proves the fleet
		if id.Prover() != nil {
			lc.Attest = a.attest
		}
	}
	if !a.claimSpool(ctx, lc.Board) {
		return nil
	}
	s, err := link.New(lc, outbox{a.spool}, blobOpener{a.blobs})
	if err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	a.link.Store(s)
	a.control.Use(s, lc.Tenant, lc.Board)
	g := run.New(ctx)
	g.Go("session", s.Run)
	if a.identity.Load() != nil {
		g.Go("certificate", func(ctx context.Context) error {
			return e.Keep(ctx, a.identity.Load, a.identity.Store)
		})
	}
	return g.Wait(stopGrace)
}

func (a *Agent) config() config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/update/admit"
	"fulmar/agent/update/bundles"
	"fulmar/agent/update/floor"
	"fulmar/agent/update/gate"
	"fulmar/agent/update/intake"
	"fulmar/agent/update/patch"
	"fulmar/agent/update/words"
	"fulmar/internal/disk"
	"fulmar/internal/fit"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/ota"
	"fulmar/ota/release"
	"fulmar/schema"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

const (
	stopGrace = 12 * time.Second // the machine's own is 10 s
	// calm is how long nothing has to be in work before what a bundle left is removed.
	calm = time.Hour
)

// Config is what the updates of a board work with.
type Config struct {
	Config  func() config.Config // in force
	Program string               // fulmard's own executable, "" not found
	// Slot is the slot that it runs from, "" none; Slots is where it lies.
	Slot, Slots string
	ConfigPath  string // "" none
	Rootfs      string // socket of fulmar-rootfs, looked for at the start; "" is where its unit has it
	Clock       schema.Clock
	Facts       map[string]string // of the board

	// Keys is the key set in force, Learn takes a newer one, Now is the fleet's time, Name is
	// who the board is: see package authority.
	Keys  func() (*trust.KeySet, error)
	Learn func(envelope []byte) (changed bool, err error)
	Now   func() (ms uint64, known bool)
	Name  func() (tenant, board string)

	Floor *floor.Keeper
	Read  func() gate.Reading
	// Ask fills in what of the board speaks against an update, but for the rules and the hold.
	Ask func(*admit.Board)
	// Fetch brings objects from the network; Pieces is given what the fleet sends of them.
	Fetch  Objects
	Pieces func(*wire.Down)
	Send   func(ctx context.Context, ch schema.Channel, payload []byte) error
	// Report keeps a report for the fleet: durable when it returns.
	Report func(schema.Report) error
	// Runs is the SHA-256 of what runs of a component, nil unknown; Level how far a word of this
	// board can be believed.
	Runs  func(component string) []byte
	Level func() uint8

	// ModelsChanged and ConfigChanged have what came into force read; RestartWorker has the
	// worker start anew.
	ModelsChanged, ConfigChanged func()
	RestartWorker                func(context.Context) error
	// Restart ends the program in order, so that it is started anew.
	Restart func(why string)

	Log *slog.Logger
}

// Objects are what brings objects from the network, and gives them on: sources.Sources.
type Objects interface {
	ota.Fetcher
	Run(ctx context.Context) error // gives them on until the context ends
	Clear() error                  // removes what is kept for others alone
	Tidy() error                   // removes it where the disk has become full
}

// Service is the updates of one board.
type Service struct {
	cfg     Config
	off     string // why the board takes none
	updater *ota.Updater
	intake  *intake.Intake
	words   *words.Words
	hold    *hold
	shelf   *bundles.Shelf
	parts   *parts
	gate    *gate.Gate
	begun   chan struct{}                     // closed: the record is read, orders may come
	said    atomic.Pointer[map[string]string] // state and reason that was reported last, by component
}

// New wires the updates of a board. It reads its own files and touches no network.
func New(cfg Config) *Service {
	c := cfg.Config()
	s := &Service{cfg: cfg, begun: make(chan struct{})}
	s.said.Store(&map[string]string{})
	if c.Updates.Mode == config.UpdatesOff {
		s.off = "this board takes no updates: updates.mode is off in its config"
	}
	s.hold = openHold(filepath.Join(c.Data, "ota.hold"), cfg.Clock, cfg.Log)
	s.words = words.Open(filepath.Join(c.Data, "ota.told"), func(ctx context.Context, b []byte) error { return cfg.Send(ctx, schema.ChanOTAState, b) }, cfg.Log)
	s.shelf = bundles.NewShelf(filepath.Join(c.Data, "ota.bundle"), cfg.Fetch)
	s.parts = openParts(&cfg, &c)
	s.gate = gate.New(gate.Config{Read: cfg.Read, Path: s.parts.modelPath})
	s.updater = ota.New(ota.Config{Dir: c.OTADir(), Clock: cfg.Clock}, ota.Deps{
		Installer: s.parts.installer, Fetch: s.shelf, Apply: s.apply, Gate: s.gate, Floor: cfg.Floor,
		Unmet: s.unmet, Conditions: s.conditions, Tell: s.tell, Warn: s.warn, Log: cfg.Log, Free: s.free,
	})
	s.intake = intake.New(intake.Config{
		Machine: s.updater, Keys: cfg.Keys, Name: cfg.Name, Now: cfg.Now, Floor: cfg.Floor, Off: func() string { return s.off },
		Want: func(ctx context.Context, b []byte) error { return cfg.Send(ctx, schema.ChanWant, b) },
		Tell: s.tell, Log: cfg.Log,
	})
	return s
}

// Facts are what the board tells of its updates: that it takes them, and of what.
func (s *Service) Facts() map[string]string {
	if s.off != "" {
		return nil
	}
	return map[string]string{schema.FactCan: schema.CanUpdate, schema.FactUpdates: s.parts.kinds()}
}

// Owns tells whether an update has this slot on trial: it ends the trial then.
func (s *Service) Owns(slot string) bool {
	return s.off == "" && s.parts.owns(slot)
}

// Inbox takes a message of the fleet without waiting.
func (s *Service) Inbox(m link.Down) {
	if m.Channel == schema.ChanAssign {
		s.intake.Give(m.Payload)
		return
	}
	d := new(wire.Down)
	switch err := schema.Decode(m.Payload, d); {
	case err != nil:
		s.cfg.Log.Debug("a word of the fleet on objects is not read", "err", err)
	case d.Fresh != nil && m.Tail == "": // an object's own topic, which others hear too, brings pieces alone
		s.intake.Fresh(d.Fresh)
	case d.Fresh == nil:
		s.cfg.Pieces(d)
	}
}

// Keys is told that another key set is in force.
func (s *Service) Keys() { s.intake.Again() }

// Connected sends what is the newest until the connection's context ends.
func (s *Service) Connected(ctx context.Context) {
	s.intake.Again()
	s.words.Connected(ctx)
}

// Run keeps updates at work until the context ends. What of them fails does not end the
// board.
func (s *Service) Run(ctx context.Context) error {
	if s.off != "" {
		return s.intake.Run(ctx) // which says no, with the reason
	}
	s.parts.begin(ctx)
	g := run.New(ctx)
	g.Go("machine", s.runMachine)
	g.Go("intake", func(ctx context.Context) error {
		if s.begin(ctx) != nil {
			return nil // the context ended
		}
		return s.intake.Run(ctx)
	})
	g.Go("restarts", s.restarts)
	g.Go("shelf", s.tidy)
	g.Go("give", s.cfg.Fetch.Run)
	return g.Wait(stopGrace)
}

// noComponent is what nothing is called that can be updated.
const noComponent = "none"

// begin waits until the machine has read its record. Where that was lost, nothing names any
// more what was staged or is on trial: it is let go of before orders come, so that no slot
// is owned for ever by an update that nobody knows of.
func (s *Service) begin(ctx context.Context) error {
	// It answers from its loop: its record is read then, and Status is what is in it.
	if err := s.updater.Abort(ctx, noComponent); !errors.Is(err, ota.ErrNothing) {
		return err
	}
	if st := s.updater.Status(); st.Lost {
		s.parts.forsake(ctx, &st)
	}
	close(s.begun)
	return ctx.Err()
}

// runMachine keeps the machine at work: an error of its disk is no reason to end the board.
func (s *Service) runMachine(ctx context.Context) error {
	for {
		err := s.updater.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.cfg.Log.Error("updates stand still and begin anew in a minute", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Minute):
		}
	}
}

// restarts does what an update asks for. Whether it may be now, the update has asked.
func (s *Service) restarts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-s.updater.Restarting():
			why := "an update takes effect with the next start"
			switch {
			case r == ota.RestartProgram:
				s.cfg.Restart(why)
			case r == ota.RestartMachine:
				if err := s.restartMachine(ctx, why); err != nil {
					s.cfg.Log.Error("the machine is not started anew", "err", err)
					s.warn(wire.Switch, fit.Text("the machine has to start anew for an update to take effect; start it anew: "+err.Error(), schema.MaxText))
				}
			}
		}
	}
}

// restartMachine has the installer of what is in work start the machine anew.
func (s *Service) restartMachine(ctx context.Context, why string) error {
	st := s.updater.Status()
	if st.Work == nil {
		return errors.New("no update is in work any more")
	}
	r, ok := s.parts.installer(st.Work.Component).(ota.Restarter)
	if !ok {
		return fmt.Errorf("what installs %s cannot do it", st.Work.Component)
	}
	ctx, cancel := context.WithTimeout(ctx, restartWait)
	defer cancel()
	s.cfg.Log.Warn("the machine starts anew", "for", st.Work.Component)
	return r.Restart(ctx, why)
}

// restartWait is how long an installer may take to ask for a restart of the machine.
const restartWait = 2 * time.Minute

// tidy removes what a bundle left behind when nothing is in work for long.
func (s *Service) tidy(ctx context.Context) error {
	t := time.NewTicker(calm)
	defer t.Stop()
	for quiet := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := s.cfg.Fetch.Tidy(); err != nil {
			s.cfg.Log.Warn("what was kept for other boards is not removed", "err", err)
		}
		st := s.updater.Status()
		idle := st.Work == nil && len(st.Waiting) == 0 && st.Trouble == ""
		if idle && quiet {
			if err := s.shelf.Clear(); err != nil {
				s.cfg.Log.Warn("what a bundle left is not removed", "err", err)
			}
		}
		quiet = idle
	}
}

// free is how much an update has: what was kept for other boards makes room.
func (s *Service) free() (int64, error) {
	if err := s.cfg.Fetch.Clear(); err != nil {
		s.cfg.Log.Warn("what was kept for other boards is not removed", "err", err)
	}
	c := s.cfg.Config()
	free, _, _, err := disk.Free(c.OTADir())
	return free, err
}

// apply makes a file of a patch in a child.
func (s *Service) apply(ctx context.Context, codec, base, from, out string, want release.Object) error {
	return patch.Apply(ctx, s.cfg.Program, codec, base, from, out, want)
}

func (s *Service) unmet(c *release.Component) []string {
	return c.Needs.Unmet(s.cfg.Facts, s.parts.versions(context.Background()))
}

func (s *Service) conditions(component string, m ota.Moment) []ota.Refusal {
	return s.board().Ask(component, m)
}

// board is how it stands with what speaks against updates.
func (s *Service) board() *admit.Board {
	c := s.cfg.Config()
	b := &admit.Board{Rules: c.Updates.Rules(), Hold: s.hold.left()}
	if ms, known := s.cfg.Now(); known {
		b.Now, b.Told = time.UnixMilli(int64(ms)).Local(), true
	}
	s.cfg.Ask(b)
	return b
}

// tell brings a word to the fleet: on ota/s as the newest of its component, and as a report
// in the spool, which keeps all of them through an outage.
func (s *Service) tell(w wire.State) error {
	w.V = schema.Version
	if w.Runs == nil && (w.State == wire.Committed || w.State == wire.RolledBack || w.State == wire.Trial) {
		if w.Runs = s.cfg.Runs(w.Component); w.Runs != nil {
			w.Level = s.cfg.Level()
		}
	}
	if w.Floor == 0 {
		w.Floor, _, _ = s.cfg.Floor.Known()
	}
	w.Reason = fit.Text(w.Reason, schema.MaxText)
	err := s.words.Tell(w)
	key, said := w.State+"\n"+w.Reason+"\n"+w.Rollout+fmt.Sprint(w.Attempt), *s.said.Load()
	if said[w.Component] == key {
		return err // its progress alone is new
	}
	next := map[string]string{w.Component: key}
	for k, v := range said {
		if k != w.Component && len(next) < maxSaid {
			next[k] = v
		}
	}
	s.said.Store(&next)
	return errors.Join(err, s.cfg.Report(report(&w)))
}

// maxSaid is as many components as a record has.
const maxSaid = 48

// report is a word as a record of the board's history.
func report(w *wire.State) schema.Report {
	r := schema.Report{Subject: "update/" + w.Component, State: w.State, Severity: schema.SeverityInfo}
	switch w.State {
	case wire.Failed, wire.RollingBack, wire.RolledBack:
		r.Severity = schema.SeverityWarn
	}
	text := fmt.Sprintf("rollout %s, attempt %d", w.Rollout, w.Attempt)
	if w.Reason != "" {
		text += ": " + w.Reason
	}
	if w.Release != "" {
		text += "; runs " + w.Release
	}
	r.Text = fit.Text(text, schema.MaxText)
	return r
}

// warn tells what is no word on an update.
func (s *Service) warn(reason, text string) {
	if err := s.cfg.Report(schema.Report{Subject: "update", State: reason, Severity: schema.SeverityAlarm, Text: fit.Text(text, schema.MaxText)}); err != nil {
		s.cfg.Log.Error("not kept for the fleet", "what", text, "err", err)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/agent/authority"
	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/agent/decide"
	"fulmar/agent/local"
	"fulmar/agent/local/updates"
	"fulmar/agent/plant"
	"fulmar/agent/shadow"
	"fulmar/device/schedule"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/schema/onboard"
)

const (
	stopGrace = 3 * time.Second
	// reportEvery is how often what the board says of itself is looked at for changes; a
	// change of an output or a rule is told at once.
	reportEvery = 10 * time.Second
)

// Config is what the board gives its control.
type Config struct {
	Config    func() config.Config // in force
	Base      func() config.Config // of the file, without what the twin puts over it
	Clock     schema.Clock
	BootKnown bool
	Release   string
	Program   string // fulmard's own executable
	// Apply puts a config in force.
	Apply  func(*config.Config) error
	Health func() shadow.Health
	Worker commands.Worker
	Plant  *plant.Plant // nil: the board moves nothing
	Latest *schedule.Latest
	// UserCommands is the folder of commands that were added to the board; "": none.
	UserCommands string
	// Stop ends the program in order.
	Stop     func(why string)
	Diagnose func(ctx context.Context, add func(name string, data []byte))
	Keep     func(ctx context.Context, name, media, source string, data []byte) error
	// Tell keeps a report for the fleet; Say does for one that is told once per change.
	Tell func(schema.Report)
	Say  func(subject, state string, sev schema.Severity, text string)
	// Updates are the board's; nil: it has none.
	Updates Updates
	// Name is who the board is; "" before it is known.
	Name func() (tenant, board string)
	// State is how the board is, but for what this package knows.
	State func() onboard.State
	Log   *slog.Logger
}

// Updates brings updates to the board: agent/update.
type Updates interface {
	updates.Updates
	// Inbox takes a message of the fleet, Keys that another key set is in force; neither
	// waits. Connected lives as long as a connection.
	Inbox(m link.Down)
	Keys()
	Connected(ctx context.Context)
	Run(ctx context.Context) error
}

// Control is what can be told to one board.
type Control struct {
	cfg      Config
	keys     *authority.Follower
	shadow   *shadow.Shadow
	commands *commands.Service
	decide   *decide.Board
	link     atomic.Pointer[Sender]
	changed  chan struct{} // something of what is reported may be another

	mu      sync.Mutex
	conn    uint64                    // of the connection to the fleet, 0: it cannot be asked
	decides map[string]map[string]any // what rules and autonomy report

	names []any    // of the board's commands
	told  reported // the reporting goroutine's
}

// Open opens what the board keeps on the disk of it. It touches no network and moves
// nothing.
func Open(cfg Config) (*Control, error) {
	c := &Control{cfg: cfg, changed: make(chan struct{}, 1), decides: map[string]map[string]any{}, told: reported{seen: set{}, not: map[string]bool{}}}
	base := cfg.Base()
	part := func(name string) *slog.Logger { return cfg.Log.With("part", name) }
	keys, err := authority.Open(base.IdentityDir(), part("authority"))
	if err != nil {
		return nil, fmt.Errorf("open key set: %w", err)
	}
	c.keys = authority.NewFollower(keys, cfg.Say)
	if cfg.Plant != nil {
		cfg.Plant.Changed = c.poke
	}
	tenant, board := cfg.Name()
	c.shadow = shadow.New(shadow.Config{
		Tenant: tenant, Board: board, Dir: filepath.Join(base.Data, "twin"), Clock: cfg.Clock, BootKnown: cfg.BootKnown,
		Open: c.keys.Twin, Base: cfg.Base, Check: c.check, Apply: c.apply, Health: cfg.Health, Send: c.sendTwin, Tell: cfg.Tell, Log: part("twin"),
	})
	c.keys.Changed = func() {
		c.shadow.Again()
		if cfg.Updates != nil {
			cfg.Updates.Keys()
		}
	}
	user, damaged := userCommands(cfg.UserCommands, cfg.Program)
	c.commands, err = commands.Open(commands.Config{
		Address: cfg.Name, Dir: base.Data, Clock: cfg.Clock, Now: c.keys.Now, Open: c.keys.Command, Operator: c.keys.Operator, Send: c.sendResult,
		Outputs: moved(cfg.Plant), Settings: settings{c}, Worker: cfg.Worker, Latest: cfg.Latest, User: user, Stop: cfg.Stop, Release: cfg.Release,
		Diagnose: cfg.Diagnose, Keep: cfg.Keep, Log: part("commands"),
	})
	if err != nil {
		return nil, fmt.Errorf("open commands: %w", err)
	}
	c.sayUserCommands(user, damaged)
	c.names = names(c.commands.Names())
	overlaid := c.shadow.Overlaid()
	effective := c.shadow.Effective()
	c.decide = decide.New(overlaid.Plan(), decide.Deps{
		TwinRules: below(effective, "rule."), TwinShed: effective["shed"],
		RulesPath: base.RulesPath(), AutonomyPath: base.AutonomyPath(), Up: c.up, Give: c.give, Ended: c.ended, Set: c.set, Clear: c.clear, SafeOf: c.safeOf,
		Say: cfg.Say, Report: c.decided, Wall: c.wall, Clock: cfg.Clock, Log: part("rules"),
	})
	if err := c.take(effective); err != nil {
		cfg.Log.Warn("not all of the twin is in force", "err", err)
	}
	return c, nil
}

// Close closes what Open opened where it is not run.
func (c *Control) Close() error { return c.commands.Close() }

// Commands and Twin are the parts that others look at.
func (c *Control) Commands() *commands.Service { return c.commands }

// Twin is the board's side of its twin.
func (c *Control) Twin() *shadow.Shadow { return c.shadow }

// Overlaid is the config of the file with what holds of the twin over it.
func (c *Control) Overlaid() config.Config { return c.shadow.Overlaid() }

// Rebase is told that the config of the file has changed.
func (c *Control) Rebase(ctx context.Context) { c.shadow.Rebase(ctx) }

// Learn takes the fleet's key set, as it came with the board's enrolment.
func (c *Control) Learn(envelope []byte) {
	if len(envelope) > 0 { // a fleet may have none
		c.keys.Follow(envelope)
	}
}

// Link has a link carry what is said beside the records.
func (c *Control) Link(lc *link.Config) {
	lc.Filters = []schema.Channel{schema.ChanTwinDown, schema.ChanCommand, schema.ChanKeys}
	if c.cfg.Updates != nil {
		lc.Filters = append(lc.Filters, schema.ChanAssign, schema.ChanPiece)
	}
	lc.Inbox, lc.Heard, lc.Keys, lc.Connected = c.inbox, c.heard, c.keys.Version, c.connected
}

// Broker has a link to a broker of one's own tell when it is up: nobody signs anything
// there, and the board counts as alone while that broker cannot be reached.
func (c *Control) Broker(lc *link.Config) {
	lc.Connected = func(ctx context.Context, conn uint64) {
		c.linked(conn)
		defer c.unlinked(conn)
		<-ctx.Done()
	}
}

// Sender brings messages to the fleet beside the records: see [link.Session.Send].
type Sender interface {
	Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error
}

// Use sends through a session from now on, as this board.
func (c *Control) Use(s Sender, tenant, board string) {
	c.shadow.Name(tenant, board)
	c.link.Store(&s)
}

// Run keeps all of it at work until the context ends.
func (c *Control) Run(ctx context.Context) error {
	c.keys.Begin()
	g := run.New(ctx)
	g.Go("commands", c.commands.Run)
	g.Go("twin", c.shadow.Run)
	g.Go("decide", c.decide.Run)
	g.Go("key sets", c.keys.Run)
	g.Go("reported", c.keepReporting)
	g.Go("local", c.serveLocal)
	if c.cfg.Updates != nil {
		g.Go("updates", c.cfg.Updates.Run)
	}
	return g.Wait(stopGrace)
}

// inbox takes a message of the fleet without waiting.
func (c *Control) inbox(m link.Down) {
	switch m.Channel {
	case schema.ChanTwinDown:
		c.shadow.Down(m.Payload)
	case schema.ChanCommand:
		c.commands.Give(m.Payload)
	case schema.ChanKeys:
		c.keys.Offer(m.Payload)
	case schema.ChanAssign, schema.ChanPiece:
		if c.cfg.Updates != nil {
			c.cfg.Updates.Inbox(m)
		}
	}
}

func (c *Control) heard(ack schema.HelloAck) { c.keys.Heard(ack.Wall) }

// connected lives as long as a connection.
func (c *Control) connected(ctx context.Context, conn uint64) {
	c.linked(conn)
	defer c.unlinked(conn)
	c.shadow.Connected(ctx, conn)
	g := run.New(ctx)
	g.Go("commands", func(ctx context.Context) error { c.commands.Connected(ctx, conn); return nil })
	if c.cfg.Updates != nil {
		g.Go("updates", func(ctx context.Context) error { c.cfg.Updates.Connected(ctx); return nil })
	}
	if err := g.Wait(stopGrace); err != nil {
		c.cfg.Log.Warn("what tells the fleet did not end with the connection", "err", err)
	}
}

func (c *Control) linked(conn uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
}

// unlinked ends a connection, unless there is a newer one already: this one may have hung
// in a disk.
func (c *Control) unlinked(conn uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = 0
	}
}

// up tells whether the fleet can be asked.
func (c *Control) up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != 0
}

var errDown = errors.New("the link is not up")

func (c *Control) sendTwin(ctx context.Context, payload []byte) error {
	return c.send(ctx, schema.ChanTwinUp, "", payload)
}

func (c *Control) sendResult(ctx context.Context, id string, payload []byte) error {
	return c.send(ctx, schema.ChanResult, id, payload)
}

func (c *Control) send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	s := c.link.Load()
	if s == nil {
		return errDown
	}
	return (*s).Send(ctx, ch, tail, payload)
}

// Keys is the key set in force, and what is told of it.
func (c *Control) Keys() *authority.Follower { return c.keys }

// Send brings a message to the fleet beside the records.
func (c *Control) Send(ctx context.Context, ch schema.Channel, payload []byte) error {
	return c.send(ctx, ch, "", payload)
}

// updates are those that people at the board see; nil: none run.
func (c *Control) updates() updates.Updates {
	if c.cfg.Updates == nil {
		return nil
	}
	return c.cfg.Updates
}

// serveLocal lets people at the board see it and change it (fulmar local).
func (c *Control) serveLocal(ctx context.Context) error {
	cfg := c.cfg.Base()
	err := local.New(local.Config{
		Path: cfg.LocalSocket(),
		Access: func() local.Access {
			cfg := c.cfg.Config()
			return local.Access{Operators: cfg.Local.Operators, Viewers: cfg.Local.Viewers}
		},
		Name: c.cfg.Name, State: c, Commands: func() local.Commands { return c.commands }, Twin: func() local.Twin { return c.shadow }, Updates: c.updates,
		Allow: c.decide.Allow, Log: c.cfg.Log.With("part", "local"),
	}).Run(ctx)
	if err != nil {
		// As with the status: it must not take the board down.
		c.cfg.Log.Error("people at the board are not heard", "err", err)
		c.cfg.Say("local", "refused", schema.SeverityWarn, "fulmar local does not reach this board: "+err.Error())
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/control"
	"fulmar/agent/plant"
	"fulmar/agent/shadow"
	"fulmar/command"
	"fulmar/device/output"
	"fulmar/device/output/simulated"
	"fulmar/device/schedule"
	"fulmar/fleet/access"
	"fulmar/fleet/commands"
	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
	"fulmar/fleet/twins"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/schema/rest"
	"fulmar/twin/wire"
)

const tenant = registry.DefaultTenant

var errLost = errors.New("lost on the way")

// world is a fleet with its database and keys, and boards with all that can be told to
// them (agent/control), in simulated time. Between them is a line in memory that loses,
// doubles, delays and reorders what it carries, and is cut.
type world struct {
	t      *testing.T
	dir    string
	reg    *registry.Registry
	keys   *keyring.Keyring
	twins  *twins.Twins
	orders *commands.Commands
	fleet  *run.Group
	posts  map[string]*post
	air    sync.WaitGroup // messages on their way to boards

	mu   sync.Mutex
	r    *rand.Rand
	calm bool // the line loses and doubles nothing
	lost int  // messages
}

// newWorld begins a fleet and its boards. It is called in a bubble of synctest.
func newWorld(t *testing.T, seed uint64, boards int) *world {
	t.Helper()
	w := &world{t: t, dir: memoryDir(t), posts: map[string]*post{}, r: rand.New(rand.NewPCG(seed, 7))}
	var err error
	if w.reg, err = registry.Open(filepath.Join(w.dir, "fleet")); err != nil {
		t.Fatal(err)
	}
	if w.keys, err = keyring.Open(filepath.Join(w.dir, "fleet", keyring.Dir), nil); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	w.twins = twins.New(twins.Config{Rows: w.reg.Twins(), Sign: w.keys.SignTwin, Open: w.keys.OpenTwin, Takes: w.keys.Takes, Courier: w, Log: log})
	w.orders, err = commands.New(context.Background(), commands.Config{Rows: w.reg.Commands(), Sign: w.keys.SignCommand, Courier: w, Fleet: w, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	w.fleet = run.New(context.Background())
	w.fleet.Go("twins", w.twins.Run)
	w.fleet.Go("commands", w.orders.Run)
	for i := range boards {
		w.open(fmt.Sprintf("dock-%02d", i+1), uint64(i+1))
	}
	return w
}

// memoryDir is a folder in memory, where there is one: what a disk does is shown elsewhere.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-alone-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// close ends boards and fleet; a bubble waits for all of its goroutines.
func (w *world) close() {
	for _, p := range w.posts {
		p.cut()
		p.run.Stop()
		if err := p.run.Wait(20 * time.Second); err != nil {
			w.t.Errorf("%s: %v", p.name, err)
		}
	}
	w.fleet.Stop()
	if err := w.fleet.Wait(20 * time.Second); err != nil {
		w.t.Error(err)
	}
	w.air.Wait()
	if err := errors.Join(w.reg.Close(), w.keys.Close()); err != nil {
		w.t.Error(err)
	}
}

// chance is one in n, while the line is not calm.
func (w *world) chance(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm || w.r.IntN(n) != 0 {
		return false
	}
	w.lost++
	return true
}

func (w *world) within(d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.r.Int64N(int64(d)))
}

func (w *world) settle(calm bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = calm
}

// delay is how long a message is on its way: another time for each, so that they overtake
// each other.
func (w *world) delay() time.Duration { return time.Millisecond + w.within(200*time.Millisecond) }

// Boards and Kinds say which boards there are.
func (w *world) Boards(context.Context, access.Caller, string) (all []string, _ error) {
	for n := range w.posts {
		all = append(all, n)
	}
	slices.Sort(all)
	return all, nil
}

func (w *world) Kinds(ctx context.Context, tenant string) (map[string][]string, error) {
	return w.twins.Commands(ctx, tenant)
}

// SendTwin and SendCommand are the gateway: they do not wait, and promise nothing.
func (w *world) SendTwin(_, name string, d *wire.Down) error {
	b, err := schema.Encode(d)
	if err != nil {
		return err
	}
	if p := w.posts[name]; !p.down(link.Down{Channel: schema.ChanTwinDown, Payload: b}, d.Conn) {
		return twins.ErrAway
	}
	return nil
}

func (w *world) SendCommand(_, name, id string, envelope []byte) error {
	if p := w.posts[name]; !p.down(link.Down{Channel: schema.ChanCommand, Tail: id, Payload: envelope}, 0) {
		return commands.ErrAway
	}
	return nil
}

// post is one board at its place, with its end of the line.
type post struct {
	w      *world
	name   string
	ctl    *control.Control
	lc     link.Config
	clock  schema.Clock
	latest *schedule.Latest
	run    *run.Group

	mu      sync.Mutex
	conn    uint64
	up      context.Context // of the connection; nil: cut
	ending  sync.WaitGroup  // of what runs as long as it
	stop    context.CancelFunc
	healing sync.Mutex
	network bool
	slow    bool                 // commands to the board are held up somewhere,
	held    []link.Down          // these
	sets    map[string][]float64 // what each device was told, in order
}

const postYAML = `board: %s
data: %s
outputs:
  - {name: inlet, kind: simulated, unit: percent, min: 0, max: 100, safe: 0, simulated: {}}
  - {name: bypass, kind: simulated, unit: percent, min: 0, max: 100, safe: 0, simulated: {}}
  - {name: dose, kind: simulated, unit: percent, min: 0, max: 100, safe: 0, simulated: {}}
  - {name: lamp, kind: simulated, min: 0, max: 100, restore: leave, simulated: {}}
rules:
  - name: nobody
    when: "true"
    alone: true
    for: 2m
    do: [{command: set-valve-position, args: {valve: inlet, percent: 0}}, {command: read-sensor-batch}]
  - {name: pressure, when: main.pressure_bar > 8, stale: 1h, do: [{command: trigger-safety-shutdown, args: {reason: pressure}}]}
autonomy: {grace: 30s, back: 10s}
twin:
  policies: [{key: app.edge, policy: edge}, {key: app.max, policy: max}, {key: app.min, policy: min}, {key: app.hold, policy: hold}]
`

// open starts a board, which knows the fleet's keys as after its enrolment.
func (w *world) open(name string, boot uint64) {
	w.t.Helper()
	dir := filepath.Join(w.dir, name)
	base, err := config.Parse([]byte(fmt.Sprintf(postYAML, name, dir)))
	if err == nil {
		// Something that is no socket lies where people at the board would be heard: a
		// socket of the kernel keeps simulated time from passing.
		err = errors.Join(os.MkdirAll(base.IdentityDir(), 0o700), os.WriteFile(base.LocalSocket(), nil, 0o600))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	p := &post{w: w, name: name, clock: schema.NewClock(boot, 20*time.Second), sets: map[string][]float64{}}
	log := slog.New(slog.DiscardHandler)
	p.latest = schedule.NewLatest(p.clock)
	pl := &plant.Plant{}
	pl.Bank, err = output.Open(base.Outputs, output.Deps{
		Dir: dir, Values: p.latest, Clock: p.clock, Log: log, Make: p.device,
		Changed: func() {
			if pl.Changed != nil {
				pl.Changed()
			}
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.ctl, err = control.Open(control.Config{
		Config: func() config.Config { return *base }, Base: func() config.Config { return *base }, Clock: p.clock, BootKnown: true, Release: "r",
		Apply: func(*config.Config) error { return nil },
		Health: func() shadow.Health {
			return shadow.Health{Ticks: uint64(p.clock.Now().Mono), Every: time.Second}
		},
		Plant: pl, Latest: p.latest, Stop: func(string) {}, Tell: func(schema.Report) {}, Say: func(string, string, schema.Severity, string) {},
		Name: func() (string, string) { return tenant, name }, State: func() onboard.State { return onboard.State{} }, Log: log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	_, set := w.keys.KeySet()
	p.ctl.Learn(set)
	p.ctl.Link(&p.lc)
	p.ctl.Use(p, tenant, name)
	w.posts[name] = p
	p.run = run.New(context.Background())
	p.run.Go("bank", pl.Bank.Run)
	p.run.Go("control", p.ctl.Run)
}

// device makes a simulated device that remembers what it was told: what happened is not
// the board's word.
func (p *post) device(c *output.Config) (output.Output, error) {
	return &told{Output: simulated.New(c.Name, *c.Simulated), p: p}, nil
}

type told struct {
	output.Output
	p *post
}

func (d *told) Set(ctx context.Context, v float64) error {
	d.p.mu.Lock()
	d.p.sets[d.Name()] = append(d.p.sets[d.Name()], v)
	d.p.mu.Unlock()
	return d.Output.Set(ctx, v)
}

// told gives what a device was told since forget.
func (p *post) told(device string) []float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sets[device])
}

func (p *post) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.sets)
}

// there gives the connection; nil: there is none.
func (p *post) there() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

// cut takes the network away until heal.
func (p *post) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network = false
	p.end()
}

// end ends the connection. Under mu.
func (p *post) end() {
	if p.up != nil {
		p.stop()
		p.up = nil
	}
}

// drop is a message that got lost: the connection ends with it, as TCP has it, and the
// board connects anew after some seconds.
func (p *post) drop(up context.Context) {
	p.mu.Lock()
	if p.up == up {
		p.end()
	}
	p.mu.Unlock()
	p.w.air.Go(func() {
		time.Sleep(time.Second + p.w.within(20*time.Second))
		p.mu.Lock()
		again := p.network && p.up == nil
		p.mu.Unlock()
		if again {
			p.heal()
		}
	})
}

// heal connects, as the link and the gateway do: the time of the fleet, then all that is
// to be said to each other.
func (p *post) heal() {
	p.healing.Lock()
	defer p.healing.Unlock()
	p.cut()
	p.ending.Wait() // what the old connection had is ended before, as by the link
	p.mu.Lock()
	p.network = true
	p.conn++
	conn := p.conn
	ctx, stop := context.WithCancel(context.Background())
	p.up, p.stop = ctx, stop
	p.mu.Unlock()
	p.lc.Heard(schema.HelloAck{V: schema.Version, Wall: time.Now().UnixMilli()})
	p.ending.Go(func() { p.lc.Connected(ctx, conn) })
	p.w.orders.Hello(tenant, p.name)
}

// down brings a message to the board, or loses it, or brings it twice; false: it is away.
// A command may be lost without a word: a broker that has too much of them drops some.
func (p *post) down(m link.Down, conn uint64) bool {
	up := p.there()
	if up == nil || conn != 0 && conn != p.number() {
		return false
	}
	p.mu.Lock()
	if p.slow && m.Channel == schema.ChanCommand {
		p.held = append(p.held, m)
		p.mu.Unlock()
		return true
	}
	p.mu.Unlock()
	for n := 1; n > 0; n-- {
		if p.w.chance(10) {
			if m.Channel != schema.ChanCommand {
				p.drop(up)
			}
			continue
		}
		if p.w.chance(10) {
			n++
		}
		d := p.w.delay()
		p.w.air.Go(func() {
			time.Sleep(d)
			if up.Err() == nil {
				p.lc.Inbox(m)
			}
		})
	}
	return true
}

// holdUp has commands to the board wait somewhere; release brings what waits, twice.
func (p *post) holdUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = true
}

func (p *post) release() (n int) {
	p.mu.Lock()
	all := p.held
	p.slow, p.held = false, nil
	p.mu.Unlock()
	for _, m := range append(all, all...) {
		p.lc.Inbox(m)
	}
	return len(all)
}

func (p *post) number() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

// Send is the board's end, as [link.Session.Send]: nil comes when the fleet has it. It may
// have it and the word of that is lost.
func (p *post) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	up := p.there()
	if up == nil {
		return link.ErrDown
	}
	for n := 1; n > 0; n-- {
		time.Sleep(p.w.delay())
		if up.Err() != nil {
			return errLost
		}
		if p.w.chance(10) {
			p.drop(up)
			return errLost
		}
		if p.w.chance(10) {
			n++
		}
		if err := p.arrive(ctx, ch, tail, payload); err != nil {
			return err
		}
	}
	if p.w.chance(10) {
		p.drop(up)
	}
	if up.Err() != nil {
		return errLost
	}
	return nil
}

// arrive is the gateway's end of a message.
func (p *post) arrive(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	if ch == schema.ChanResult {
		var r command.Report
		if err := schema.Decode(payload, &r); err != nil || r.Result.ID.String() != tail {
			return fmt.Errorf("report of %s: %w", tail, err)
		}
		return p.w.orders.Report(ctx, tenant, p.name, r)
	}
	var u wire.Up
	if err := schema.Decode(payload, &u); err != nil {
		return err
	}
	d, err := p.w.twins.Up(ctx, tenant, p.name, u)
	if err == nil && d != nil {
		_ = p.w.SendTwin(tenant, p.name, d) // a board that is away asks again
	}
	return err
}

// ann is a person at the fleet.
func ann() access.Caller {
	return access.Caller{Tenant: tenant, Who: "ann", Author: "ann", Rights: rest.Admin.Rights()}
}

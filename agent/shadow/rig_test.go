// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/config"
	"fulmar/schema"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// sign stands in for trust; what is not signed is package trust's and twin's to test.
func sign(statement []byte) ([]byte, error) {
	sum := sha256.Sum256(append([]byte("key"), statement...))
	return append(sum[:], statement...), nil
}

func open(envelope []byte) ([]byte, error) {
	if len(envelope) < 32 {
		return nil, errors.New("too short")
	}
	if again, _ := sign(envelope[32:]); !bytes.Equal(again, envelope) {
		return nil, errors.New("not signed")
	}
	return envelope[32:], nil
}

func val(t testing.TB, v any) twin.Value {
	t.Helper()
	b, err := twin.ValueOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// memDisk is a disk in memory that counts, and fails or stops on demand.
type memDisk struct {
	files  map[string][]byte
	writes int
	bad    error                  // of each write
	cut    func(name string) bool // the power goes in this write: true leaves the new file
	last   int                    // >0: the write after which the disk takes nothing more
}

// errPower is what a write panics with when the power goes: nothing runs after it.
var errPower = errors.New("the power is gone")

func (d *memDisk) Read(name string) ([]byte, error) {
	b, ok := d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(b), nil
}

func (d *memDisk) Write(name string, b []byte) error {
	if d.bad != nil {
		return d.bad
	}
	if d.writes++; d.last > 0 && d.writes > d.last {
		if d.bad = errPower; d.writes%2 == 0 {
			d.files[name] = bytes.Clone(b)
		}
		return d.bad
	}
	if d.cut != nil {
		if d.cut(name) {
			d.files[name] = bytes.Clone(b)
		}
		panic(errPower)
	}
	d.files[name] = bytes.Clone(b)
	return nil
}

func (d *memDisk) Aside(name string) error {
	d.files[name+".bad"] = d.files[name]
	delete(d.files, name)
	return nil
}

const baseYAML = `
board: b
models: [{name: parcels, path: "builtin:parcels"}]
cameras:
  - {name: cam0, kind: scene, fps: 5, model: parcels}
  - {name: cam1, kind: scene, fps: 5, model: parcels}
twin:
  policies: [{key: "app.hold*", policy: hold}, {key: "app.edge*", policy: edge}]
`

// rig is a board and its fleet in simulated time. All that is not the Shadow's runs in
// the test's goroutine, or is called by the Shadow's.
type rig struct {
	t     *testing.T
	disk  *memDisk
	base  config.Config
	boot  uint64
	clock schema.Clock
	proof time.Duration
	late  time.Duration // of the link, each way

	fleet *twin.Fleet
	conn  uint64
	link  context.Context // nil: down
	cut   context.CancelFunc
	ups   []*wire.Up
	downs int
	count func([]byte) // of what the fleet sends
	lose  func() bool  // of messages up and down

	sh      *Shadow
	stop    context.CancelFunc
	ended   chan error
	health  Health
	still   bool // the sampler
	applied []map[string]twin.Value
	cfg     *config.Config
	refuse  error // of Apply
	told    []schema.Report
	order   sync.Mutex
}

// met orders what the test did before a wait before what the Shadow's goroutines do in it,
// for the race detector: that simulated time has passed is no order to it.
func (r *rig) met() {
	r.order.Lock()
	defer r.order.Unlock()
}

// after does f beside the test, and beside none of what the Shadow asks of the rig.
func (r *rig) after(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		r.order.Lock()
		defer r.order.Unlock()
		f()
	})
}

func newRig(t *testing.T) *rig {
	base, err := config.Parse([]byte(baseYAML))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, disk: &memDisk{files: map[string][]byte{}}, base: *base, boot: 7, late: 10 * time.Millisecond, lose: func() bool { return false }}
	r.clock = schema.NewClock(r.boot, 20*time.Second)
	r.health.Every = time.Second
	r.fleetOf(nil)
	return r
}

func (r *rig) fleetOf(saved []byte) {
	f, err := twin.NewFleet(twin.FleetConfig{Tenant: "t", Board: "b", Instance: twin.InstanceOf('f', 1, 1), Sign: sign, Open: open}, saved)
	if err != nil {
		r.t.Fatal(err)
	}
	r.fleet = f
}

func (r *rig) config() Config {
	return Config{
		Tenant: "t", Board: "b", Disk: r.disk, Clock: r.clock, BootKnown: true, Open: open, Proof: r.proof,
		Base: func() config.Config { return r.base },
		Check: func(key string, _ twin.Value) error {
			if strings.HasPrefix(key, "rule.") {
				return nil
			}
			return errors.New("is no key of this board")
		},
		Apply: func(_ context.Context, c *config.Config, eff map[string]twin.Value) error {
			r.cfg = c
			r.applied = append(r.applied, eff)
			return r.refuse
		},
		Health: func() Health {
			r.order.Lock()
			defer r.order.Unlock()
			h := r.health
			if h.Ticks = 1; !r.still {
				h.Ticks = uint64(time.Now().UnixNano())
			}
			h.Causes = slices.Clone(h.Causes)
			return h
		},
		Send: r.send, Tell: func(rep schema.Report) {
			r.met()
			if err := rep.Validate(); err != nil {
				r.t.Error(err)
			}
			r.told = append(r.told, rep)
		},
		Log: slog.New(slog.DiscardHandler),
	}
}

// start runs a board from what lies on its disk.
func (r *rig) start() {
	r.sh = New(r.config())
	r.run()
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop, r.ended = cancel, make(chan error, 1)
	sh, ended := r.sh, r.ended
	go func() { ended <- sh.Run(ctx) }()
	synctest.Wait()
}

// end stops the board in order.
func (r *rig) end() {
	r.down()
	r.stop()
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
}

// crash ends the program at once: what it would write from now on does not come.
func (r *rig) crash() {
	was := r.disk
	r.disk = &memDisk{files: map[string][]byte{}}
	for name, b := range was.files {
		r.disk.files[name] = b
	}
	was.bad = errors.New("dead")
	r.down()
	r.stop()
	<-r.ended
	r.disk.writes = was.writes
}

// reboot is what a power cut does to the clock.
func (r *rig) reboot(uptime time.Duration) {
	r.boot++
	r.clock = schema.NewClock(r.boot, uptime)
}

func (r *rig) up() {
	r.down()
	r.conn++
	r.link, r.cut = context.WithCancel(context.Background())
	r.fleet.Connect(r.conn)
	r.sh.Connected(r.link, r.conn)
	r.wait(time.Second)
}

func (r *rig) down() {
	if r.link != nil {
		r.cut()
		r.link = nil
	}
}

func (r *rig) wait(d time.Duration) {
	r.met()
	time.Sleep(d)
	synctest.Wait()
}

// send is the link: it brings a message to the fleet and, a moment later, its answer.
func (r *rig) send(ctx context.Context, payload []byte) error {
	r.met()
	link := r.link
	if link == nil {
		return errors.New("link down")
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.late):
	}
	if r.link != link || r.lose() {
		return errors.New("link lost")
	}
	var u wire.Up
	if err := schema.Decode(payload, &u); err != nil {
		r.t.Error(err)
	}
	r.ups = append(r.ups, &u)
	d, err := r.fleet.Receive(&u)
	if err != nil && !errors.Is(err, twin.ErrStale) {
		r.t.Error(err)
	}
	if err == nil {
		r.bring(d)
	}
	return nil
}

// bring sends a message of the fleet.
func (r *rig) bring(d *wire.Down) {
	if d == nil {
		return
	}
	b, err := schema.Encode(d)
	if err != nil {
		r.t.Error(err)
	}
	if r.downs++; r.count != nil {
		r.count(b)
	}
	if link := r.link; link != nil && !r.lose() {
		r.after(r.late, func() {
			if r.link == link {
				r.sh.Down(b)
			}
		})
	}
}

func (r *rig) edit(values map[string]any) {
	r.t.Helper()
	vs := map[string]twin.Value{}
	for k, v := range values {
		if vs[k] = nil; v != nil {
			vs[k] = val(r.t, v)
		}
	}
	if _, err := r.fleet.Edit("dora", "a shift change", vs); err != nil {
		r.t.Fatal(err)
	}
	r.bring(r.fleet.Push())
}

func (r *rig) set(key string, v any, lease time.Duration) {
	r.t.Helper()
	if err := r.sh.Set(key, twin.Edit{Value: val(r.t, v), Author: "local/eva", LeaseMs: uint64(lease.Milliseconds())}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) holds(key string, want any) {
	r.t.Helper()
	var v twin.Value
	if want != nil {
		v = val(r.t, want)
	}
	if got, _ := r.sh.Get(key); !bytes.Equal(got, v) {
		r.t.Errorf("%s holds %x, wants %v", key, got, want)
	}
}

// reported gives a reported key as the fleet has it.
func (r *rig) reported(key string) any {
	v, ok := r.fleet.Reported()[key]
	if !ok {
		return nil
	}
	a, err := v.Any()
	if err != nil {
		r.t.Error(err)
	}
	return a
}

// says gives what was told of a subject since the last call, as "state,state".
func (r *rig) says(subject string) string {
	var out []string
	for _, rep := range r.told {
		if rep.Subject == subject {
			out = append(out, rep.State)
		}
	}
	r.told = slices.DeleteFunc(r.told, func(rep schema.Report) bool { return rep.Subject == subject })
	return strings.Join(out, ",")
}

func (r *rig) kinds() string {
	var out []string
	for _, c := range r.sh.History() {
		out = append(out, strings.TrimSpace(fmt.Sprint(c.Kind, " ", c.Key)))
	}
	return strings.Join(out, ", ")
}

// simulate runs a test in simulated time.
func simulate(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, f)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/plant"
	"fulmar/agent/shadow"
	"fulmar/command"
	"fulmar/device/schedule"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/trust"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// host is a board around a Control, and the fleet behind its link, in simulated time. The
// parts of the control are the real ones, on a real disk, with real outputs (simulated
// devices) and real signatures. The host's own parts are the agent's in short.
type host struct {
	t    *testing.T
	dir  string
	yaml string
	keys map[trust.Role]crypto.Signer
	seq  uint64
	line link.Config // as the control has it

	c      *Control
	plant  *plant.Plant
	latest *schedule.Latest
	clock  schema.Clock
	end    func()
	cut    func()
	conn   uint64

	mu    sync.Mutex
	base  config.Config
	cfg   config.Config
	fleet *twin.Fleet
	up    bool
	said  []string
	told  []command.Report
}

const boardYAML = `
board: b
outputs:
  - {name: valve, kind: simulated, unit: "%", min: 0, max: 100, safe: 0}
  - {name: lamp, kind: simulated, min: 0, max: 1}
sensors: {synthetic: 1}
`

// newHost makes a board that was never started. Call it outside of the bubble: its folder
// is real.
func newHost(t *testing.T, yaml string) *host {
	t.Helper()
	h := &host{t: t, yaml: yaml, keys: map[trust.Role]crypto.Signer{}, cut: func() {}}
	// So long that its socket cannot be: one that is waited at is no part of simulated time.
	h.dir = filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	for _, r := range []trust.Role{trust.RoleRoot, trust.RoleCommand, trust.RoleOperator} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h.keys[r] = key
	}
	f, err := twin.NewFleet(twin.FleetConfig{Tenant: "t", Board: "b", Instance: twin.InstanceOf('f', 1, 1), Sign: func(b []byte) ([]byte, error) {
		return h.sign(trust.TypeTwin, b, trust.RoleCommand), nil
	}, Open: func([]byte) ([]byte, error) { return nil, errors.New("this fleet has no backup") }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.fleet = f
	return h
}

func (h *host) sign(typ trust.Type, payload []byte, r trust.Role) []byte {
	e, err := trust.NewEnvelope(typ, payload)
	if err == nil {
		err = e.Sign(h.keys[r])
	}
	if err != nil {
		h.t.Error(err)
		return nil
	}
	b, err := e.Encode()
	if err != nil {
		h.t.Error(err)
	}
	return b
}

// keySet is the envelope of the fleet's keys.
func (h *host) keySet() []byte {
	s := &trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{}}
	for r, k := range h.keys {
		s.Thresholds[r] = 1
		s.Keys = append(s.Keys, trust.Key{Role: r, Public: k.Public()})
	}
	b, err := s.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	return h.sign(trust.TypeKeySet, b, trust.RoleRoot)
}

// start starts the program on the board.
func (h *host) start() {
	h.t.Helper()
	base, err := config.Parse([]byte(h.yaml))
	if err != nil {
		h.t.Fatal(err)
	}
	base.Data = h.dir
	h.base, h.cfg = *base, *base
	h.clock = schema.NewClock(1, 0)
	h.latest = schedule.NewLatest(h.clock)
	log := slog.New(slog.DiscardHandler)
	if h.plant, err = plant.Open(base.Outputs, h.dir, "", h.latest, h.clock, log, h.say); err != nil {
		h.t.Fatal(err)
	}
	h.c, err = Open(Config{
		Config: func() config.Config { h.mu.Lock(); defer h.mu.Unlock(); return h.cfg }, Base: func() config.Config { return h.base },
		Clock: h.clock, BootKnown: true, Release: "test", Plant: h.plant, Latest: h.latest,
		Apply: func(c *config.Config) error { h.mu.Lock(); defer h.mu.Unlock(); h.cfg = *c; return nil },
		Health: func() shadow.Health {
			return shadow.Health{Ticks: uint64(time.Now().UnixNano()), Every: time.Second}
		},
		Tell: func(schema.Report) {}, Say: h.say, Name: func() (string, string) { return "t", "b" }, State: func() onboard.State { return onboard.State{} }, Log: log,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.c.Link(&h.line)
	h.c.Use(h, "t", "b")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- h.c.Run(ctx) }()
	go func() { ended <- h.plant.Run(ctx) }()
	h.end = func() {
		h.t.Helper()
		h.down()
		begun := time.Now()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				h.t.Error(err)
			}
		}
		if d := time.Since(begun); d > stopGrace {
			h.t.Errorf("the stop took %v", d)
		}
	}
	synctest.Wait()
}

func (h *host) say(subject, state string, _ schema.Severity, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, fmt.Sprintf("%s %s: %s", subject, state, text))
}

// words gives what was said of a subject since the last call.
func (h *host) words(subject string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out, left []string
	for _, s := range h.said {
		if strings.HasPrefix(s, subject+" ") {
			out = append(out, s)
		} else {
			left = append(left, s)
		}
	}
	h.said = left
	return strings.Join(out, "\n")
}

// connect brings the link up, with or without the fleet's keys.
func (h *host) connect() {
	h.down()
	h.conn++
	ctx, cancel := context.WithCancel(context.Background())
	h.mu.Lock()
	h.up, h.cut = true, cancel
	h.fleet.Connect(h.conn)
	h.mu.Unlock()
	h.line.Heard(schema.HelloAck{Wall: time.Now().UnixMilli()})
	go h.line.Connected(ctx, h.conn)
	h.wait(time.Second)
}

// known is a board that is connected and has the fleet's keys.
func (h *host) known() {
	h.connect()
	h.line.Inbox(link.Down{Channel: schema.ChanKeys, Payload: h.keySet()})
	h.wait(time.Second)
}

func (h *host) down() {
	h.cut()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.up, h.cut = false, func() {}
}

func (h *host) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Send is the link up, with the fleet at its end.
func (h *host) Send(_ context.Context, ch schema.Channel, _ string, payload []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return link.ErrDown
	}
	if ch == schema.ChanResult {
		var r command.Report
		if err := schema.Decode(payload, &r); err != nil {
			h.t.Error(err)
		}
		h.told = append(h.told, r)
		return nil
	}
	var u wire.Up
	if err := schema.Decode(payload, &u); err != nil {
		h.t.Error(err)
	}
	d, err := h.fleet.Receive(&u)
	if err != nil && !errors.Is(err, twin.ErrStale) {
		h.t.Error(err)
	}
	h.bring(d)
	return nil
}

// bring sends a message of the fleet's twin, with the lock.
func (h *host) bring(d *wire.Down) {
	if d == nil || !h.up {
		return
	}
	b, err := schema.Encode(d)
	if err != nil {
		h.t.Error(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { h.line.Inbox(link.Down{Channel: schema.ChanTwinDown, Payload: b}) })
}

// edit sets keys at the fleet; nil deletes.
func (h *host) edit(values map[string]any) {
	h.t.Helper()
	vs := map[string]twin.Value{}
	for k, v := range values {
		if vs[k] = nil; v != nil {
			w, err := twin.ValueOf(v)
			if err != nil {
				h.t.Fatal(err)
			}
			vs[k] = w
		}
	}
	h.mu.Lock()
	if _, err := h.fleet.Edit("dora", "", vs); err != nil {
		h.t.Error(err)
	}
	h.bring(h.fleet.Push())
	h.mu.Unlock()
	h.wait(time.Second)
}

// reported gives a reported key as the fleet has it; nil: it has none.
func (h *host) reported(key string) any {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.fleet.Reported()[key]
	if !ok {
		return nil
	}
	a, err := v.Any()
	if err != nil {
		h.t.Error(err)
	}
	return a
}

// at gives fields of a reported map as text.
func (h *host) at(key string, fields ...string) string {
	m, _ := h.reported(key).(map[any]any)
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = fmt.Sprint(m[f])
	}
	return strings.Join(out, " ")
}

// order gives a command of the fleet, by somebody, and waits for its end.
func (h *host) order(by, name, args string) command.Result {
	h.t.Helper()
	raw, err := command.FromJSON([]byte(args))
	if err != nil {
		h.t.Fatal(err)
	}
	h.seq++
	now := uint64(time.Now().UnixMilli())
	c := &command.Command{V: 1, Tenant: "t", Board: "b", Name: name, Actor: command.ActorFleet, By: by, Seq: h.seq, Args: raw, Issued: now, Expires: now + 3_600_000}
	_, _ = rand.Read(c.ID[:])
	b, err := schema.Encode(c)
	if err != nil {
		h.t.Fatal(err)
	}
	h.line.Inbox(link.Down{Channel: schema.ChanCommand, Tail: c.ID.String(), Payload: h.sign(trust.TypeCommand, b, trust.RoleCommand)})
	synctest.Wait()
	return h.ends(c.ID)
}

func (h *host) ends(id command.ID) command.Result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := h.c.Commands().Wait(ctx, id)
	if err != nil {
		h.t.Errorf("%v", err)
	}
	return r
}

// given lists the commands of an actor that the board remembers, as "name state".
func (h *host) given(actor string) (out []string) {
	h.t.Helper()
	all, err := h.c.Commands().List(context.Background(), 100)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, r := range all {
		if r.Command.Actor == actor {
			out = append(out, r.Command.Name+" "+r.Result.State.String())
		}
	}
	return out
}

// stands gives where an output is.
func (h *host) stands(name string) (float64, string) {
	h.t.Helper()
	for _, s := range h.plant.Bank.States() {
		if s.Name == name && s.Known {
			return s.Value, s.By
		}
	}
	h.t.Errorf("where %s stands is not known", name)
	return 0, ""
}

// read is what the sampler does with a reading.
func (h *host) read(series string, v float64) {
	h.latest.Put(series, v, schema.QualityGood, h.clock.Now().Mono)
	h.c.Samples(&schema.Samples{Series: []string{series}, Value: []float64{v}})
	synctest.Wait()
}

// simulate runs a board in simulated time, from its first start.
func simulate(t *testing.T, yaml string, f func(t *testing.T, h *host)) {
	t.Helper()
	t.Parallel()
	h := newHost(t, boardYAML+yaml)
	synctest.Test(t, func(t *testing.T) {
		h.t = t
		h.start()
		defer func() { h.end() }()
		f(t, h)
	})
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/device/schedule"
	"fulmar/schema"
	"fulmar/trust"
)

// bank is outputs in memory: what the board's real ones do, as far as commands see it.
type bank struct {
	mu      sync.Mutex
	values  map[string]float64
	units   map[string]string
	blind   bool // values cannot be asked
	latched string
	sets    int
	moves   []string
	slow    time.Duration
}

func newBank() *bank {
	return &bank{values: map[string]float64{"inlet": 10, "drain": 0, "heater": 0}, units: map[string]string{"inlet": "%", "drain": "percent", "heater": "W"}}
}

func (b *bank) List() (out []Output) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range []string{"drain", "heater", "inlet"} {
		out = append(out, Output{Name: n, Unit: b.units[n], Value: b.values[n], Known: !b.blind})
	}
	return out
}

func (b *bank) Set(ctx context.Context, name string, v float64, who string) error {
	select {
	case <-time.After(b.slow):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.latched != "" {
		return &command.Error{Code: "safety-shutdown", Text: "a safety shutdown is in force"}
	}
	if v > 5000 {
		return &command.Error{Code: "out-of-range", Text: fmt.Sprintf("%v is over 5000", v)}
	}
	b.values[name] = v
	b.sets++
	b.moves = append(b.moves, fmt.Sprintf("%s=%v by %s", name, v, who))
	return nil
}

func (b *bank) Shutdown(_ context.Context, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latched, b.values = reason, map[string]float64{"inlet": 0, "heater": 0}
	return nil
}

func (b *bank) Release(context.Context, string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latched = ""
	return nil
}

func (b *bank) Safe() (bool, schema.Time, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latched != "", schema.Time{}, b.latched
}

func (b *bank) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sets
}

// settings remember what was set.
type settings struct {
	mu  sync.Mutex
	set map[string]string
}

func (s *settings) Set(_ context.Context, key string, v any, who string, lease time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "sample.none.period" {
		return errors.New("sample.none.period: there is no group none")
	}
	s.set[key] = fmt.Sprintf("%v for %v by %s", v, lease, who)
	return nil
}

type inferer struct{ restarts int }

func (i *inferer) Snapshot(_ context.Context, camera string) (string, error) {
	if camera != "cam0" {
		return "", errors.New("there is no camera " + camera)
	}
	return "cam0-1.jpg", nil
}

func (i *inferer) Restart(context.Context) error { i.restarts++; return nil }

// fleet is who signs: keys of every role.
type fleet struct {
	set  *trust.KeySet
	keys map[trust.Role]crypto.Signer
	seq  uint64
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{keys: map[trust.Role]crypto.Signer{}, set: &trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{}}}
	for _, r := range []trust.Role{trust.RoleRoot, trust.RoleCommand, trust.RoleOperator, trust.RoleTime} {
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		f.keys[r], f.set.Thresholds[r] = priv, 1
		f.set.Keys = append(f.set.Keys, trust.Key{Role: r, Public: pub})
	}
	return f
}

func (f *fleet) open(envelope []byte) ([]byte, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	return f.set.Verify(e, trust.TypeCommand, 0)
}

func (f *fleet) operator(envelope []byte) ([]byte, string, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, "", err
	}
	b, err := f.set.Verify(e, trust.TypeOperator, 0)
	if err != nil {
		return nil, "", err
	}
	id, err := trust.KeyID(f.keys[trust.RoleOperator].Public())
	return b, id, err
}

func sign(t testing.TB, typ trust.Type, c *command.Command, key crypto.Signer) []byte {
	t.Helper()
	p, err := schema.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.NewEnvelope(typ, p)
	if err == nil {
		err = e.Sign(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// order is a command that the fleet signs, valid for a minute.
func (f *fleet) order(t testing.TB, name, args string, change ...func(*command.Command)) (command.ID, []byte) {
	t.Helper()
	f.seq++
	now := uint64(time.Now().UnixMilli())
	c := &command.Command{
		V: 1, Tenant: "t", Board: "b", Name: name, Actor: command.ActorFleet, By: "user/ann", Seq: f.seq,
		Args: arguments(t, args), Issued: now, Expires: now + 60_000,
	}
	if _, err := rand.Read(c.ID[:]); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(c)
	}
	return c.ID, sign(t, trust.TypeCommand, c, f.keys[trust.RoleCommand])
}

func arguments(t testing.TB, text string) []byte {
	t.Helper()
	b, err := command.FromJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// station is one board with all that commands act upon.
type station struct {
	t    testing.TB
	dir  string
	f    *fleet
	s    *Service
	bank *bank
	set  *settings
	inf  *inferer
	news *schedule.Latest
	stop func()
	cut  func() // ends the connection

	mu      sync.Mutex
	sent    []command.Report
	kept    map[string][]byte
	stopped []string
	unknown bool // the fleet's time
	far     time.Duration
}

func newStation(t testing.TB) *station {
	t.Helper()
	st := &station{t: t, dir: t.TempDir(), f: newFleet(t), bank: newBank(), set: &settings{set: map[string]string{}}, inf: &inferer{}, kept: map[string][]byte{}}
	st.news = schedule.NewLatest(schema.NewClock(7, 0))
	st.start()
	return st
}

func (st *station) config() Config {
	return Config{
		Address: func() (string, string) { return "t", "b" }, Dir: st.dir, Clock: schema.NewClock(7, 0), Release: "1.2.3",
		Now: func() (uint64, bool) {
			st.mu.Lock()
			defer st.mu.Unlock()
			return uint64(time.Now().UnixMilli()), !st.unknown
		},
		Open: st.f.open, Operator: st.f.operator,
		Send: func(_ context.Context, id string, p []byte) error {
			var r command.Report
			if err := schema.Decode(p, &r); err != nil || r.Result.ID.String() != id {
				st.t.Errorf("report of %s: %v", id, err)
			}
			time.Sleep(st.far)
			st.mu.Lock()
			defer st.mu.Unlock()
			st.sent = append(st.sent, r)
			return nil
		},
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
		Outputs: st.bank, Settings: st.set, Worker: st.inf, Latest: st.news,
		Stop: func(why string) {
			st.mu.Lock()
			st.stopped = append(st.stopped, why)
			stop := st.stop
			st.mu.Unlock()
			go stop()
		},
		Diagnose: func(_ context.Context, add func(string, []byte)) {
			add("health.json", []byte(`{"ok":true}`))
			add("log.txt", slices.Repeat([]byte("a line\n"), 1<<20))
			noise := make([]byte, 3<<20)
			_, _ = rand.Read(noise)
			add("noise", noise)
		},
		Keep: func(_ context.Context, name, _, _ string, data []byte) error {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.kept[name] = data
			return nil
		},
	}
}

func (st *station) start() { st.begin(st.config()) }

func (st *station) begin(cfg Config) {
	st.t.Helper()
	s, err := Open(cfg)
	if err != nil {
		st.t.Fatal(err)
	}
	st.s = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		if err := s.Run(ctx); err != nil {
			st.t.Error(err)
		}
		close(done)
	}()
	st.mu.Lock()
	st.stop = func() { cancel(); <-done }
	st.mu.Unlock()
	st.t.Cleanup(st.stop)
}

func (st *station) connect() {
	ctx, cancel := context.WithCancel(context.Background())
	st.s.connect(ctx)
	go st.s.Connected(ctx, 1)
	st.cut = cancel
	st.t.Cleanup(cancel)
}

// ends waits for the end of a command.
func (st *station) ends(id command.ID, want command.State, code string) command.Result {
	st.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var r command.Result
	var err error
	for { // until it came
		r, err = st.s.Wait(ctx, id)
		if err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil || r.State != want || r.Code != code {
		st.t.Errorf("ended as %v %s %q, %v; wants %v %s", r.State, r.Code, r.Text, err, want, code)
	}
	return r
}

func (st *station) local(actor, name, args string) (command.ID, command.Result) {
	st.t.Helper()
	r, err := st.s.Local(context.Background(), actor, name, arguments(st.t, args), Options{Reason: "a test"})
	if err != nil {
		st.t.Errorf("%s: %v", name, err)
	}
	return r.ID, r
}

// reports gives what the fleet was told of a command.
func (st *station) reports(id command.ID) (out []command.Report) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, r := range st.sent {
		if r.Result.ID == id {
			out = append(out, r)
		}
	}
	return out
}

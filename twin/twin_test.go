// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/twin/section"
	"fulmar/twin/wire"
)

func val(t testing.TB, v any) Value {
	t.Helper()
	b, err := ValueOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pair is a board and its fleet, in one room.
type pair struct {
	t     testing.TB
	board *Board
	fleet *Fleet
	conn  uint64
}

func newPair(t testing.TB, change func(*BoardConfig)) *pair {
	cfg := BoardConfig{Tenant: "t", Board: "b", Instance: InstanceOf('b', 1, 7), Open: open, Policy: policyOf}
	if change != nil {
		change(&cfg)
	}
	b, err := NewBoard(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFleet(FleetConfig{Tenant: "t", Board: "b", Instance: InstanceOf('f', 1, 7), Sign: sign, Open: open}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{t: t, board: b, fleet: f}
}

// meet is a connection, or what is said on one that stands.
func (p *pair) meet(u *wire.Up) {
	p.t.Helper()
	if u == nil {
		p.conn++
		p.fleet.Connect(p.conn)
		u = p.board.Hello(p.conn)
	}
	for range 10 {
		d, err := p.fleet.Receive(u)
		if err != nil {
			p.t.Fatal(err)
		}
		if d == nil {
			return
		}
		if u, err = p.board.Receive(d); err != nil {
			p.t.Fatal(err)
		}
		if u == nil {
			return
		}
	}
	p.t.Fatal("they talk without end")
}

func (p *pair) edit(values map[string]Value) {
	p.t.Helper()
	if _, err := p.fleet.Edit("alice", "a shift change", values); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) set(key string, v any, lease time.Duration) {
	p.t.Helper()
	if err := p.board.Set(key, Edit{Value: val(p.t, v), Author: "operator", LeaseMs: uint64(lease.Milliseconds())}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) holds(key string, want any, from Source) {
	p.t.Helper()
	var v Value
	if want != nil {
		v = val(p.t, want)
	}
	if got, src := p.board.Effective(key); !bytes.Equal(got, v) || src != from {
		p.t.Errorf("%s holds %x from %d, wants %v from %d", key, got, src, want, from)
	}
}

// events gives the kinds and keys of what was told, and confirms it.
func (p *pair) events() string {
	var out []string
	for _, e := range p.board.Events() {
		out = append(out, fmt.Sprint(e.Kind, " ", e.Key))
	}
	p.board.Confirm(len(p.board.Events()))
	return strings.Join(out, ", ")
}

// TestPolicies: two edits that have not seen each other, by each policy, and where the
// fleet deleted the key; one that has seen the other always replaces it.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key          string
		fleet, board any
		holds        any
		from         Source
		events       string
	}{
		{"fleet1", 5, 9, 5, FromDesired, "0 fleet1"},
		{"fleet1", nil, 9, nil, FromNowhere, "0 fleet1"},
		{"edge1", 5, 9, 9, FromOverride, "0 edge1"},
		{"edge1", nil, 9, 9, FromOverride, "0 edge1"},
		{"max1", 5, 9, 9, FromOverride, "0 max1"},
		{"max1", 9, 5, 9, FromDesired, "0 max1"},
		{"max1", 9.5, 9, 9.5, FromDesired, "0 max1"},
		{"max1", 9, 9, 9, FromDesired, "0 max1"},
		{"max1", -3, -2, -2, FromOverride, "0 max1"},
		{"max1", "five", 9, 9, FromOverride, "0 max1"},
		{"min1", 5, 9, 5, FromDesired, "0 min1"},
		{"min1", 9, 5, 5, FromOverride, "0 min1"},
		{"min1", 9, 9, 9, FromDesired, "0 min1"},
		{"hold1", 5, 9, 9, FromOverride, "1 hold1"},
	} {
		p := newPair(t, nil)
		p.edit(map[string]Value{c.key: val(t, 1)})
		p.meet(nil)
		p.holds(c.key, 1, FromDesired)
		p.set(c.key, c.board, 0)
		v := Value(nil)
		if c.fleet != nil {
			v = val(t, c.fleet)
		}
		p.edit(map[string]Value{c.key: v})
		p.meet(nil)
		p.holds(c.key, c.holds, c.from)
		if got := p.events(); got != c.events {
			t.Errorf("%+v: events %q", c, got)
		}
		if held := len(p.board.Conflicts()) == 1; held != (c.key == "hold1") {
			t.Errorf("%+v: conflicts %+v", c, p.board.Conflicts())
		}
		p.meet(nil)
		if got := p.events(); got != "" {
			t.Errorf("%+v: told again: %s", c, got)
		}
		p.edit(map[string]Value{c.key: val(t, 77)}) // the fleet knows all by now
		p.meet(p.board.Hello(p.conn))
		p.holds(c.key, 77, FromDesired)
	}
}

// TestSeenIsNoConflict: an edit made with the other in sight replaces it, either way.
func TestSeenIsNoConflict(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.edit(map[string]Value{"fleet1": val(t, 1)})
	p.meet(nil)
	p.set("fleet1", 2, 0) // knows the fleet's 1
	p.holds("fleet1", 2, FromOverride)
	p.meet(p.board.Pending())
	p.holds("fleet1", 2, FromOverride)
	if v, from := p.fleet.Effective("fleet1"); !bytes.Equal(v, val(t, 2)) || from != FromOverride {
		t.Errorf("the fleet believes %x", v)
	}
	p.edit(map[string]Value{"fleet1": val(t, 3)}) // knows the board's 2
	d := p.fleet.Push()
	if d == nil || d.Desired.From == 0 && len(d.Desired.Entries) != 1 {
		t.Fatalf("pushed %+v", d)
	}
	u, err := p.board.Receive(d)
	if err != nil {
		t.Fatal(err)
	}
	p.meet(u)
	p.holds("fleet1", 3, FromDesired)
	if got := p.events(); got != "2 fleet1" {
		t.Errorf("events %q, wants that the fleet replaced it", got)
	}
	if p.fleet.Push() != nil || p.board.Pending() != nil {
		t.Error("there is more to say")
	}
	p.set("fleet1", 4, 0)
	if !p.board.Clear("fleet1") || p.board.Clear("fleet1") {
		t.Error("clear tells wrong")
	}
	p.holds("fleet1", 3, FromDesired)
}

// TestLease: an override ends with the time that the board ran, over restarts; what the
// fleet wants holds again.
func TestLease(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.edit(map[string]Value{"edge1": val(t, 1)})
	p.meet(nil)
	p.set("edge1", 2, time.Minute)
	p.board.Tick(40 * time.Second)
	saved, err := p.board.Save()
	if err != nil {
		t.Fatal(err)
	}
	cfg := p.board.cfg
	cfg.Instance = InstanceOf('b', 2, 9)
	if p.board, err = NewBoard(cfg, saved); err != nil {
		t.Fatal(err)
	}
	p.holds("edge1", 2, FromOverride)
	p.edit(map[string]Value{"edge1": val(t, 5)}) // the board wins, and made its edit anew
	p.meet(nil)
	p.holds("edge1", 2, FromOverride)
	if ended := p.board.Tick(19 * time.Second); len(ended) != 0 {
		t.Errorf("%v ended a second early", ended)
	}
	if ended := p.board.Tick(time.Second); len(ended) != 1 || ended[0] != "edge1" {
		t.Errorf("%v ended", ended)
	}
	p.holds("edge1", 5, FromDesired)
	p.meet(nil)
	if len(p.fleet.override.Entries) != 0 {
		t.Errorf("the fleet still has %+v", p.fleet.override.Entries)
	}
}

// TestDeleted: a key that the fleet deleted does not come back with a board that was
// away, nor with a backup; that it was deleted is forgotten only when the board knows.
func TestDeleted(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.edit(map[string]Value{"fleet1": val(t, 1), "fleet2": val(t, 2)})
	p.meet(nil)
	backup, err := p.fleet.Save()
	if err != nil {
		t.Fatal(err)
	}
	p.edit(map[string]Value{"fleet1": nil})
	p.edit(map[string]Value{"fleet2": val(t, 3)})
	if _, ok := p.fleet.desired.Entries["fleet1"]; !ok {
		t.Error("the deletion was forgotten before the board knew")
	}
	p.set("fleet1", 9, 0) // has not seen the deletion, and loses to it
	p.meet(nil)
	p.holds("fleet1", nil, FromNowhere)
	p.edit(map[string]Value{"fleet2": val(t, 4)})
	if _, ok := p.fleet.desired.Entries["fleet1"]; ok {
		t.Error("the deletion is remembered for ever")
	}
	p.meet(nil)
	cfg := p.fleet.cfg
	cfg.Instance = InstanceOf('f', 2, 8)
	if p.fleet, err = NewFleet(cfg, backup); err != nil {
		t.Fatal(err)
	}
	p.edit(map[string]Value{"fleet3": val(t, 6)})
	p.meet(nil)
	p.holds("fleet1", nil, FromNowhere)
	p.holds("fleet2", 4, FromDesired)
	p.holds("fleet3", 6, FromDesired)
}

// TestRefusedAndUndone: a value that the board does not take leaves the one before in
// place, with the reason; a version that made it unhealthy is gone back from, and the
// same edits are not tried again with the next version.
func TestRefusedAndUndone(t *testing.T) {
	t.Parallel()
	p := newPair(t, func(c *BoardConfig) {
		c.Check = func(key string, v Value) error {
			if n, err := v.Any(); err == nil && n.(uint64) > 100 {
				return fmt.Errorf("%s is %v, at most 100", key, n)
			}
			return nil
		}
	})
	p.edit(map[string]Value{"fleet1": val(t, 1), "fleet2": val(t, 2)})
	p.meet(nil)
	p.edit(map[string]Value{"fleet1": val(t, 101), "fleet2": val(t, 3)})
	p.meet(nil)
	p.holds("fleet1", 1, FromDesired)
	p.holds("fleet2", 3, FromDesired)
	if v, refused := p.board.Version(); v != 2 || refused["fleet1"] != "fleet1 is 101, at most 100" || len(refused) != 1 {
		t.Errorf("version %d, refused %v", v, refused)
	}
	if err := p.board.Set("fleet1", Edit{Value: val(t, 102)}); err == nil {
		t.Error("the same value was taken from the board's own people")
	}
	p.board.Prove(nil)
	p.edit(map[string]Value{"fleet3": val(t, 4)})
	p.meet(nil)
	if got := p.events(); got != "4 fleet1" {
		t.Errorf("events %q: a refusal is told once", got)
	}
	if !p.board.Undo("no sample for a minute") || p.board.Undo("again") {
		t.Error("undo tells wrong")
	}
	p.holds("fleet3", nil, FromNowhere)
	p.holds("fleet2", 3, FromDesired)
	p.edit(map[string]Value{"fleet2": val(t, 5)})
	p.meet(nil)
	p.holds("fleet2", 5, FromDesired)
	p.holds("fleet3", nil, FromNowhere)
	p.edit(map[string]Value{"fleet4": val(t, 7)}) // two versions on trial: both go
	p.meet(nil)
	if !p.board.Undo("still none") {
		t.Error("the second time there is nothing to go back to")
	}
	p.holds("fleet2", 3, FromDesired)
	p.holds("fleet4", nil, FromNowhere)
	p.edit(map[string]Value{"fleet2": val(t, 5)})
	p.meet(nil)
	p.board.Prove(func(key string) bool { return key == "fleet2" })
	saved, err := p.board.Save()
	if err != nil {
		t.Fatal(err)
	}
	if p.board, err = NewBoard(p.board.cfg, saved); err != nil {
		t.Fatal(err)
	}
	p.holds("fleet1", 1, FromDesired)
	p.holds("fleet3", nil, FromNowhere)
	p.edit(map[string]Value{"fleet3": val(t, 6)}) // a new edit is tried
	p.meet(nil)
	p.holds("fleet3", 6, FromDesired)
	if !p.board.Undo("after a restart") {
		t.Error("a restart forgot what the board was well with")
	}
	p.holds("fleet2", 5, FromDesired) // proven
	p.holds("fleet3", nil, FromNowhere)
}

// TestSetOverRefused: who sets a key on a board that has refused the fleet's value of it
// knew of that value, so the fleet sees the board's as what holds, and no conflict.
func TestSetOverRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t, func(c *BoardConfig) {
		c.Check = func(_ string, v Value) error {
			if n, err := v.Any(); err == nil && n.(uint64) > 100 {
				return errors.New("at most 100")
			}
			return nil
		}
	})
	p.edit(map[string]Value{"fleet1": val(t, 4)})
	p.meet(nil)
	p.edit(map[string]Value{"fleet1": val(t, 500)})
	p.meet(nil)
	p.set("fleet1", 10, 0)
	p.meet(nil)
	p.holds("fleet1", 10, FromOverride)
	if k := p.fleet.Known()[0]; k.From != FromOverride || k.Conflict || !bytes.Equal(k.Holds, val(t, 10)) {
		t.Errorf("the fleet knows %x from %d, conflict %v; the board has 10", k.Holds, k.From, k.Conflict)
	}
	p.edit(map[string]Value{"fleet1": val(t, 6)}) // who has seen the board's replaces it
	p.meet(nil)
	p.holds("fleet1", 6, FromDesired)
}

// TestRecheck: what was refused is taken once the board can be set to it; what was
// undone is not.
func TestRecheck(t *testing.T) {
	t.Parallel()
	most := uint64(10)
	p := newPair(t, func(c *BoardConfig) {
		c.Check = func(_ string, v Value) error {
			if n, _ := v.Any(); n.(uint64) > most {
				return fmt.Errorf("at most %d", most)
			}
			return nil
		}
	})
	p.edit(map[string]Value{"fleet1": val(t, 5), "fleet2": val(t, 50)})
	p.meet(nil)
	if p.board.Recheck() {
		t.Error("taken against the check")
	}
	p.board.Undo("hot")
	most = 100
	if !p.board.Recheck() || p.board.Recheck() {
		t.Error("recheck tells wrong")
	}
	p.holds("fleet1", nil, FromNowhere)
	p.holds("fleet2", 50, FromDesired)
}

// TestUndoForgotten: a deletion that the fleet has forgotten since is not gone back from.
func TestUndoForgotten(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.edit(map[string]Value{"fleet1": val(t, 1)})
	p.meet(nil)
	p.board.Prove(nil)
	p.edit(map[string]Value{"fleet1": nil})
	p.meet(nil)
	p.edit(map[string]Value{"fleet2": val(t, 2)})
	p.meet(nil)
	if !p.board.Undo("unwell") {
		t.Error("nothing undone")
	}
	p.holds("fleet1", nil, FromNowhere)
	p.holds("fleet2", nil, FromNowhere)
}

// TestClone: a copy that is changed and thrown away leaves no trace in the first one.
func TestClone(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.edit(map[string]Value{"fleet1": val(t, 1), "hold1": val(t, 1)})
	p.meet(nil)
	p.set("fleet1", 2, time.Minute)
	p.set("hold1", 2, 0)
	if err := p.board.Report(map[string]Value{"a": val(t, 1)}); err != nil {
		t.Fatal(err)
	}
	before, err := p.board.Save()
	if err != nil {
		t.Fatal(err)
	}
	c := p.board.Clone()
	for range 3 {
		if err := c.Set("fleet1", Edit{Value: val(t, 9), LeaseMs: 5}); err != nil {
			t.Fatal(err)
		}
	}
	c.Tick(time.Hour)
	c.Clear("hold1")
	c.Undo("x")
	if err := c.Report(map[string]Value{"a": nil, "b": val(t, 1)}); err != nil {
		t.Fatal(err)
	}
	p.edit(map[string]Value{"fleet1": val(t, 3), "hold1": val(t, 3)})
	if _, err := c.Receive(p.fleet.Push()); err != nil {
		t.Fatal(err)
	}
	c.Prove(nil)
	c.Confirm(1)
	after, err := p.board.Save()
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the first one changed (%v)", err)
	}
	if left, ok := p.board.Lease("fleet1"); !ok || left != time.Minute {
		t.Errorf("lease %v", left)
	}
	if in, any := p.board.NextEnd(); !any || in != time.Minute {
		t.Errorf("next end %v", in)
	}
	p.holds("fleet1", 2, FromOverride)
	if u := p.board.Pending(); u == nil || len(u.Reported.Set) != 1 {
		t.Errorf("pending %+v", u)
	}
}

// TestForged: what is not signed, not for this board, or not what was signed is not
// taken; old versions and other connections change nothing.
func TestForged(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.edit(map[string]Value{"fleet1": val(t, 1)})
	p.meet(nil)
	first := p.fleet.desired.Whole()
	p.edit(map[string]Value{"fleet1": val(t, 2)})
	send := func(change func(*wire.Down)) error {
		d := p.fleet.down()
		d.Desired = p.fleet.desired.Whole()
		change(d)
		_, err := p.board.Receive(d)
		return err
	}
	signed := func(tenant, board string, version uint64) []byte {
		st, err := schema.Encode(&wire.Statement{V: 1, Tenant: tenant, Board: board, Version: version, Digest: p.fleet.desired.Digest()})
		if err != nil {
			t.Fatal(err)
		}
		e, _ := sign(st)
		return e
	}
	for what, c := range map[string]struct {
		change func(*wire.Down)
		want   error
	}{
		"no signature":      {func(d *wire.Down) { d.Desired.Envelope = bytes.Repeat([]byte{1}, 90) }, ErrForged},
		"another board's":   {func(d *wire.Down) { d.Desired.Envelope = signed("t", "b2", 2) }, ErrForged},
		"another tenant's":  {func(d *wire.Down) { d.Desired.Envelope = signed("t2", "b", 2) }, ErrForged},
		"another version's": {func(d *wire.Down) { d.Desired.Envelope = signed("t", "b", 3) }, ErrForged},
		"another value":     {func(d *wire.Down) { d.Desired.Entries[0].Value = val(t, 3) }, ErrBase},
		"another author":    {func(d *wire.Down) { d.Desired.Entries[0].Author = "mallory" }, ErrBase},
		"a key more": {func(d *wire.Down) {
			d.Desired.Entries = append(d.Desired.Entries, section.Entry{Key: "x", Dot: d.Desired.Entries[0].Dot})
		}, ErrBase},
		"another connection": {func(d *wire.Down) { d.Conn++ }, ErrStale},
		"an old version":     {func(d *wire.Down) { d.Desired = first }, nil},
		"no CBOR":            {func(d *wire.Down) { d.Desired.Entries[0].Value = []byte{0x5f} }, nil},
	} {
		err := send(c.change)
		if what == "no CBOR" && err != nil {
			err = nil // of its own kind
		} else if what == "no CBOR" {
			err = errors.New("taken")
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, wants %v", what, err, c.want)
		}
		p.holds("fleet1", 1, FromDesired)
	}
	p.meet(nil)
	p.holds("fleet1", 2, FromDesired)
	// And the fleet adopts only what it signed.
	forged := p.board.up()
	forged.Head.Version, forged.Desired = 9, &wire.Desired{Version: 9, Envelope: signed("t", "b", 9)}
	if d, err := p.fleet.Receive(forged); !errors.Is(err, ErrBase) || d != nil {
		t.Errorf("the fleet took a version that it never signed: %v, %+v", err, d)
	}
}

// TestBounds: a section that is full says so and stays as it was.
func TestBounds(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	long := val(t, strings.Repeat("x", 1000))
	var full error
	n := 0
	for ; full == nil && n < 100; n++ {
		full = p.board.Set(fmt.Sprint("edge", n), Edit{Value: long})
	}
	if !errors.Is(full, ErrFull) || n > 13 || p.board.override.Bounded() != nil {
		t.Errorf("after %d values of a kilobyte: %v", n, full)
	}
	for n = 0; full == nil || n < 100; n++ {
		if _, full = p.fleet.Edit("alice", "", map[string]Value{fmt.Sprint("fleet", n): long}); full != nil {
			break
		}
	}
	if !errors.Is(full, ErrFull) || n > 24 {
		t.Errorf("after %d values of a kilobyte: %v", n, full)
	}
	values := map[string]Value{}
	for i := range wire.MaxKeys + 1 {
		values[fmt.Sprint("k", i)] = val(t, 1)
	}
	if err := p.board.Report(values); !errors.Is(err, ErrFull) || p.board.counter != 0 {
		t.Errorf("%d keys reported: %v", len(values), err)
	}
	delete(values, "k0")
	if err := p.board.Report(values); err != nil {
		t.Error(err)
	}
	p.meet(nil) // all of it, in two messages each way
	if len(p.fleet.Reported()) != wire.MaxKeys {
		t.Errorf("%d keys reported came", len(p.fleet.Reported()))
	}
	for _, bad := range []any{[]byte{1}, struct{}{}, map[any]any{1: 2}, []any{[]any{[]any{[]any{[]any{1}}}}}, strings.Repeat("x", 2000)} {
		if _, err := ValueOf(bad); err == nil {
			t.Errorf("%.40v is a value", bad)
		}
	}
	if _, err := ValueOf(map[string]any{"models": []any{map[string]any{"name": "parcels", "fps": 5.5, "on": true}}}); err != nil {
		t.Error(err)
	}
	var actors []*section.Entry
	for i := range 2 * wire.MaxActors {
		actors = append(actors, &section.Entry{Dot: wire.Dot{Actor: InstanceOf('b', uint32(i), 1), N: 1}})
	}
	if seen := section.Seeing(actors...); len(seen) != wire.MaxActors || seen[InstanceOf('b', 2*wire.MaxActors-1, 1)] != 1 {
		t.Errorf("a vector of %d actors", len(seen))
	}
}

// TestMessagesLarge: full sections fit a message, with what signs them.
func TestMessagesLarge(t *testing.T) {
	t.Parallel()
	if all := wire.MaxReported + wire.MaxDesired + wire.MaxOverride + wire.MaxEnvelope + 1024; all > schema.MaxPayload {
		t.Errorf("all sections take %d bytes, a message at most %d", all, schema.MaxPayload)
	}
}

// FuzzReceive: neither side falls over what the other, or somebody in its place, says;
// what it holds afterwards can be saved and opened, and is within bounds.
func FuzzReceive(f *testing.F) {
	p := newPair(f, nil)
	p.edit(map[string]Value{"fleet1": val(f, 1), "hold1": val(f, 2)})
	p.set("hold1", 3, time.Minute)
	p.fleet.Connect(1)
	for _, m := range []any{p.board.Hello(1), p.fleet.Push()} {
		b, err := schema.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	boardDisk, _ := p.board.Save()
	fleetDisk, _ := p.fleet.Save()
	f.Add(boardDisk)
	f.Add(fleetDisk)
	f.Fuzz(func(t *testing.T, m []byte) {
		b, err := NewBoard(p.board.cfg, boardDisk)
		if err != nil {
			t.Fatal(err)
		}
		fl, err := NewFleet(p.fleet.cfg, fleetDisk)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = NewBoard(p.board.cfg, m)
		_, _ = NewFleet(p.fleet.cfg, m)
		var d wire.Down
		if schema.Decode(m, &d) == nil {
			b.conn = d.Conn
			if u, _ := b.Receive(&d); u != nil {
				if _, err := schema.Encode(u); err != nil {
					t.Fatalf("the answer cannot be sent: %v", err)
				}
			}
		}
		var u wire.Up
		if schema.Decode(m, &u) == nil {
			fl.Connect(u.Conn)
			if d, _ := fl.Receive(&u); d != nil {
				if _, err := schema.Encode(d); err != nil {
					t.Fatalf("the answer cannot be sent: %v", err)
				}
			}
		}
		bs, err := b.Save()
		if err == nil {
			_, err = NewBoard(p.board.cfg, bs)
		}
		if err != nil {
			t.Fatal(err)
		}
		fs, err := fl.Save()
		if err == nil {
			_, err = NewFleet(p.fleet.cfg, fs)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

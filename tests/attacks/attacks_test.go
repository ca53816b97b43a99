// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"fulmar/ota/prove"
	"fulmar/ota/release"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// TestNoAttack is the control: what is good is taken, and taken again.
func TestNoAttack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.assignment(manifest("1.9.0", 3), 7)
	for range 2 {
		o, err := w.takes(a)
		if err != nil {
			t.Fatal(err)
		}
		if o.Release != "1.9.0" || o.Attempt != 7 || o.Manifest.Component("agent") == nil || o.Local || o.Deadline != 0 {
			t.Errorf("%+v", o)
		}
	}
	n := nonce(t)
	f, err := prove.Fresh(w.set, w.proven(trust.TypeFreshness, "freshness", w.encode(answer(n, map[string]uint64{"agent": 7}))), n, w.board())
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.takes(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := prove.Newest(w.set, o, f); err != nil {
		t.Error(err)
	}
	// A deadline is set where the fleet's time is known, and refuses nothing where it has passed.
	b := w.board()
	b.Now = time.UnixMilli(1_767_225_600_000)
	for at, want := range map[int64]time.Duration{
		b.Now.Add(time.Hour).UnixMilli(): time.Hour, 1: 10 * time.Minute, b.Now.AddDate(9, 0, 0).UnixMilli(): 30 * 24 * time.Hour,
	} {
		a.Deadline = at
		if o, err := prove.Assignment(w.set, a, b); err != nil || o.Deadline != want {
			t.Errorf("deadline %v, %v; wants %v", o.Deadline, err, want)
		}
	}
	// Undo wants no manifest.
	u := &release.Directive{V: 1, Tenant: "default", Board: "dock-9", Rollout: "r-31", Component: "agent", Release: "1.9.0", Attempt: 8, Act: release.ActUndo, Before: "1.8.2"}
	undo := &wire.Assignment{V: 1, Rollout: "r-31", Component: "agent", Release: "1.9.0", Attempt: 8, Act: wire.Undo, Directive: w.proven(trust.TypeAssignment, "director", w.encode(u))}
	if o, err := w.takes(undo); err != nil || o.Manifest != nil || o.Act != release.ActUndo || o.Before != "1.8.2" {
		t.Errorf("undo: %+v, %v", o, err)
	}
}

// TestRollback: an old release, an old directive and an old key set are not taken.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.assignment(manifest("1.8.2", 3), 6)
	if _, err := w.takes(w.assignment(manifest("1.9.0", 3), 7)); err != nil {
		t.Fatal(err)
	}
	_, err := w.takes(old)
	w.refused("a directive of before", err, wire.Superseded, prove.ErrOld)
	_, err = w.takes(w.assignment(manifest("1.7.0", 2), 8))
	w.refused("a release below the floor, ordered anew", err, wire.Refused, release.ErrEpoch)
	n := nonce(t)
	f := answer(n, map[string]uint64{"agent": 9})
	f.Floor = 5 // the board's chip was put back, the fleet knows better
	proven, err := prove.Fresh(w.set, w.proven(trust.TypeFreshness, "freshness", w.encode(f)), n, w.board())
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.takes(w.assignment(manifest("1.9.1", 4), 9))
	if err != nil {
		t.Fatal(err)
	}
	w.refused("a floor that was put back", prove.Newest(w.set, o, proven), wire.Refused, release.ErrEpoch)

	first := w.sign(trust.TypeKeySet, w.encode(w.draft(2, 2, "root-1", "root-2", "root-3")), "root-1", "root-2")
	second := w.sign(trust.TypeKeySet, w.encode(w.draft(3, 2, "root-1", "root-2", "root-4")), "root-1", "root-2", "root-4")
	if err := errors.Join(w.next(first), w.next(second)); err != nil {
		t.Fatal(err)
	}
	if err := w.next(first); !errors.Is(err, trust.ErrRollback) {
		t.Errorf("a key set of before: %v", err)
	}
}

// TestFreeze: who keeps what is new from a board cannot make it believe that nothing is.
func TestFreeze(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, err := w.takes(w.assignment(manifest("1.9.0", 3), 7))
	if err != nil {
		t.Fatal(err)
	}
	asked, before := nonce(t), nonce(t)
	said := w.proven(trust.TypeFreshness, "freshness", w.encode(answer(before, map[string]uint64{"agent": 7})))
	_, err = prove.Fresh(w.set, said, asked, w.board())
	w.refused("an answer of before", err, wire.Stale, prove.ErrNotOurs)
	_, err = prove.Fresh(w.set, said, nil, w.board())
	w.refused("an answer that nobody asked for", err, wire.Stale, prove.ErrNotOurs)
	_, err = prove.Fresh(w.set, nil, asked, w.board())
	w.refused("no answer", err, wire.Stale, trust.ErrSignatures)
	other := answer(asked, map[string]uint64{"agent": 7})
	other.Board = "dock-8"
	_, err = prove.Fresh(w.set, w.proven(trust.TypeFreshness, "freshness", w.encode(other)), asked, w.board())
	w.refused("the answer to another board", err, wire.Stale, prove.ErrNotOurs)
	for what, attempts := range map[string]map[string]uint64{"a newer order was kept back": {"agent": 8}, "the order was taken back": {}, "an order that the fleet does not know": {"agent": 6}} {
		f, err := prove.Fresh(w.set, w.proven(trust.TypeFreshness, "freshness", w.encode(answer(asked, attempts))), asked, w.board())
		if err != nil {
			t.Fatal(err)
		}
		w.refused(what, prove.Newest(w.set, o, f), wire.Stale, prove.ErrOld)
	}
	f := answer(asked, map[string]uint64{"agent": 7})
	f.KeySet = 2
	w.refused("the next key set was kept back", prove.Newest(w.set, o, f), wire.Stale, prove.ErrOld)
}

// TestMixAndMatch: what was signed apart is not put together.
func TestMixAndMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, other := w.assignment(manifest("1.9.0", 3), 7), w.assignment(manifest("1.8.2", 3), 7)
	for what, change := range map[string]func(a *wire.Assignment){
		"the manifest of another release": func(a *wire.Assignment) { a.Envelope = other.Envelope },
		"the directive of another":        func(a *wire.Assignment) { a.Directive = other.Directive },
		"another name over it":            func(a *wire.Assignment) { a.Release = "1.8.2" },
		"another component":               func(a *wire.Assignment) { a.Component = "model/parcels" },
		"another rollout":                 func(a *wire.Assignment) { a.Rollout = "r-32" },
		"another attempt":                 func(a *wire.Assignment) { a.Attempt = 8 },
		"another act":                     func(a *wire.Assignment) { a.Act = wire.Shadow },
		"an act that is none":             func(a *wire.Assignment) { a.Act = 9 },
	} {
		a := *good
		change(&a)
		_, err := w.takes(&a)
		w.refused(what, err, wire.Refused, prove.ErrNotOurs)
	}
	// Two manifests of one name: the hash decides.
	twin := manifest("1.9.0", 3)
	twin.Notes = "the same name"
	a := *good
	a.Envelope = w.sign(trust.TypeRelease, w.encode(twin), "release")
	_, err := w.takes(&a)
	w.refused("another manifest of the same name", err, wire.Refused, prove.ErrNotOurs)
	// A component that the release has not.
	d := directive(twin, w.encode(twin), 7)
	d.Component = "rootfs"
	a = wire.Assignment{V: 1, Rollout: d.Rollout, Component: "rootfs", Release: "1.9.0", Attempt: 7, Act: wire.Install, Envelope: a.Envelope, Directive: w.proven(trust.TypeAssignment, "director", w.encode(d))}
	_, err = w.takes(&a)
	w.refused("a component that the release has not", err, wire.Refused, prove.ErrNotOurs)
}

// TestWrongTarget: what the director signed for another board, or another tenant's board of
// this name, is not for this one.
func TestWrongTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := manifest("1.9.0", 3)
	for what, change := range map[string]func(d *release.Directive){
		"another board":  func(d *release.Directive) { d.Board = "dock-8" },
		"another tenant": func(d *release.Directive) { d.Tenant = "rival" },
	} {
		a := w.assignment(m, 7)
		d := directive(m, w.encode(m), 7)
		change(d)
		a.Directive = w.proven(trust.TypeAssignment, "director", w.encode(d))
		_, err := w.takes(a)
		w.refused(what, err, wire.Refused, prove.ErrNotOurs)
	}
	// The neighbour's statement under this board's proof, and the other way round.
	mine, d := w.assignment(m, 7), directive(m, w.encode(m), 7)
	d.Board = "dock-8"
	mine.Directive.Statement = w.encode(d)
	_, err := w.takes(mine)
	w.refused("the neighbour's statement", err, wire.Refused, trust.ErrSignatures)
	mine = w.assignment(m, 7)
	mine.Directive.Proof.Index = 1
	_, err = w.takes(mine)
	w.refused("the neighbour's place", err, wire.Refused, trust.ErrSignatures)
}

// TestReplayedDirector: a directive that was carried out once is not carried out again after a
// newer one, nor is an undo that was meant for an earlier rollout.
func TestReplayedDirector(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := &release.Directive{V: 1, Tenant: "default", Board: "dock-9", Rollout: "r-30", Component: "agent", Release: "1.8.2", Attempt: 6, Act: release.ActUndo}
	undo := &wire.Assignment{V: 1, Rollout: "r-30", Component: "agent", Release: "1.8.2", Attempt: 6, Act: wire.Undo, Directive: w.proven(trust.TypeAssignment, "director", w.encode(u))}
	install := w.assignment(manifest("1.9.0", 3), 7)
	for _, a := range []*wire.Assignment{undo, install, w.assignment(manifest("1.9.1", 3), 8)} {
		if _, err := w.takes(a); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.takes(undo)
	w.refused("an undo of before", err, wire.Superseded, prove.ErrOld)
	_, err = w.takes(install)
	w.refused("an install of before", err, wire.Superseded, prove.ErrOld)
	// A directive that the unsigned word beside it calls newer stays what it is.
	again := *install
	again.Attempt = 9
	_, err = w.takes(&again)
	w.refused("an install of before under a newer number", err, wire.Superseded, prove.ErrOld)
}

// TestOtherType: what a key has signed as one thing is not taken as another.
func TestOtherType(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := manifest("1.9.0", 3)
	payload := w.encode(m)
	d := w.encode(directive(m, payload, 7))
	for what, change := range map[string]func(a *wire.Assignment){
		"a manifest signed as a directive": func(a *wire.Assignment) { a.Envelope = w.sign(trust.TypeAssignment, payload, "release") },
		"a manifest signed as a command":   func(a *wire.Assignment) { a.Envelope = w.sign(trust.TypeCommand, payload, "release", "command") },
		"a directive signed as freshness":  func(a *wire.Assignment) { a.Directive = w.proven(trust.TypeFreshness, "director", d) },
		"the key set in the manifest's place": func(a *wire.Assignment) {
			a.Envelope = w.sign(trust.TypeKeySet, w.encode(w.draft(2, 2, "root-1", "root-2", "root-3")), "root-1", "root-2")
		},
	} {
		a := w.assignment(m, 7)
		change(a)
		_, err := w.takes(a)
		w.refused(what, err, wire.Refused, trust.ErrMalformed)
	}
	// The type was changed after signing.
	a := w.assignment(m, 7)
	a.Envelope = bytes.Replace(w.sign(trust.TypeCommand, payload, "release"), []byte(trust.TypeCommand), []byte(trust.TypeRelease), 1)
	_, err := w.takes(a)
	w.refused("a type that was changed", err, wire.Refused, trust.ErrSignatures)
}

// TestEndlessData: what is too long is refused by its length, before it is looked into.
func TestEndlessData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := manifest("1.9.0", 3)
	a := w.assignment(m, 7)
	a.Envelope = append(bytes.Clone(a.Envelope), bytes.Repeat([]byte(" "), trust.MaxEnvelope)...)
	_, err := w.takes(a)
	w.refused("an envelope without end", err, wire.Refused, trust.ErrMalformed)
	a = w.assignment(m, 7)
	a.Directive.Statement = append(a.Directive.Statement, bytes.Repeat([]byte(" "), 1<<20)...)
	_, err = w.takes(a)
	w.refused("a statement without end", err, wire.Refused, trust.ErrMalformed)
	a = w.assignment(m, 7)
	a.Directive.Proof.Path = bytes.Repeat(a.Directive.Proof.Path, 1<<15)
	_, err = w.takes(a)
	w.refused("a path without end", err, wire.Refused, trust.ErrSignatures)
	// A release key that signs what no board takes: too many components, a manifest of 64 KiB
	// of nothing.
	a = w.assignment(m, 7)
	a.Envelope = w.sign(trust.TypeRelease, append(w.encode(m), bytes.Repeat([]byte(" "), release.MaxManifest-len(w.encode(m))-1)...), "release")
	_, err = w.takes(a)
	w.refused("padded, and so another hash", err, wire.Refused, prove.ErrNotOurs)
	if err := a.Validate(); err == nil {
		t.Error("an assignment over its bound is valid on the wire")
	}
	// An object has the size that is signed: no piece beyond it is proven.
	o := object("fulmard")
	if o.Proves(0, append([]byte("fulmard"), 0), nil) || o.Proves(1, nil, nil) {
		t.Error("bytes beyond the object are proven")
	}
}

// TestForgedParts: JSON that two readers see differently is refused though a key signed it.
func TestForgedParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := manifest("1.9.0", 3)
	good := w.encode(m)
	for what, payload := range map[string][]byte{
		"an unknown field": bytes.Replace(good, []byte(`{"v":1`), []byte(`{"v":1,"more":1`), 1),
		"a field twice":    bytes.Replace(good, []byte(`"epoch":3`), []byte(`"epoch":2,"epoch":3`), 1),
		"in another case":  bytes.Replace(good, []byte(`"epoch":3`), []byte(`"epoch":3,"Epoch":9`), 1),
		"bytes after it":   append(bytes.Clone(good), '{'),
		"a wrong type":     bytes.Replace(good, []byte(`"epoch":3`), []byte(`"epoch":"3"`), 1),
		"a path upwards":   bytes.Replace(good, []byte(`"fulmard"`), []byte(`"../fulmar"`), 1),
	} {
		if bytes.Equal(payload, good) {
			t.Fatalf("%s changes nothing", what)
		}
		a := w.assignment(m, 7)
		a.Envelope = w.sign(trust.TypeRelease, payload, "release")
		a.Directive = w.proven(trust.TypeAssignment, "director", w.encode(directive(m, payload, 7)))
		_, err := w.takes(a)
		w.refused(what, err, wire.Refused, release.ErrManifest)
	}
}

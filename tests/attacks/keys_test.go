// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"crypto/sha256"
	"errors"
	"testing"

	"fulmar/ota/prove"
	"fulmar/ota/release"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// evil is what a thief would have boards run.
func evil() *release.Manifest { return manifest("6.6.6", 3) }

// forge is the assignment of a thief who has some of the keys and has to sign the rest with
// his own.
func (w *world) forge(m *release.Manifest, releaseKey, directorKey string) *wire.Assignment {
	a := w.assignment(m, 666)
	payload := w.encode(m)
	a.Envelope = w.sign(trust.TypeRelease, payload, releaseKey)
	a.Directive = w.proven(trust.TypeAssignment, directorKey, w.encode(directive(m, payload, 666)))
	return a
}

// TestReleaseKeyAlone: a stolen release key installs nothing: nobody directs a board to it.
func TestReleaseKeyAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for what, key := range map[string]string{"with the release key for both": "release", "with a key of his own": "thief"} {
		_, err := w.takes(w.forge(evil(), "release", key))
		w.refused(what, err, wire.Refused, trust.ErrSignatures)
	}
	a := w.forge(evil(), "release", "thief")
	a.Directive = nil
	_, err := w.takes(a)
	w.refused("without a directive", err, wire.Refused, trust.ErrSignatures)
	// A directive of the true director for another release does not name it.
	a.Directive = w.assignment(manifest("1.9.0", 3), 7).Directive
	a.Attempt, a.Release = 7, "1.9.0"
	_, err = w.takes(a)
	w.refused("under the word on another release", err, wire.Refused, prove.ErrNotOurs)
	// What it can do: a person at the board with a stick stands in for the director.
	if o, err := prove.Local(w.set, a.Envelope, "agent", nil, w.board()); err != nil || !o.Local {
		t.Errorf("a stick: %v", err)
	}
	// Dropped from the set it opens nothing any more.
	s := w.draft(2, 2, "root-1", "root-2", "root-3")
	for i := range s.Keys {
		if s.Keys[i].Role == trust.RoleRelease {
			s.Keys[i].Public = w.keys["root-4"].Public() // any new one
		}
	}
	if err := w.next(w.sign(trust.TypeKeySet, w.encode(s), "root-1", "root-3")); err != nil {
		t.Fatal(err)
	}
	_, err = prove.Local(w.set, a.Envelope, "agent", nil, w.board())
	w.refused("after the set that drops it", err, wire.Refused, trust.ErrSignatures)
	_, err = w.takes(w.forge(evil(), "release", "director"))
	w.refused("and with the director's", err, wire.Refused, trust.ErrSignatures)
}

// TestDirectorAlone: a stolen director's key installs nothing that no release key signed. What
// it can do stays among signed releases of epochs from the floor on, and freshness, which is
// another key, does not know of it.
func TestDirectorAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for what, key := range map[string]string{"with the director's key for both": "director", "with a key of his own": "thief"} {
		_, err := w.takes(w.forge(evil(), key, "director"))
		w.refused(what, err, wire.Refused, trust.ErrSignatures)
	}
	_, err := w.takes(w.forge(manifest("1.7.0", 2), "release", "director"))
	w.refused("an old release below the floor", err, wire.Refused, release.ErrEpoch)
	// An older release of the same epoch: signed, and above the floor. Freshness says no.
	o, err := w.takes(w.forge(manifest("1.8.2", 3), "release", "director"))
	if err != nil {
		t.Fatal(err)
	}
	n := nonce(t)
	f, err := prove.Fresh(w.set, w.proven(trust.TypeFreshness, "freshness", w.encode(answer(n, map[string]uint64{"agent": 7}))), n, w.board())
	if err != nil {
		t.Fatal(err)
	}
	w.refused("an order that the fleet does not know", prove.Newest(w.set, o, f), wire.Stale, prove.ErrOld)
	_, err = prove.Fresh(w.set, w.proven(trust.TypeFreshness, "director", w.encode(answer(n, map[string]uint64{"agent": 666}))), n, w.board())
	w.refused("an answer with the director's key", err, wire.Stale, trust.ErrSignatures)
}

// TestFreshnessAlone: a stolen freshness key orders nothing. It can say that something old is
// newest, if both others signed that.
func TestFreshnessAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.takes(w.forge(evil(), "freshness", "freshness"))
	w.refused("both with the freshness key", err, wire.Refused, trust.ErrSignatures)
	n := nonce(t)
	lie, err := prove.Fresh(w.set, w.proven(trust.TypeFreshness, "freshness", w.encode(answer(n, map[string]uint64{"agent": 6}))), n, w.board())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.takes(w.assignment(manifest("1.9.0", 3), 7)); err != nil {
		t.Fatal(err)
	}
	_, err = w.takes(w.assignment(manifest("1.8.2", 3), lie.Attempts["agent"]))
	w.refused("an old order that it calls the newest", err, wire.Superseded, prove.ErrOld)
}

// TestCommandKeyAlone: the key that the server uses all day says nothing about updates.
func TestCommandKeyAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.takes(w.forge(evil(), "command", "command"))
	w.refused("both with the command key", err, wire.Refused, trust.ErrSignatures)
	_, err = w.takes(w.forge(evil(), "release", "command"))
	w.refused("the directive with the command key", err, wire.Refused, trust.ErrSignatures)
}

// TestRootOneOfThree: one stolen root key of three names no keys, signs no release and directs
// no board, and the other two drop it.
func TestRootOneOfThree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.draft(2, 1, "root-1")
	for i := range s.Keys {
		if s.Keys[i].Role != trust.RoleRoot {
			s.Keys[i].Public = w.keys[map[trust.Role]string{trust.RoleRelease: "thief", trust.RoleDirector: "root-4", trust.RoleFreshness: "freshness", trust.RoleCommand: "command"}[s.Keys[i].Role]].Public()
		}
	}
	for what, envelope := range map[string][]byte{
		"by itself":             w.sign(trust.TypeKeySet, w.encode(s), "root-1"),
		"with no root key":      w.sign(trust.TypeKeySet, w.encode(s), "root-1", "thief", "release", "director"),
		"with a former type":    w.sign(trust.TypeRelease, w.encode(s), "root-1", "root-2"),
		"the same set anew":     w.sign(trust.TypeKeySet, w.encode(w.draft(1, 1, "root-1")), "root-1", "root-2"),
		"by the old keys alone": w.sign(trust.TypeKeySet, w.encode(w.draft(2, 2, "root-3", "root-4")), "root-1", "root-2"),
	} {
		if err := w.next(envelope); !errors.Is(err, trust.ErrSignatures) && !errors.Is(err, trust.ErrMalformed) && !errors.Is(err, trust.ErrRollback) || w.set.Version != 1 {
			t.Errorf("a key set %s: %v", what, err)
		}
	}
	_, err := w.takes(w.forge(evil(), "root-1", "root-1"))
	w.refused("an assignment with a root key", err, wire.Refused, trust.ErrSignatures)
	// One signature twice is one.
	e, err := trust.NewEnvelope(trust.TypeKeySet, w.encode(s))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Sign(w.keys["root-1"]); err != nil {
		t.Fatal(err)
	}
	e.Signatures = append(e.Signatures, e.Signatures[0])
	twice, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.next(twice); !errors.Is(err, trust.ErrSignatures) {
		t.Errorf("one signature twice: %v", err)
	}
	// A board on its first day opens by its pin, whoever signs.
	if e, err = trust.ParseEnvelope(w.sign(trust.TypeKeySet, w.encode(s), "root-1")); err != nil {
		t.Fatal(err)
	}
	pin := w.set.Pin()
	if _, err := trust.OpenKeySet(e, pin); !errors.Is(err, trust.ErrSignatures) {
		t.Errorf("under another pin: %v", err)
	}
	if pin == sha256.Sum256(nil) {
		t.Error("no pin")
	}
	// The two others go on without it.
	if err := w.next(w.sign(trust.TypeKeySet, w.encode(w.draft(2, 2, "root-2", "root-3", "root-4")), "root-2", "root-3")); err != nil {
		t.Error(err)
	}
}

// TestBundleWithADirective: a stick may bring the director's word for a board, which then is
// held to all that it says; to another board it is nothing.
func TestBundleWithADirective(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.assignment(manifest("1.9.0", 3), 7)
	if o, err := prove.Local(w.set, a.Envelope, "agent", a.Directive, w.board()); err != nil || !o.Local || o.Attempt != 7 {
		t.Fatalf("%+v, %v", o, err)
	}
	b := w.board()
	b.Name = "dock-8"
	_, err := prove.Local(w.set, a.Envelope, "agent", a.Directive, b)
	w.refused("at another board", err, wire.Refused, prove.ErrNotOurs)
	_, err = prove.Local(w.set, a.Envelope, "model/parcels", a.Directive, w.board())
	w.refused("for another component", err, wire.Refused, prove.ErrNotOurs)
	w.attempts["agent"] = 8
	_, err = prove.Local(w.set, a.Envelope, "agent", a.Directive, w.board())
	w.refused("an old stick with a directive", err, wire.Superseded, prove.ErrOld)
	w.floor = 4
	_, err = prove.Local(w.set, a.Envelope, "agent", nil, w.board())
	w.refused("an old stick below the floor", err, wire.Refused, release.ErrEpoch)
	_, err = prove.Local(w.set, w.sign(trust.TypeRelease, w.encode(manifest("1.9.9", 4)), "director"), "agent", nil, w.board())
	w.refused("a stick that no release key signed", err, wire.Refused, trust.ErrSignatures)
	o, err := prove.Local(w.set, w.sign(trust.TypeRelease, w.encode(manifest("1.9.9", 4)), "release"), "agent", nil, w.board())
	if err != nil {
		t.Fatal(err)
	}
	if err := prove.Newest(w.set, o, answer(nonce(t), nil)); err != nil {
		t.Errorf("a stick is asked for freshness: %v", err)
	}
}

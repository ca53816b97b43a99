// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package prove turns what a fleet, or a stick, says to a board into an order, or says why
// not. It is a pure function of the key set, the words and what the board knows: no
// clock, no disk, no network.
//
// An order needs two keys that lie apart: a release key says what may run anywhere, the
// director's which board runs it. A third one, of freshness, answers the board's nonce: what
// both have signed may be old. One key alone, whichever, installs nothing.
package prove

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"fulmar/ota"
	"fulmar/ota/release"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

const (
	// minDeadline is the least time that an order gets, though the fleet would count it as
	// overdue before: going back has to have its time too.
	minDeadline = 10 * time.Minute
	// maxDeadline bounds what an unsigned field may say.
	maxDeadline = 30 * 24 * time.Hour
)

// Board is who asks, and what it knows.
type Board struct {
	Tenant, Name string
	// Floor is the lowest epoch that may be installed, see trust.Floor.
	Floor uint64
	// Attempts gives the highest attempt that was taken for a component, 0 for none.
	Attempts func(component string) uint64
	// Now is the fleet's time, zero where the board has not heard it: its own clock may
	// say 1970. It sets deadlines alone and refuses nothing.
	Now time.Time
}

// Refused says why no order came of it. Err is what did not hold: trust.ErrSignatures,
// release.ErrEpoch and so on.
type Refused struct {
	ota.Refusal
	Err error
}

// Error implements error: the reason's word, a colon, the sentence.
func (r *Refused) Error() string { return r.Reason + ": " + r.Text }

// Unwrap gives what did not hold.
func (r *Refused) Unwrap() error { return r.Err }

// ErrNotOurs: what is signed is for another board, release or order than the one at hand.
var ErrNotOurs = errors.New("not for this board or order")

// ErrOld: a newer order is known.
var ErrOld = errors.New("older than what is known")

func refuse(reason string, err error, format string, args ...any) error {
	return &Refused{ota.Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}, err}
}

// broken refuses what an error of the proof itself says.
func broken(err error) error { return refuse(wire.Refused, err, "%v", err) }

// Directive proves the director's word: signed, for this board, and of its component the
// newest. The newest one again is no refusal: it is sent until its last word is known, and
// nothing of it is done again.
func Directive(set *trust.KeySet, p *wire.Proven, b Board) (*release.Directive, error) {
	if p == nil {
		return nil, refuse(wire.Refused, trust.ErrSignatures, "the fleet has signed no directive")
	}
	if err := set.VerifyBatch(trustProof(&p.Proof), p.Statement, trust.TypeAssignment, b.Floor); err != nil {
		return nil, broken(err)
	}
	d, err := release.ParseDirective(p.Statement)
	if err != nil {
		return nil, broken(err)
	}
	if d.Tenant != b.Tenant || d.Board != b.Name {
		return nil, refuse(wire.Refused, ErrNotOurs, "the directive is for board %s of %s, and this is %s of %s", d.Board, d.Tenant, b.Name, b.Tenant)
	}
	if have := b.Attempts(d.Component); d.Attempt < have {
		return nil, refuse(wire.Superseded, ErrOld, "the directive for %s is attempt %d, and attempt %d is known", d.Component, d.Attempt, have)
	}
	return d, nil
}

// Assignment proves an assignment. What it says outside of what is signed has to be the
// same: who changed it on its way shall be seen.
func Assignment(set *trust.KeySet, a *wire.Assignment, b Board) (*ota.Order, error) {
	d, err := Directive(set, a.Directive, b)
	if err != nil {
		return nil, err
	}
	acts := map[uint8]string{wire.Install: release.ActInstall, wire.Shadow: release.ActShadow, wire.Undo: release.ActUndo}
	if a.Rollout != d.Rollout || a.Component != d.Component || a.Release != d.Release || a.Attempt != d.Attempt || acts[a.Act] != d.Act {
		return nil, refuse(wire.Refused, ErrNotOurs, "the assignment is attempt %d of rollout %s, to %s %s %s, and the director signed attempt %d of rollout %s, to %s %s %s",
			a.Attempt, a.Rollout, acts[a.Act], a.Component, a.Release, d.Attempt, d.Rollout, d.Act, d.Component, d.Release)
	}
	o, err := order(set, d, a.Envelope, b)
	if err != nil {
		return nil, err
	}
	if a.Deadline > 0 && !b.Now.IsZero() {
		o.Deadline = min(max(time.UnixMilli(a.Deadline).Sub(b.Now), minDeadline), maxDeadline)
	}
	return o, nil
}

// order joins a directive that is proven with the manifest that it names.
func order(set *trust.KeySet, d *release.Directive, envelope []byte, b Board) (*ota.Order, error) {
	o := &ota.Order{Rollout: d.Rollout, Component: d.Component, Release: d.Release, Attempt: d.Attempt, Act: d.Act, Patches: d.Patches, Before: d.Before}
	if d.Act == release.ActUndo {
		return o, nil // to what both keys said before
	}
	m, err := manifest(set, envelope, d.Component, b)
	if err != nil {
		return nil, err
	}
	if m.Hash != d.Manifest || m.Release != d.Release {
		return nil, refuse(wire.Refused, ErrNotOurs, "the manifest is of release %s (%.16s), and the director named %s (%.16s)", m.Release, m.Hash, d.Release, d.Manifest)
	}
	o.Manifest, o.Hash, o.Raw = m.Manifest, m.Hash, m.Raw
	return o, nil
}

func manifest(set *trust.KeySet, envelope []byte, component string, b Board) (*release.Opened, error) {
	m, err := release.Open(set, envelope, b.Floor)
	if err != nil {
		return nil, broken(err)
	}
	if m.Component(component) == nil {
		return nil, refuse(wire.Refused, ErrNotOurs, "release %s has no component %s", m.Release, component)
	}
	return m, nil
}

// Local proves an order from a bundle at the board. p is the director's word for this board
// if the bundle has one. Without it a person who may do so at this board stands in for the
// director, which is the caller's to know; the release keys and the floor hold as ever.
func Local(set *trust.KeySet, envelope []byte, component string, p *wire.Proven, b Board) (*ota.Order, error) {
	if p == nil {
		m, err := manifest(set, envelope, component, b)
		if err != nil {
			return nil, err
		}
		return &ota.Order{
			Rollout: "local", Component: component, Release: m.Release, Act: release.ActInstall,
			Manifest: m.Manifest, Hash: m.Hash, Raw: m.Raw, Local: true,
		}, nil
	}
	d, err := Directive(set, p, b)
	if err != nil {
		return nil, err
	}
	if d.Component != component {
		return nil, refuse(wire.Refused, ErrNotOurs, "the directive is for %s, and %s is asked for", d.Component, component)
	}
	o, err := order(set, d, envelope, b)
	if err != nil {
		return nil, err
	}
	o.Local = true
	return o, nil
}

// Fresh proves an answer to a board's nonce.
func Fresh(set *trust.KeySet, p *wire.Proven, nonce []byte, b Board) (*release.Fresh, error) {
	if p == nil {
		return nil, refuse(wire.Stale, trust.ErrSignatures, "the fleet has signed no answer")
	}
	if err := set.VerifyBatch(trustProof(&p.Proof), p.Statement, trust.TypeFreshness, b.Floor); err != nil {
		return nil, refuse(wire.Stale, err, "%v", err)
	}
	f, err := release.ParseFresh(p.Statement)
	if err != nil {
		return nil, refuse(wire.Stale, err, "%v", err)
	}
	switch {
	case f.Tenant != b.Tenant || f.Board != b.Name:
		return nil, refuse(wire.Stale, ErrNotOurs, "the answer is for board %s of %s, and this is %s of %s", f.Board, f.Tenant, b.Name, b.Tenant)
	case subtle.ConstantTimeCompare([]byte(f.Nonce), []byte(hex.EncodeToString(nonce))) != 1:
		return nil, refuse(wire.Stale, ErrNotOurs, "the answer is to another nonce: it is an old one")
	}
	return f, nil
}

// Newest tells whether an order is what an answer, which is proven, says is newest: the very
// attempt, under the key set in force, not below the floor that the fleet has seen. A local
// order is not asked.
func Newest(set *trust.KeySet, o *ota.Order, f *release.Fresh) error {
	if o.Local {
		return nil
	}
	newest, known := f.Attempts[o.Component]
	switch {
	case f.KeySet > set.Version:
		return refuse(wire.Stale, ErrOld, "key set %d is in force, and this board knows %d", f.KeySet, set.Version)
	case !known:
		return refuse(wire.Stale, ErrOld, "the fleet knows of no order for %s", o.Component)
	case newest != o.Attempt:
		return refuse(wire.Stale, ErrOld, "the newest order for %s is attempt %d, and this one is attempt %d", o.Component, newest, o.Attempt)
	case o.Manifest != nil && o.Manifest.Epoch < f.Floor:
		return refuse(wire.Refused, release.ErrEpoch, "release %s is of epoch %d, and this board has been at %d", o.Release, o.Manifest.Epoch, f.Floor)
	}
	return nil
}

func trustProof(p *wire.Proof) trust.Proof {
	return trust.Proof{Envelope: p.Envelope, Index: int(p.Index), Count: int(p.Count), Path: p.Path}
}

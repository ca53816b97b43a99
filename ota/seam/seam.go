// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package seam holds what the parts of the update system meet at: package ota names each of
// it for those outside; it stands here for the parts of ota itself.
package seam

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"fulmar/ota/release"
	"fulmar/schema"
)

// Order is what a board shall do, proven already: signatures, address, epoch and freshness.
type Order struct {
	Rollout, Component, Release string

	// Attempt rises over all orders for a component: of an equal or lower one nothing is
	// done again, its word is only told again. 0 for a Local one that nobody numbered.
	Attempt uint64
	Act     string // release.ActInstall, ActShadow, ActUndo

	Manifest *release.Manifest // nil for undo
	Hash     release.Hash      // of the manifest's bytes
	// Raw are the manifest's bytes: kept, so that a restart needs no network. Who signed them
	// has been checked; what is read back is checked by Hash, which the record holds.
	Raw     []byte
	Patches []release.Patch // of the directive, beside the encodings of the manifest
	Before  string          // the release that ran before, as far as the fleet knows
	Local   bool            // from a bundle at the board: no freshness is asked
	// Deadline is how long it may take in all, from when it is offered; 0: the updater's.
	Deadline time.Duration
}

// Check tells whether it makes sense, whoever proved it.
func (o *Order) Check() error {
	if o.Rollout == "" || o.Release == "" || len(o.Rollout) > schema.MaxName || len(o.Release) > schema.MaxName || len(o.Before) > schema.MaxName || !release.ComponentName(o.Component) || o.Deadline < 0 {
		return fmt.Errorf("rollout %.80q, component %.80q, release %.80q, deadline %s", o.Rollout, o.Component, o.Release, o.Deadline)
	}
	if strings.ContainsFunc(o.Rollout+o.Release+o.Before, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' }) {
		return fmt.Errorf("rollout %.80q, release %.80q before %.80q", o.Rollout, o.Release, o.Before)
	}
	if o.Attempt == 0 && !o.Local {
		return errors.New("attempt 0")
	}
	switch o.Act {
	case release.ActUndo:
		return nil
	case release.ActInstall, release.ActShadow:
	default:
		return fmt.Errorf("act %.40q", o.Act)
	}
	switch {
	case o.Manifest == nil || o.Manifest.Component(o.Component) == nil:
		return fmt.Errorf("its manifest has no component %s", o.Component)
	case len(o.Patches) > release.MaxPatches:
		return fmt.Errorf("%d patches", len(o.Patches))
	case len(o.Raw) > release.MaxManifest || release.Hash(sha256.Sum256(o.Raw)) != o.Hash:
		return fmt.Errorf("its manifest of %d bytes has not the hash %s", len(o.Raw), o.Hash)
	}
	for i := range o.Patches {
		if err := o.Patches[i].Check(); err != nil {
			return err
		}
	}
	return nil
}

// Restart is what has to start again before a switch takes effect.
type Restart uint8

// What starts again.
const (
	RestartNone    Restart = iota // nothing: it is in force already
	RestartProgram                // the agent
	RestartMachine                // the board
)

// String names it for people.
func (r Restart) String() string {
	switch r {
	case RestartNone:
		return "none"
	case RestartProgram:
		return "program"
	case RestartMachine:
		return "machine"
	}
	return "unknown"
}

// Standing is how something that was staged stands, as the installer finds it.
type Standing uint8

// The standings.
const (
	NotYet  Standing = iota // staged at most: what ran before is in force, and nobody fell back
	OnTrial                 // in force until it is confirmed, or falls
	InForce                 // in force for good
	Fallen                  // it was tried and gone back from: by the launcher, a person, or Back
)

// String names it for people.
func (s Standing) String() string {
	switch s {
	case NotYet:
		return "not yet"
	case OnTrial:
		return "on trial"
	case InForce:
		return "in force"
	case Fallen:
		return "fallen"
	}
	return "unknown"
}

// Verdict is what the gate thinks of a component on trial.
type Verdict uint8

// The verdicts.
const (
	Wait Verdict = iota // not yet
	Good                // all checks hold now
	Bad                 // for sure: go back
)

// String names it for people.
func (v Verdict) String() string {
	switch v {
	case Wait:
		return "wait"
	case Good:
		return "good"
	case Bad:
		return "bad"
	}
	return "unknown"
}

// ErrNoBase: what runs here is not what a patch is to be applied to.
var ErrNoBase = errors.New("the base of the patch is not here")

// Installer brings one kind of component into force. Every method is idempotent and may
// be cut by a power loss anywhere; ctx ends what takes long.
type Installer interface {
	// Running tells the version that is in force, "" where there is none or it is unknown.
	Running(ctx context.Context) (version string, err error)
	// Stage puts the component, whose files lie complete and verified at paths[file.Path] (for
	// one with Unpack a folder of what was in the tar), beside what runs, durably. token
	// names it: an id of a slot, a folder's name; at most MaxToken bytes. It runs nothing.
	Stage(ctx context.Context, c *release.Component, paths map[string]string) (token string, err error)
	// Base gives a file that is in force by its SHA-256. ErrNoBase.
	Base(ctx context.Context, sha release.Hash) (path string, err error)
	// Switch puts token in force on trial, at once or with the restart that it asks for.
	Switch(ctx context.Context, token string) (Restart, error)
	// Look tells how token stands, after any restart; for Fallen also why.
	Look(ctx context.Context, token string) (Standing, string, error)
	// Confirm ends the trial of token, for good.
	Confirm(ctx context.Context, token string) error
	// Back goes from token to what ran before it, or to nothing where nothing did. Where
	// token is not in force (any more), it does nothing.
	Back(ctx context.Context, token, why string) (Restart, error)
	// Sweep removes staged things but those in keep, what is in force and what that would
	// go back to.
	Sweep(ctx context.Context, keep []string) error
	// Space tells the bytes that staging the component needs, and the free ones there.
	Space(ctx context.Context, c *release.Component) (need, free int64, err error)
}

// Restarter is an [Installer] that starts the machine anew itself, for a switch or a way back
// that asked for [RestartMachine]. It only asks for it and returns; it does so where a restart
// is due and nowhere else.
type Restarter interface {
	Restart(ctx context.Context, why string) error
}

// MaxToken bounds a token of an [Installer], in bytes: it is in the record.
const MaxToken = 128

// Shadower is an [Installer] that can run something beside what is in use, for
// release.ActShadow. Others fail such an order.
type Shadower interface {
	// Shadow runs token beside what is in force, durably; "" ends that.
	Shadow(ctx context.Context, token string) error
}

// Fetcher brings objects.
type Fetcher interface {
	// Fetch brings an object into a file and returns when it is whole and verified. It goes
	// on where an earlier call was cut, also in an earlier life of the process, and has no
	// deadline of its own but ctx. progress may be called often.
	Fetch(ctx context.Context, o release.Object, progress func(have, all int64)) (path string, err error)
	// Drop removes what there is of an object. None is no error.
	Drop(o release.Object) error
}

// Gate tells how a component on trial is.
type Gate interface {
	// Before notes what is compared with later, at most MaxBefore bytes; the record keeps it.
	Before(component string) []byte
	// Look judges; the sentence says why, also for Wait.
	Look(component string, h release.Health, before []byte) (Verdict, string)
}

// MaxBefore bounds the notes of a [Gate], in bytes.
const MaxBefore = 1 << 10

// Floor is the lowest epoch that may be installed: trust.Floor. It is safe for concurrent use.
type Floor interface {
	Floor() (uint64, error)
	// Raise sets it, durably; the present value is no error.
	Raise(to uint64) error
}

// Refusal is a reason why an update cannot go on, at least not now.
type Refusal struct {
	Reason string // one of schema/ota.Reasons
	Text   string // for people, with the values
	// Passes: it may pass by waiting; the update is scheduled and asks again.
	Passes bool
}

// Moment is what an update is about to do when it asks whether anything speaks against it.
type Moment uint8

// The moments.
const (
	ToFetch  Moment = iota // bring and rebuild: network, processor, disk
	ToSwitch               // put it in force: what runs may be cut
	ToGoBack               // the fleet takes a release back: it should not wait for office hours
)

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire holds what a board and its fleet say to each other about the board's twin:
// deterministic CBOR by package schema, with its version and within bounds. What the
// sections mean is package twin's.
package wire

import (
	"fmt"

	"fulmar/schema"
)

// Bounds of a twin. Its three sections and what signs them fit one message together,
// so two messages each way heal any partition.
const (
	// MaxKeys is the largest number of keys in one section.
	MaxKeys = 256
	// MaxKey is the longest key, in bytes.
	MaxKey = 96
	// MaxValue is the largest value, in bytes of CBOR.
	MaxValue = 1 << 10
	// MaxActors is the largest number of actors in one version vector: a board is a
	// new actor at each start in which somebody edits it.
	MaxActors = 64
	// Sections, in bytes as encoded.
	MaxReported = 24 << 10
	MaxDesired  = 24 << 10
	MaxOverride = 12 << 10
	// MaxEnvelope bounds what signs a desired section, in bytes.
	MaxEnvelope = 2 << 10
	// MaxSiblings is how many edits of one key that did not know of each other are kept.
	MaxSiblings = 4
	maxActor    = 32 // bytes of an actor's name
)

// Dot names one edit: the nth of an actor. An actor is one run of the program that
// edits, so a name is never used twice, also not after a disk was put back.
type Dot struct {
	Actor string `cbor:"1,keyasint"`
	N     uint64 `cbor:"2,keyasint"`
}

// Entry is one edit of one key of the sections desired and override.
type Entry struct {
	Key   string `cbor:"1,keyasint"`
	Value []byte `cbor:"2,keyasint,omitempty"` // CBOR; empty: the key was deleted
	Dot   Dot    `cbor:"3,keyasint"`
	// Seen counts, by actor, which edits of this key its author knew: those it replaces.
	Seen   map[string]uint64 `cbor:"4,keyasint,omitempty"`
	Author string            `cbor:"5,keyasint,omitempty"` // a person, a rule, a policy
	Reason string            `cbor:"6,keyasint,omitempty"`
	// Policy decides between an edit of the fleet and one of the board that did not know
	// of each other (override only).
	Policy uint8 `cbor:"7,keyasint,omitempty"`
	// LeaseMs is how long an override holds, in time that the board ran; 0: until it is
	// cleared or replaced.
	LeaseMs uint64 `cbor:"8,keyasint,omitempty"`
}

func (e *Entry) validate() error {
	switch {
	case e.Key == "" || len(e.Key) > MaxKey || len(e.Value) > MaxValue:
		return fmt.Errorf("twin: key %.40q of %d bytes with a value of %d, at most %d and %d", e.Key, len(e.Key), len(e.Value), MaxKey, MaxValue)
	case e.Dot.Actor == "" || len(e.Dot.Actor) > maxActor || e.Dot.N == 0:
		return fmt.Errorf("twin: key %.40q has no actor and number", e.Key)
	case len(e.Author) > schema.MaxName || len(e.Reason) > schema.MaxFact:
		return fmt.Errorf("twin: key %.40q has an author of %d bytes and a reason of %d, at most %d and %d", e.Key, len(e.Author), len(e.Reason), schema.MaxName, schema.MaxFact)
	}
	return checkActors(e.Seen)
}

func checkActors(seen map[string]uint64) error {
	if len(seen) > MaxActors {
		return fmt.Errorf("twin: a version vector of %d actors, at most %d", len(seen), MaxActors)
	}
	for a := range seen {
		if a == "" || len(a) > maxActor {
			return fmt.Errorf("twin: an actor's name %.40q of %d bytes, at most %d", a, len(a), maxActor)
		}
	}
	return nil
}

func checkEntries(entries []Entry, most int) error {
	if len(entries) > most {
		return fmt.Errorf("twin: a section of %d entries, at most %d", len(entries), most)
	}
	for i := range entries {
		if err := entries[i].validate(); err != nil {
			return err
		}
	}
	return nil
}

// Head tells what one side has of each section, without the sections.
type Head struct {
	Epoch    string `cbor:"1,keyasint,omitempty"` // the run of fulmard that reports
	Counter  uint64 `cbor:"2,keyasint,omitempty"` // of its changes
	Reported []byte `cbor:"3,keyasint,omitempty"` // SHA-256
	Version  uint64 `cbor:"4,keyasint,omitempty"` // of desired
	Desired  []byte `cbor:"5,keyasint,omitempty"` // SHA-256
	Override []byte `cbor:"6,keyasint,omitempty"` // SHA-256
}

func (h *Head) validate() error {
	if len(h.Epoch) > maxActor || len(h.Reported) > 32 || len(h.Desired) > 32 || len(h.Override) > 32 {
		return fmt.Errorf("twin: a head with an epoch of %d bytes and digests of %d, %d and %d", len(h.Epoch), len(h.Reported), len(h.Desired), len(h.Override))
	}
	return nil
}

// Reported is the section reported, or what changed in it.
type Reported struct {
	Epoch string `cbor:"1,keyasint"`
	// From is the counter that a patch changes; 0: this is the whole section.
	From  uint64            `cbor:"2,keyasint,omitempty"`
	To    uint64            `cbor:"3,keyasint"`
	Set   map[string][]byte `cbor:"4,keyasint,omitempty"` // CBOR by key
	Unset []string          `cbor:"5,keyasint,omitempty"`
}

func (r *Reported) validate() error {
	if r.Epoch == "" || len(r.Epoch) > maxActor || r.From > r.To || len(r.Set) > MaxKeys || len(r.Unset) > MaxKeys {
		return fmt.Errorf("twin: reported from %d to %d with %d keys set and %d unset", r.From, r.To, len(r.Set), len(r.Unset))
	}
	for k, v := range r.Set {
		if k == "" || len(k) > MaxKey || len(v) == 0 || len(v) > MaxValue {
			return fmt.Errorf("twin: reported key %.40q of %d bytes with a value of %d", k, len(k), len(v))
		}
	}
	for _, k := range r.Unset {
		if k == "" || len(k) > MaxKey {
			return fmt.Errorf("twin: unset key of %d bytes", len(k))
		}
	}
	return nil
}

// Desired is the section desired, or what changed in it, and what signs the whole.
type Desired struct {
	From    uint64   `cbor:"1,keyasint,omitempty"` // version that a patch changes; 0: whole
	Version uint64   `cbor:"2,keyasint"`
	Entries []Entry  `cbor:"3,keyasint,omitempty"`
	Gone    []string `cbor:"4,keyasint,omitempty"` // deleted keys that need not be remembered any more
	// Envelope signs a [Statement] of the section as it is after this.
	Envelope []byte `cbor:"5,keyasint,omitempty"`
	// Clock counts the edits by life of the fleet's database; whole, also in a change.
	Clock map[string]uint64 `cbor:"6,keyasint,omitempty"`
}

func (d *Desired) validate() error {
	if d.From >= d.Version || len(d.Gone) > MaxKeys || len(d.Envelope) == 0 || len(d.Envelope) > MaxEnvelope {
		return fmt.Errorf("twin: desired from %d to %d, %d keys gone, signed by %d bytes", d.From, d.Version, len(d.Gone), len(d.Envelope))
	}
	for _, k := range d.Gone {
		if k == "" || len(k) > MaxKey {
			return fmt.Errorf("twin: gone key of %d bytes", len(k))
		}
	}
	if err := checkActors(d.Clock); err != nil {
		return err
	}
	return checkEntries(d.Entries, MaxKeys)
}

// Override is the section override, whole.
type Override struct {
	// Clock counts, by actor, which edits are known: one that it counts and that is not
	// among the entries was removed.
	Clock   map[string]uint64 `cbor:"1,keyasint,omitempty"`
	Entries []Entry           `cbor:"2,keyasint,omitempty"`
}

func (o *Override) validate() error {
	if err := checkActors(o.Clock); err != nil {
		return err
	}
	return checkEntries(o.Entries, MaxKeys*MaxSiblings)
}

// Statement is what the fleet signs of a desired section.
type Statement struct {
	V       uint8  `cbor:"1,keyasint"`
	Tenant  string `cbor:"2,keyasint"`
	Board   string `cbor:"3,keyasint"`
	Version uint64 `cbor:"4,keyasint"`
	Digest  []byte `cbor:"5,keyasint"` // SHA-256 of the section
}

// Validate checks the bounds.
func (s *Statement) Validate() error {
	if err := checkVersion(s.V); err != nil {
		return err
	}
	if len(s.Tenant) > schema.MaxName || len(s.Board) > schema.MaxName || len(s.Digest) != 32 {
		return fmt.Errorf("twin statement with a digest of %d bytes, wants 32", len(s.Digest))
	}
	return nil
}

// Bits of [Up].Want and [Down].Want: what the other side shall send, whole.
const (
	WantReported uint8 = 1 << iota
	WantDesired
	WantOverride
	WantHead // an answer in any case: the first message of a connection
)

// Up goes from the board to the fleet, on tw/r.
type Up struct {
	V        uint8     `cbor:"1,keyasint"`
	Conn     uint64    `cbor:"2,keyasint"` // as in schema.Hello
	Head     Head      `cbor:"3,keyasint"`
	Want     uint8     `cbor:"4,keyasint,omitempty"`
	Reported *Reported `cbor:"5,keyasint,omitempty"`
	Desired  *Desired  `cbor:"6,keyasint,omitempty"` // only to a fleet that knows less than it once signed
	Override *Override `cbor:"7,keyasint,omitempty"`
}

// Validate checks the bounds.
func (u *Up) Validate() error {
	if err := checkVersion(u.V); err != nil {
		return err
	}
	if err := u.Head.validate(); err != nil {
		return err
	}
	if u.Reported != nil {
		if err := u.Reported.validate(); err != nil {
			return err
		}
	}
	return checkSections(u.Desired, u.Override)
}

// Down goes from the fleet to the board, on tw/d.
type Down struct {
	V        uint8     `cbor:"1,keyasint"`
	Conn     uint64    `cbor:"2,keyasint"`
	Head     Head      `cbor:"3,keyasint"`
	Want     uint8     `cbor:"4,keyasint,omitempty"`
	Desired  *Desired  `cbor:"5,keyasint,omitempty"`
	Override *Override `cbor:"6,keyasint,omitempty"`
}

// Validate checks the bounds.
func (d *Down) Validate() error {
	if err := checkVersion(d.V); err != nil {
		return err
	}
	if err := d.Head.validate(); err != nil {
		return err
	}
	return checkSections(d.Desired, d.Override)
}

func checkSections(d *Desired, o *Override) error {
	if d != nil {
		if err := d.validate(); err != nil {
			return err
		}
	}
	if o != nil {
		return o.validate()
	}
	return nil
}

func checkVersion(v uint8) error {
	if v != schema.Version {
		return fmt.Errorf("twin: wire version %d, this program knows %d; update the older side", v, schema.Version)
	}
	return nil
}

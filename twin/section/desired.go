// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package section holds the two sections of a twin that people edit, desired and override,
// and computes what holds of a key from both. See package twin.
package section

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/schema"
	"fulmar/twin/wire"
)

// Errors of a desired section that a board does not take.
var (
	// ErrForged: not signed by a key that may, or signed for something else.
	ErrForged = errors.New("not signed for this board and section")
	// ErrBase: a change of a version that is not here; the whole section is wanted.
	ErrBase = errors.New("a change of a version that is not here")
)

// Desired is the section of that name. A deleted key stays as an Entry without a value
// until the board knows, so that the deletion is not taken for ignorance.
type Desired struct {
	Version  uint64
	Clock    map[string]uint64 // edits by life of the fleet's database
	Entries  map[string]Entry
	Envelope []byte // signs this version; nil at version 0
}

func (d *Desired) Clone() Desired {
	return Desired{d.Version, maps.Clone(d.Clock), maps.Clone(d.Entries), d.Envelope}
}

// Wire gives the wire's form, whole.
func (d *Desired) Wire() *wire.Desired {
	s := &wire.Desired{Version: d.Version, Clock: d.Clock}
	for _, k := range slices.Sorted(maps.Keys(d.Entries)) {
		s.Entries = append(s.Entries, d.Entries[k])
	}
	return s
}

func (d *Desired) Digest() []byte { return Digest(d.Wire()) }

// Whole gives the section with its signature.
func (d *Desired) Whole() *wire.Desired {
	s := d.Wire()
	s.Envelope = d.Envelope
	return s
}

// Since gives what changed after a version. Each Entry is numbered by the version that
// made it, so no history is kept.
func (d *Desired) Since(version uint64) *wire.Desired {
	s := &wire.Desired{From: version, Version: d.Version, Clock: d.Clock, Envelope: d.Envelope}
	for _, k := range slices.Sorted(maps.Keys(d.Entries)) {
		if e := d.Entries[k]; e.Dot.N > version {
			s.Entries = append(s.Entries, e)
		}
	}
	return s
}

func (d *Desired) Bounded() error {
	b, err := schema.Encode(d.Wire())
	if err != nil || len(b) > wire.MaxDesired || len(d.Entries) > wire.MaxKeys {
		return fmt.Errorf("desired with %d keys and %d bytes, at most %d and %d: %w", len(d.Entries), len(b), wire.MaxKeys, wire.MaxDesired, ErrFull)
	}
	return nil
}

// Apply gives the section after a change or a whole, not checked for its signature.
func (d *Desired) Apply(s *wire.Desired) (Desired, error) {
	next := Desired{Version: s.Version, Clock: map[string]uint64{}, Entries: map[string]Entry{}, Envelope: s.Envelope}
	Join(next.Clock, s.Clock)
	if s.From != 0 {
		if s.From != d.Version {
			return Desired{}, fmt.Errorf("desired from version %d, here is %d: %w", s.From, d.Version, ErrBase)
		}
		next.Entries = maps.Clone(d.Entries)
	}
	for _, e := range s.Entries {
		if len(e.Value) > 0 {
			if err := Value(e.Value).Check(); err != nil {
				return Desired{}, fmt.Errorf("desired %q: %w", e.Key, err)
			}
		}
		next.Entries[e.Key] = e
	}
	for _, k := range s.Gone {
		delete(next.Entries, k)
	}
	return next, next.Bounded()
}

// Merge puts what another life of the fleet's database signed and what this one holds
// into one. Of two edits of a key that have not seen each other this life's is made anew,
// by an edit of the version that the result gets; tell hears of both.
func (d *Desired) Merge(theirs *Desired, life string, tell func(won, lost *Entry)) Desired {
	next := Desired{Version: max(d.Version, theirs.Version) + 1, Clock: map[string]uint64{}, Entries: map[string]Entry{}}
	Join(next.Clock, d.Clock)
	Join(next.Clock, theirs.Clock)
	for k, t := range theirs.Entries {
		if _, both := d.Entries[k]; both || d.Clock[t.Dot.Actor] < t.Dot.N {
			next.Entries[k] = t
		}
	}
	for k, e := range d.Entries {
		t, both := theirs.Entries[k]
		switch {
		case !both && theirs.Clock[e.Dot.Actor] >= e.Dot.N, both && Saw(&t, &e):
			continue
		case both && !Saw(&e, &t):
			tell(&e, &t)
			e.Seen, e.Dot = Seeing(&e, &t), wire.Dot{Actor: life, N: next.Version}
			next.Clock[life] = next.Version
		}
		next.Entries[k] = e
	}
	Trim(next.Clock)
	return next
}

// Statement is what is signed of a section.
func (d *Desired) Statement(tenant, board string) ([]byte, error) {
	return schema.Encode(&wire.Statement{V: schema.Version, Tenant: tenant, Board: board, Version: d.Version, Digest: d.Digest()})
}

// Verify checks the signature and that it is over just this section of this board.
// open gives the bytes that an envelope signs, once it has found them signed.
func (d *Desired) Verify(tenant, board string, open func(envelope []byte) ([]byte, error)) error {
	signed, err := open(d.Envelope)
	if err != nil {
		return fmt.Errorf("desired version %d: %w: %w", d.Version, ErrForged, err)
	}
	wants, err := d.Statement(tenant, board)
	if err != nil {
		return err
	}
	if bytes.Equal(signed, wants) {
		return nil
	}
	var s wire.Statement
	if err := schema.Decode(signed, &s); err != nil {
		return fmt.Errorf("desired version %d: %w: %w", d.Version, ErrForged, err)
	}
	if s.Tenant == tenant && s.Board == board && s.Version == d.Version {
		return fmt.Errorf("desired version %d has another digest than was signed: %w", d.Version, ErrBase)
	}
	return fmt.Errorf("desired version %d of %s/%s carries a signature for version %d of %s/%s: %w", d.Version, tenant, board, s.Version, s.Tenant, s.Board, ErrForged)
}

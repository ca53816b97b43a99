// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package section

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/schema"
	"fulmar/twin/wire"
)

// ErrFull: a section has no room for an edit.
var ErrFull = errors.New("the section is full")

// Override is the section of that name: for each key its edits that have not seen each
// other, the newest actor's first. Mostly that is one.
type Override struct {
	Clock   map[string]uint64
	Entries map[string][]Entry
}

func NewOverride() *Override {
	return &Override{Clock: map[string]uint64{}, Entries: map[string][]Entry{}}
}

// OpenOverride takes a section from the wire or the disk.
func OpenOverride(s *wire.Override) (*Override, error) {
	o := NewOverride()
	Join(o.Clock, s.Clock)
	for _, e := range s.Entries {
		if Policy(e.Policy) > PolicyHold {
			return nil, fmt.Errorf("override of %q with an unknown %v: this program is older than who made it", e.Key, Policy(e.Policy))
		}
		if err := Value(e.Value).Check(); err != nil {
			return nil, fmt.Errorf("override of %q: %w", e.Key, err)
		}
		o.Add(e)
	}
	return o, o.Bounded()
}

// Wire gives the wire's form; equal sections give equal bytes.
func (o *Override) Wire() *wire.Override {
	s := &wire.Override{Clock: o.Clock}
	for _, k := range slices.Sorted(maps.Keys(o.Entries)) {
		s.Entries = append(s.Entries, o.Entries[k]...)
	}
	return s
}

func (o *Override) Digest() []byte { return Digest(o.Wire()) }

// Bounded tells whether the section may be sent.
func (o *Override) Bounded() error {
	if len(o.Entries) > wire.MaxKeys {
		return fmt.Errorf("override with %d keys, at most %d: %w; clear what is not needed any more", len(o.Entries), wire.MaxKeys, ErrFull)
	}
	b, err := schema.Encode(o.Wire())
	if err != nil || len(b) > wire.MaxOverride {
		return fmt.Errorf("override with %d bytes, at most %d: %w; clear what is not needed any more", len(b), wire.MaxOverride, ErrFull)
	}
	return nil
}

// Add puts an edit in. What it has seen goes.
func (o *Override) Add(e Entry) {
	o.Clock[e.Dot.Actor] = max(o.Clock[e.Dot.Actor], e.Dot.N)
	Trim(o.Clock)
	o.Entries[e.Key] = settle(append(o.Entries[e.Key], e))
}

// Drop takes edits of a key out. The clock still counts them, so the other side learns.
func (o *Override) Drop(key string, gone func(*Entry) bool) {
	left := slices.DeleteFunc(slices.Clone(o.Entries[key]), func(e Entry) bool { return gone(&e) })
	if len(left) == 0 {
		delete(o.Entries, key)
	} else {
		o.Entries[key] = left
	}
}

// settle sorts edits of one key and takes out doubles and those that another has seen.
// Of more than wire.MaxSiblings the oldest goes.
func settle(es []Entry) []Entry {
	var left []Entry
	for i := range es {
		old := slices.ContainsFunc(es, func(o Entry) bool { return o.Dot != es[i].Dot && Saw(&o, &es[i]) })
		double := slices.ContainsFunc(left, func(o Entry) bool { return o.Dot == es[i].Dot })
		if !old && !double {
			left = append(left, es[i])
		}
	}
	slices.SortFunc(left, byAge)
	return left[:min(len(left), wire.MaxSiblings)]
}

// Merge takes what the other side knows. Both sides come to the same, in any order and
// however often. A merge that would not fit changes nothing.
func (o *Override) Merge(other *Override) error {
	next := NewOverride()
	Join(next.Clock, o.Clock)
	Join(next.Clock, other.Clock)
	Trim(next.Clock)
	keep := func(mine, theirs *Override) {
		for key, es := range mine.Entries {
			for _, e := range es {
				known := theirs.Clock[e.Dot.Actor] >= e.Dot.N
				there := slices.ContainsFunc(theirs.Entries[key], func(t Entry) bool { return t.Dot == e.Dot })
				if there || !known {
					next.Entries[key] = append(next.Entries[key], e)
				}
			}
		}
	}
	keep(o, other)
	keep(other, o)
	for key, es := range next.Entries {
		next.Entries[key] = settle(es)
	}
	if err := next.Bounded(); err != nil {
		return err
	}
	*o = *next
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"maps"
	"slices"
	"time"

	"fulmar/twin/section"
)

// Clone gives a board's side that may be changed, saved and then put in the place of this
// one, or thrown away if it could not be saved. Both hold the same until then.
func (b *Board) Clone() *Board {
	c := *b
	c.applied, c.before = maps.Clone(b.applied), maps.Clone(b.before)
	c.refused, c.leases, c.held = maps.Clone(b.refused), maps.Clone(b.leases), maps.Clone(b.held)
	c.override = section.NewOverride()
	maps.Copy(c.override.Clock, b.override.Clock)
	for k, es := range b.override.Entries {
		c.override.Entries[k] = slices.Clone(es)
	}
	c.events = slices.Clone(b.events)
	c.sent.changed = maps.Clone(b.sent.changed)
	return &c
}

// Name says whose twin this is, where that was not known at the start: a board that
// enrols. What is signed for another is not taken from then on.
func (b *Board) Name(tenant, board string) { b.cfg.Tenant, b.cfg.Board = tenant, board }

// Prove says that the board is well with what the fleet set of the keys that proven tells
// (nil: of all): [Board.Undo] does not go back behind it.
func (b *Board) Prove(proven func(key string) bool) {
	if proven == nil {
		b.before = maps.Clone(b.applied)
		return
	}
	maps.DeleteFunc(b.before, func(key string, _ section.Entry) bool {
		_, there := b.applied[key]
		return !there && proven(key)
	})
	for key, e := range b.applied {
		if proven(key) {
			b.before[key] = e
		}
	}
}

// Proven tells whether the board is known to be well with what the fleet set of a key.
func (b *Board) Proven(key string) bool {
	now, applied := b.applied[key]
	was, proven := b.before[key]
	return applied == proven && now.Dot == was.Dot
}

// Undo goes back to what the board was last well with, see [Board.Prove]: what the fleet
// set since made it unhealthy, and is not applied a second time. It tells whether there
// was anything to go back to.
func (b *Board) Undo(why string) bool {
	same := func(x, y section.Entry) bool { return x.Dot == y.Dot }
	if maps.EqualFunc(b.applied, b.before, same) {
		return false
	}
	for key, d := range b.desired.Entries {
		now, applied := b.applied[key]
		if old, was := b.before[key]; applied && now.Dot == d.Dot && (!was || old.Dot != d.Dot) {
			b.refused[key] = refusal{d.Dot, clipped(why), true}
		}
	}
	b.applied = maps.Clone(b.before)
	b.tell(Event{Kind: Undone, Why: clipped(why)})
	b.settle()
	return true
}

// Recheck asks Check anew about the fleet's values that it refused: what the board can be
// set to may have changed. It tells whether any is taken now.
func (b *Board) Recheck() bool {
	taken := false
	for _, key := range slices.Sorted(maps.Keys(b.refused)) {
		d, there := b.desired.Entries[key]
		if !there || b.refused[key].Undone || b.cfg.Check == nil || b.cfg.Check(key, d.Value) != nil {
			continue
		}
		delete(b.refused, key)
		b.applied[key] = d
		taken = true
	}
	if taken {
		b.settle()
	}
	return taken
}

// Reported gives what the board said it is, by key.
func (b *Board) Reported() map[string]Value {
	out := map[string]Value{}
	for k, v := range b.reported {
		out[k] = v
	}
	return out
}

// Lease gives what is left of the lease of what was set of a key on the board: the
// longest if several edits stand. false: nothing is set there, or it has no lease.
func (b *Board) Lease(key string) (left time.Duration, leased bool) {
	for _, e := range b.override.Entries[key] {
		if l, ok := b.leases[e.Dot]; ok {
			left, leased = max(left, l), true
		}
	}
	return left, leased
}

// NextEnd gives the time until the next lease ends. false: there is none.
func (b *Board) NextEnd() (in time.Duration, any bool) {
	for _, left := range b.leases {
		if !any || left < in {
			in, any = left, true
		}
	}
	return in, any
}

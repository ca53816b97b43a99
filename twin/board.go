// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fulmar/twin/section"
	"fulmar/twin/wire"
)

// maxEvents is how many events wait for the caller to keep them: each key once. Who
// keeps them after each call never sees more than a few.
const maxEvents = wire.MaxKeys

// ErrStale: a message of another connection, or older than what is known.
var ErrStale = errors.New("a message of another connection")

// BoardConfig is what a board's side of its twin is told.
type BoardConfig struct {
	Tenant, Board string
	// Instance names this run of the program, and is never used again: InstanceOf.
	Instance string
	// Open gives the bytes that an envelope signs, if keys that may sign did.
	Open func(envelope []byte) ([]byte, error)
	// Check refuses a value that this board cannot be set to, with the reason; nil takes
	// all. Policy says who decides about a key; nil is PolicyFleet for all.
	Check  func(key string, v Value) error
	Policy func(key string) Policy
}

// InstanceOf names a run of a program: side 'b' for a board, 'f' for a fleet; start
// counts its starts, so that names rise, and random makes a name unique where the count
// was put back with a disk.
func InstanceOf(side byte, start, random uint32) string {
	return fmt.Sprintf("%c%08x-%08x", side, start, random)
}

// Kind says what an [Event] tells.
type Kind uint8

// The kinds of events.
const (
	Decided  Kind = iota // edits that had not seen each other, and the policy decided
	Held                 // the same, and a person has to decide
	Replaced             // the fleet replaced what was set on the board, knowing it
	Expired              // a lease ended
	Refused              // a desired value that this board does not take
	Undone               // a desired version that made the board unhealthy
)

// Event is something that a person may want to know: keep it where it is not lost.
type Event struct {
	Kind   Kind   `cbor:"1,keyasint"`
	Key    string `cbor:"2,keyasint,omitempty"`
	Policy Policy `cbor:"3,keyasint,omitempty"`
	Won    *Edit  `cbor:"4,keyasint,omitempty"` // nil: nothing is set
	Lost   []Edit `cbor:"5,keyasint,omitempty"`
	Why    string `cbor:"6,keyasint,omitempty"`
}

// refusal is a desired edit that is not applied.
type refusal struct {
	Dot    wire.Dot `cbor:"1,keyasint"`
	Why    string   `cbor:"2,keyasint"`
	Undone bool     `cbor:"3,keyasint,omitempty"`
}

// Board is a board's side of its twin. Not safe for concurrent use.
type Board struct {
	cfg      BoardConfig
	n        uint64          // edits of this instance
	desired  section.Desired // the newest signed
	applied  map[string]section.Entry
	before   map[string]section.Entry // applied when the board was last known to be well, to go back to
	refused  map[string]refusal       // what of the newest version is not applied, by key
	override *section.Override
	leases   map[wire.Dot]time.Duration // what is left of them
	held     map[string]bool            // keys whose conflict was told
	events   []Event

	reported map[string][]byte
	counter  uint64 // changes of reported
	conn     uint64
	sent     struct {
		counter  uint64          // reported, as the fleet has it
		changed  map[string]bool // keys since
		override []byte          // digest
	}
}

// NewBoard opens a board's side from what Save gave; nil is a board without a past.
func NewBoard(cfg BoardConfig, saved []byte) (*Board, error) {
	b := &Board{
		cfg: cfg, desired: section.Desired{Clock: map[string]uint64{}, Entries: map[string]section.Entry{}}, applied: map[string]section.Entry{}, before: map[string]section.Entry{},
		refused: map[string]refusal{}, override: section.NewOverride(), leases: map[wire.Dot]time.Duration{}, held: map[string]bool{},
		reported: map[string][]byte{},
	}
	b.sent.changed = map[string]bool{}
	if saved == nil {
		return b, nil
	}
	return b, b.load(saved)
}

func (b *Board) policy(key string) Policy {
	if b.cfg.Policy == nil {
		return PolicyFleet
	}
	return b.cfg.Policy(key)
}

// Set changes a key on the board, for a lease in time that the board runs (0: until it
// is cleared). It replaces all that is known of the key.
func (b *Board) Set(key string, e Edit) error {
	if len(e.Value) == 0 {
		return fmt.Errorf("set %q: no value; clear it instead", key)
	}
	if b.cfg.Check != nil {
		if err := b.cfg.Check(key, e.Value); err != nil {
			return fmt.Errorf("set %q: %w", key, err)
		}
	}
	next := section.NewOverride()
	if err := next.Merge(b.override); err != nil {
		return err
	}
	made, err := b.edit(next, key, e)
	if err != nil {
		return fmt.Errorf("set %q: %w", key, err)
	}
	b.override, b.n = next, made.Dot.N
	if e.LeaseMs > 0 {
		b.leases[made.Dot] = time.Duration(e.LeaseMs) * time.Millisecond
	}
	b.forget()
	return nil
}

// edit puts an edit of this instance into a section.
func (b *Board) edit(into *section.Override, key string, e Edit) (section.Entry, error) {
	var known []*section.Entry
	if d, ok := b.applied[key]; ok {
		known = append(known, &d)
	}
	if d, ok := b.desired.Entries[key]; ok { // also one that is refused: it was told, and the fleet has to see that it is replaced
		known = append(known, &d)
	}
	for _, o := range into.Entries[key] {
		known = append(known, &o)
	}
	made := section.Entry{
		Key: key, Value: e.Value, Dot: wire.Dot{Actor: b.cfg.Instance, N: b.n + 1}, Seen: section.Seeing(known...),
		Author: e.Author, Reason: e.Reason, Policy: uint8(b.policy(key)), LeaseMs: e.LeaseMs,
	}
	into.Add(made)
	return made, into.Bounded()
}

// Clear takes back what was set on the board: the fleet's value holds again. It tells
// whether there was anything.
func (b *Board) Clear(key string) bool {
	_, there := b.override.Entries[key]
	b.override.Drop(key, func(*section.Entry) bool { return true })
	b.forget()
	return there
}

// Tick counts down the leases by a time that the board ran, and gives the keys whose
// lease ended: the fleet's value holds again.
func (b *Board) Tick(ran time.Duration) []string {
	var ended []string
	for _, key := range slices.Sorted(maps.Keys(b.override.Entries)) {
		b.override.Drop(key, func(e *section.Entry) bool {
			left, leased := b.leases[e.Dot]
			if !leased {
				return false
			}
			if left -= ran; left > 0 {
				b.leases[e.Dot] = left
				return false
			}
			ended = append(ended, key)
			b.tell(Event{Kind: Expired, Key: key, Lost: []Edit{section.EditOf(e)}})
			return true
		})
	}
	b.forget()
	return ended
}

// forget drops what belongs to edits that are gone.
func (b *Board) forget() {
	maps.DeleteFunc(b.leases, func(dot wire.Dot, _ time.Duration) bool {
		for _, es := range b.override.Entries {
			if slices.ContainsFunc(es, func(e section.Entry) bool { return e.Dot == dot }) {
				return false
			}
		}
		return true
	})
	maps.DeleteFunc(b.held, func(key string, _ bool) bool {
		_, _, conflict := section.Decide(b.at(key), b.override.Entries[key])
		return !conflict
	})
}

// at is the fleet's edit of a key that this board has applied.
func (b *Board) at(key string) *section.Entry {
	if d, ok := b.applied[key]; ok {
		return &d
	}
	return nil
}

// Effective gives the value of a key that holds, and where it comes from. nil: the key
// is not set, or it was deleted.
func (b *Board) Effective(key string) (Value, Source) {
	w, from, _ := section.Decide(b.at(key), b.override.Entries[key])
	if w == nil || len(w.Value) == 0 {
		return nil, FromNowhere
	}
	return w.Value, from
}

// Keys gives the keys that are set, in order.
func (b *Board) Keys() []string {
	all := map[string]bool{}
	for k := range b.applied {
		all[k] = true
	}
	for k := range b.override.Entries {
		all[k] = true
	}
	maps.DeleteFunc(all, func(k string, _ bool) bool { v, _ := b.Effective(k); return v == nil })
	return slices.Sorted(maps.Keys(all))
}

// Conflicts gives the keys that a person has to decide.
func (b *Board) Conflicts() []Conflict {
	var out []Conflict
	for _, key := range slices.Sorted(maps.Keys(b.override.Entries)) {
		if _, _, conflict := section.Decide(b.at(key), b.override.Entries[key]); conflict {
			out = append(out, section.ConflictOf(b.at(key), b.override.Entries[key]))
		}
	}
	return out
}

// Version gives the newest desired version that is here, and the reason by key for what
// of it was not applied.
func (b *Board) Version() (version uint64, refused map[string]string) {
	refused = map[string]string{}
	for k, r := range b.refused {
		refused[k] = r.Why
	}
	return b.desired.Version, refused
}

// Events gives what was not yet confirmed, the oldest first.
func (b *Board) Events() []Event { return b.events }

// Confirm forgets the first n events: they are kept elsewhere.
func (b *Board) Confirm(n int) { b.events = slices.Delete(b.events, 0, min(n, len(b.events))) }

func (b *Board) tell(e Event) {
	if b.events = append(b.events, e); len(b.events) > maxEvents {
		b.events = slices.Delete(b.events, 0, len(b.events)-maxEvents)
	}
}

// settle lets policies decide, and takes out what the fleet replaced. Only the board does:
// so there is one who decides, and both sides come to the same.
func (b *Board) settle() {
	for _, key := range slices.Sorted(maps.Keys(b.override.Entries)) {
		d := b.at(key)
		if d != nil {
			b.override.Drop(key, func(e *section.Entry) bool {
				if section.Saw(d, e) {
					w := section.EditOf(d)
					b.tell(Event{Kind: Replaced, Key: key, Won: &w, Lost: []Edit{section.EditOf(e)}})
				}
				return section.Saw(d, e)
			})
		}
		w, from, conflict := section.Decide(d, b.override.Entries[key])
		if !conflict {
			continue
		}
		c := section.ConflictOf(d, b.override.Entries[key])
		won := section.EditOf(w)
		ev := Event{Kind: Decided, Key: key, Policy: c.Policy, Won: &won}
		for _, e := range append(slices.Clone(c.Board), fleetsOf(c)...) {
			if !slices.Equal(e.Value, won.Value) || e.Author != won.Author {
				ev.Lost = append(ev.Lost, e)
			}
		}
		switch {
		case c.Policy == PolicyHold:
			if ev.Kind = Held; !b.held[key] {
				b.held[key] = true
				b.tell(ev)
			}
			continue
		case from == FromDesired:
			b.override.Drop(key, func(*section.Entry) bool { return true })
		default:
			b.again(key, w, won)
		}
		b.tell(ev)
	}
	b.forget()
}

// again makes an edit that won anew, so that it has seen those that lost. If it does not
// fit it stays in conflict, and holds all the same.
func (b *Board) again(key string, w *section.Entry, won Edit) {
	next := section.NewOverride()
	section.Join(next.Clock, b.override.Clock)
	for k, es := range b.override.Entries {
		next.Entries[k] = slices.Clone(es)
	}
	left, leased := b.leases[w.Dot]
	made, err := b.edit(next, key, won)
	if err != nil {
		return
	}
	b.override, b.n = next, made.Dot.N
	if leased {
		b.leases[made.Dot] = left
	}
}

func fleetsOf(c Conflict) []Edit {
	if c.Fleet == nil {
		return nil
	}
	return []Edit{*c.Fleet}
}

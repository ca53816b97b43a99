// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/schema"
	"fulmar/twin/section"
	"fulmar/twin/wire"
)

// FleetConfig is what the fleet's side of one board's twin is told.
type FleetConfig struct {
	Tenant, Board string
	// Instance names this life of the fleet's database: InstanceOf. It is the same from
	// start to start, and a new one after a restore from a backup.
	Instance string
	// Sign puts a statement into a signed envelope; Open is its other way, for what this
	// fleet signed and a backup does not know.
	Sign func(statement []byte) (envelope []byte, err error)
	Open func(envelope []byte) (statement []byte, err error)
}

// Fleet is the fleet's side of one board's twin. Not safe for concurrent use.
type Fleet struct {
	cfg      FleetConfig
	desired  section.Desired
	base     uint64 // version of the backup this life began from
	behind   bool   // the board may have what the backup does not: it is asked first
	override *section.Override
	epoch    string // of reported
	counter  uint64
	reported map[string][]byte
	applied  uint64 // desired version that the board has, as it said last
	pruned   uint64 // the newest version in which deleted keys were forgotten
	conn     uint64
	sent     uint64 // desired version that was sent on this connection
	events   []Event
}

// NewFleet opens the fleet's side from what Save gave; nil is a board never seen.
func NewFleet(cfg FleetConfig, saved []byte) (*Fleet, error) {
	f := &Fleet{cfg: cfg, desired: section.Desired{Clock: map[string]uint64{}, Entries: map[string]section.Entry{}}, override: section.NewOverride(), reported: map[string][]byte{}}
	if saved == nil {
		return f, nil
	}
	return f, f.load(saved)
}

// Edit sets keys for the board to be, or deletes them (nil). It replaces all that is
// known of them: what was set on the board and has come here. The edit is there when it
// is saved; the new version's number is given.
func (f *Fleet) Edit(author, reason string, values map[string]Value) (uint64, error) {
	next := f.desired.Clone()
	next.Version++
	next.Clock[f.cfg.Instance] = next.Version
	section.Trim(next.Clock)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		v := values[key]
		if len(v) > 0 {
			if err := v.Check(); err != nil {
				return 0, fmt.Errorf("set %q: %w", key, err)
			}
		}
		var known []*section.Entry
		for _, o := range f.override.Entries[key] {
			known = append(known, &o)
		}
		if d, ok := f.desired.Entries[key]; ok {
			known = append(known, &d)
		}
		next.Entries[key] = section.Entry{
			Key: key, Value: v, Dot: wire.Dot{Actor: f.cfg.Instance, N: next.Version}, Seen: section.Seeing(known...),
			Author: author, Reason: reason,
		}
	}
	return next.Version, f.publish(next)
}

// publish signs a version and makes it the newest.
func (f *Fleet) publish(next section.Desired) error {
	pruned := false
	// Deleted keys that the board knows to be deleted, and that nobody set on it since,
	// need not be remembered.
	maps.DeleteFunc(next.Entries, func(key string, e section.Entry) bool {
		forget := len(e.Value) == 0 && e.Dot.N <= f.applied && len(f.override.Entries[key]) == 0
		pruned = pruned || forget
		return forget
	})
	if err := next.Bounded(); err != nil {
		return err
	}
	st, err := next.Statement(f.cfg.Tenant, f.cfg.Board)
	if err != nil {
		return err
	}
	if next.Envelope, err = f.cfg.Sign(st); err != nil {
		return fmt.Errorf("sign desired version %d of %s: %w", next.Version, f.cfg.Board, err)
	}
	if len(next.Envelope) > wire.MaxEnvelope {
		return fmt.Errorf("sign desired version %d of %s: an envelope of %d bytes, at most %d", next.Version, f.cfg.Board, len(next.Envelope), wire.MaxEnvelope)
	}
	if f.desired = next; pruned {
		f.pruned = next.Version
	}
	return nil
}

// Connect begins a connection: messages of others are not taken any more.
func (f *Fleet) Connect(conn uint64) { f.conn, f.sent = conn, 0 }

// Push gives what changed since the last message on this connection, nil if nothing did
// or no connection has begun.
func (f *Fleet) Push() *wire.Down {
	if f.sent == 0 && f.desired.Version == 0 || f.conn == 0 || f.sent >= f.desired.Version || f.behind {
		return nil
	}
	d := f.down()
	f.bring(d)
	return d
}

func (f *Fleet) down() *wire.Down {
	return &wire.Down{V: schema.Version, Conn: f.conn, Head: wire.Head{
		Epoch: f.epoch, Counter: f.counter, Version: f.desired.Version, Desired: f.desired.Digest(), Override: f.override.Digest(),
	}}
}

// bring puts the newest desired version into a message: what changed, where the board's
// version is known and that is less.
func (f *Fleet) bring(d *wire.Down) {
	d.Desired = f.desired.Whole()
	if from := max(f.sent, f.applied); from > 0 && from < f.desired.Version && from > f.base && from >= f.pruned {
		if p := f.desired.Since(from); len(p.Entries) < len(d.Desired.Entries) {
			d.Desired = p
		}
	}
	f.sent = f.desired.Version
}

// Receive takes a message of the board and gives the answer, nil if there is none. What
// it changed is saved before the answer goes out. An error tells what was not taken; the
// rest of the message was.
func (f *Fleet) Receive(u *wire.Up) (*wire.Down, error) {
	if u.Conn != f.conn {
		return nil, ErrStale
	}
	f.applied = u.Head.Version
	var errs error
	if u.Reported != nil {
		errs = errors.Join(errs, f.report(u.Reported))
	}
	if u.Override != nil {
		o, err := section.OpenOverride(u.Override)
		if err == nil {
			err = f.override.Merge(o)
		}
		errs = errors.Join(errs, err)
	}
	if u.Desired != nil {
		errs = errors.Join(errs, f.adopt(u.Desired))
	}
	d := f.down()
	if !bytes.Equal(u.Head.Reported, section.Digest(wholeReported(f.epoch, f.counter, f.reported))) {
		d.Want |= wire.WantReported
	}
	if !bytes.Equal(u.Head.Override, d.Head.Override) {
		if u.Override == nil {
			d.Want |= wire.WantOverride
		}
		d.Override = f.override.Wire()
	}
	switch {
	case u.Desired != nil && errs != nil: // asked for, and it was not ours: not again
	case u.Head.Version > f.desired.Version, f.behind && u.Head.Version > f.base,
		u.Head.Version == f.desired.Version && !bytes.Equal(u.Head.Desired, d.Head.Desired):
		d.Want |= wire.WantDesired
	case !bytes.Equal(u.Head.Desired, d.Head.Desired):
		if u.Want&wire.WantDesired != 0 {
			f.sent, f.applied = 0, 0 // whole
		}
		f.behind = false
		f.bring(d)
	default:
		f.behind = false
		f.sent = f.desired.Version
	}
	if u.Want == 0 && d.Want == 0 && d.Override == nil && d.Desired == nil {
		return nil, errs
	}
	return d, errs
}

// report takes the section reported or a change of it.
func (f *Fleet) report(r *wire.Reported) error {
	next := map[string][]byte{}
	if r.From > 0 {
		if r.Epoch != f.epoch || r.From != f.counter {
			return nil // the digests differ, and the whole is asked for
		}
		next = maps.Clone(f.reported)
	}
	for k, v := range r.Set {
		if err := Value(v).Check(); err != nil {
			return fmt.Errorf("reported %q: %w", k, err)
		}
		next[k] = v
	}
	for _, k := range r.Unset {
		delete(next, k)
	}
	if err := reportedFits(next); err != nil {
		return err
	}
	f.epoch, f.counter, f.reported = r.Epoch, r.To, next
	return nil
}

// adopt takes a version that this fleet signed in another life, and puts what was edited
// in this life on top: a fleet that was restored from a backup loses nothing that a board
// still has.
func (f *Fleet) adopt(s *wire.Desired) error {
	if s.From != 0 {
		return fmt.Errorf("desired of the board, from version %d: wants the whole", s.From)
	}
	theirs, err := f.desired.Apply(s)
	if err != nil {
		return err
	}
	if err := theirs.Verify(f.cfg.Tenant, f.cfg.Board, f.cfg.Open); err != nil {
		return err
	}
	next := f.desired.Merge(&theirs, f.cfg.Instance, func(won, lost *section.Entry) {
		w := section.EditOf(won)
		f.tell(Event{Kind: Decided, Key: won.Key, Won: &w, Lost: []Edit{section.EditOf(lost)}, Why: "edited anew after the fleet was restored from a backup"})
	})
	if err := f.publish(next); err != nil {
		return err
	}
	f.pruned = next.Version // entries of several lives: no change of a version can be told
	f.behind = false
	return nil
}

// Effective gives the value of a key that holds on the board once both know the same,
// and where it comes from.
func (f *Fleet) Effective(key string) (Value, Source) {
	w, from, _ := section.Decide(f.at(key), f.override.Entries[key])
	if w == nil || len(w.Value) == 0 {
		return nil, FromNowhere
	}
	return w.Value, from
}

func (f *Fleet) at(key string) *section.Entry {
	if d, ok := f.desired.Entries[key]; ok {
		return &d
	}
	return nil
}

// Conflicts gives the keys that a person has to decide: an Edit of the key does.
func (f *Fleet) Conflicts() []Conflict {
	var out []Conflict
	for _, key := range slices.Sorted(maps.Keys(f.override.Entries)) {
		if _, _, conflict := section.Decide(f.at(key), f.override.Entries[key]); conflict {
			out = append(out, section.ConflictOf(f.at(key), f.override.Entries[key]))
		}
	}
	return out
}

// Events gives what was not yet confirmed, the oldest first: only a fleet that was
// restored from a backup has any.
func (f *Fleet) Events() []Event { return f.events }

// Confirm forgets the first n events: they are kept elsewhere.
func (f *Fleet) Confirm(n int) { f.events = slices.Delete(f.events, 0, min(n, len(f.events))) }

func (f *Fleet) tell(e Event) {
	if f.events = append(f.events, e); len(f.events) > maxEvents {
		f.events = slices.Delete(f.events, 0, len(f.events)-maxEvents)
	}
}

// Reported gives what the board said it is, by key.
func (f *Fleet) Reported() map[string]Value {
	out := map[string]Value{}
	for k, v := range f.reported {
		out[k] = v
	}
	return out
}

// Version gives the newest desired version and the one that the board said it has.
func (f *Fleet) Version() (newest, board uint64) { return f.desired.Version, f.applied }

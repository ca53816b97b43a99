// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/internal/fit"
	"fulmar/schema"
	"fulmar/twin/section"
	"fulmar/twin/wire"
)

// Report says what the board is: values of keys, nil for one that is not any more. It
// fails if the section would not fit, and changes nothing then.
func (b *Board) Report(values map[string]Value) error {
	next := maps.Clone(b.reported)
	for k, v := range values {
		if len(v) == 0 {
			delete(next, k)
			continue
		}
		next[k] = v
	}
	if err := reportedFits(next); err != nil {
		return err
	}
	for k, v := range values {
		if !bytes.Equal(b.reported[k], v) {
			b.sent.changed[k] = true
		}
	}
	if !maps.EqualFunc(next, b.reported, bytes.Equal) {
		b.counter++
		b.reported = next
	}
	return nil
}

func reportedFits(keys map[string][]byte) error {
	r := wire.Reported{Epoch: "b00000000-00000000", To: 1, Set: keys}
	b, err := schema.Encode(&r)
	if err != nil || len(b) > wire.MaxReported || len(keys) > wire.MaxKeys {
		return fmt.Errorf("reported with %d keys and %d bytes, at most %d and %d: %w", len(keys), len(b), wire.MaxKeys, wire.MaxReported, ErrFull)
	}
	for k, v := range keys {
		if k == "" || len(k) > wire.MaxKey || len(v) > wire.MaxValue {
			return fmt.Errorf("reported key %.40q of %d bytes with a value of %d, at most %d and %d", k, len(k), len(v), wire.MaxKey, wire.MaxValue)
		}
	}
	return nil
}

// whole gives the section reported.
func wholeReported(epoch string, counter uint64, keys map[string][]byte) *wire.Reported {
	return &wire.Reported{Epoch: epoch, To: counter, Set: keys}
}

func (b *Board) head() wire.Head {
	return wire.Head{
		Epoch: b.cfg.Instance, Counter: b.counter, Reported: section.Digest(wholeReported(b.cfg.Instance, b.counter, b.reported)),
		Version: b.desired.Version, Desired: b.desired.Digest(), Override: b.override.Digest(),
	}
}

func (b *Board) up() *wire.Up {
	return &wire.Up{V: schema.Version, Conn: b.conn, Head: b.head()}
}

// Hello begins a connection: the first message, which asks for an answer.
func (b *Board) Hello(conn uint64) *wire.Up {
	b.conn = conn
	b.sent.counter, b.sent.override = b.counter, b.override.Digest()
	clear(b.sent.changed)
	u := b.up()
	u.Want = wire.WantHead
	return u
}

// Pending gives what changed on the board since the last message, nil if nothing did.
func (b *Board) Pending() *wire.Up {
	u := b.up()
	if b.counter != b.sent.counter {
		r := &wire.Reported{Epoch: b.cfg.Instance, From: b.sent.counter, To: b.counter, Set: map[string][]byte{}}
		for _, k := range slices.Sorted(maps.Keys(b.sent.changed)) {
			if v, ok := b.reported[k]; ok {
				r.Set[k] = v
			} else {
				r.Unset = append(r.Unset, k)
			}
		}
		if r.From == 0 { // 0 means whole, which it is
			r.Unset, r.Set = nil, b.reported
		}
		u.Reported = r
	}
	if !bytes.Equal(u.Head.Override, b.sent.override) {
		u.Override = b.override.Wire()
	}
	if u.Reported == nil && u.Override == nil {
		return nil
	}
	b.sentAll(u)
	return u
}

// sentAll remembers what a message brings to the fleet.
func (b *Board) sentAll(u *wire.Up) {
	if u.Reported != nil {
		b.sent.counter = b.counter
		clear(b.sent.changed)
	}
	if u.Override != nil {
		b.sent.override = u.Head.Override
	}
}

// Receive takes a message of the fleet and gives the answer, nil if there is none. What
// it changed is saved before the answer goes out. An error tells what was not taken; the
// rest of the message was.
func (b *Board) Receive(d *wire.Down) (*wire.Up, error) {
	if d.Conn != b.conn {
		return nil, ErrStale
	}
	want, version := uint8(0), b.desired.Version
	var errs error
	if d.Override != nil {
		o, err := section.OpenOverride(d.Override)
		if err == nil {
			err = b.override.Merge(o)
		}
		errs = errors.Join(errs, err)
	}
	if d.Desired != nil {
		err := b.take(d.Desired)
		if errors.Is(err, ErrBase) && d.Desired.From != 0 {
			want |= wire.WantDesired // ask for the whole: not an error
		} else {
			errs = errors.Join(errs, err)
		}
	}
	b.settle()
	u := b.up()
	u.Want = want
	if d.Want&wire.WantReported != 0 {
		u.Reported = wholeReported(b.cfg.Instance, b.counter, b.reported)
	}
	if d.Want&wire.WantDesired != 0 && b.desired.Version > 0 {
		u.Desired = b.desired.Whole()
	}
	if d.Want&wire.WantOverride != 0 || !bytes.Equal(u.Head.Override, b.sent.override) {
		u.Override = b.override.Wire()
	}
	b.sentAll(u)
	if u.Want == 0 && u.Reported == nil && u.Desired == nil && u.Override == nil && b.desired.Version == version {
		return nil, errs
	}
	return u, errs
}

// take applies a desired section or a change of it.
func (b *Board) take(s *wire.Desired) error {
	if s.Version <= b.desired.Version {
		return nil // an old message, or one that came twice
	}
	next, err := b.desired.Apply(s)
	if err != nil {
		return err
	}
	if err := next.Verify(b.cfg.Tenant, b.cfg.Board, b.cfg.Open); err != nil {
		return err
	}
	was, old := b.refused, b.applied
	b.desired, b.refused, b.applied = next, map[string]refusal{}, map[string]section.Entry{}
	for _, key := range slices.Sorted(maps.Keys(next.Entries)) {
		b.applyKey(next.Entries[key], old, was[key])
	}
	// A deletion that the fleet has forgotten is not gone back from: no entry could say so.
	maps.DeleteFunc(b.before, func(key string, _ section.Entry) bool { _, there := next.Entries[key]; return !there })
	return nil
}

// applyKey applies the fleet's edit of one key, or keeps what was applied, which is in all.
func (b *Board) applyKey(d section.Entry, all map[string]section.Entry, was refusal) {
	old, there := all[d.Key]
	no := refusal{Dot: d.Dot}
	switch {
	case there && old.Dot == d.Dot: // it is applied
	case was.Dot == d.Dot && was.Undone:
		no = was // this edit made the board unhealthy: not a second time
	case len(d.Value) > 0 && b.cfg.Check != nil:
		if err := b.cfg.Check(d.Key, d.Value); err != nil {
			no.Why = clipped(err.Error())
		}
	}
	if no.Why == "" {
		b.applied[d.Key] = d
		return
	}
	b.refused[d.Key] = no
	if there {
		b.applied[d.Key] = old
	}
	if was.Dot != d.Dot {
		b.tell(Event{Kind: Refused, Key: d.Key, Lost: []Edit{section.EditOf(&d)}, Why: no.Why})
	}
}

// clipped bounds a reason.
func clipped(s string) string { return fit.Text(s, schema.MaxFact) }

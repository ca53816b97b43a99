// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"fulmar/schema"
	"fulmar/twin/section"
	"fulmar/twin/wire"
)

// maxSaved bounds what one side keeps of its twin, in bytes: each section twice, and
// the events that nobody took.
const maxSaved = 2 << 20

// saver is the codec of what is saved: larger than a message may be, and deterministic, so
// that who saves sees whether anything changed.
var saver = sync.OnceValue(func() cbor.EncMode {
	enc, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode()
	if err != nil {
		panic(err) // the options are constants: only a broken build gets here
	}
	return enc
})

// disk reads what saver wrote.
var disk = sync.OnceValue(func() cbor.DecMode {
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: wire.MaxKeys * wire.MaxSiblings, MaxMapPairs: wire.MaxKeys,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constants: only a broken build gets here
	}
	return dec
})

func pack(v any) ([]byte, error) {
	b, err := saver().Marshal(v)
	if err == nil && len(b) > maxSaved {
		err = fmt.Errorf("%d bytes, at most %d", len(b), maxSaved)
	}
	if err != nil {
		return nil, fmt.Errorf("save a twin: %w", err)
	}
	return b, nil
}

func unpack(b []byte, v any) error {
	if len(b) > maxSaved {
		return fmt.Errorf("open a saved twin: %d bytes, at most %d", len(b), maxSaved)
	}
	if err := disk().Unmarshal(b, v); err != nil {
		return fmt.Errorf("open a saved twin: %w", err)
	}
	return nil
}

// savedBoard is a board's side on its disk. Applied and Before hold only what differs
// from the newest version; an entry without a dot stands for a key that is not there.
type savedBoard struct {
	V        uint8              `cbor:"1,keyasint"`
	Desired  *wire.Desired      `cbor:"2,keyasint"`
	Applied  []section.Entry    `cbor:"3,keyasint,omitempty"`
	Before   []section.Entry    `cbor:"4,keyasint,omitempty"`
	Refused  map[string]refusal `cbor:"5,keyasint,omitempty"`
	Override *wire.Override     `cbor:"7,keyasint"`
	Leases   []savedLease       `cbor:"8,keyasint,omitempty"`
	Held     []string           `cbor:"9,keyasint,omitempty"`
	Events   []Event            `cbor:"10,keyasint,omitempty"`
}

type savedLease struct {
	Dot  wire.Dot      `cbor:"1,keyasint"`
	Left time.Duration `cbor:"2,keyasint"`
}

// Save gives what NewBoard opens: all but what is reported, which the next run of the
// program reports anew.
func (b *Board) Save() ([]byte, error) {
	s := savedBoard{
		V: schema.Version, Desired: b.desired.Whole(), Applied: differing(b.desired.Entries, b.applied),
		Before: differing(b.desired.Entries, b.before), Refused: b.refused,
		Override: b.override.Wire(), Held: slices.Sorted(maps.Keys(b.held)), Events: b.events,
	}
	for dot, left := range b.leases {
		s.Leases = append(s.Leases, savedLease{dot, left})
	}
	slices.SortFunc(s.Leases, func(a, b savedLease) int {
		return cmp.Or(cmp.Compare(a.Dot.Actor, b.Dot.Actor), cmp.Compare(a.Dot.N, b.Dot.N))
	})
	return pack(&s)
}

// differing gives the keys in which b is not as a.
func differing(a, b map[string]section.Entry) []section.Entry {
	var out []section.Entry
	for k := range a {
		if _, ok := b[k]; !ok {
			out = append(out, section.Entry{Key: k})
		}
	}
	for k, e := range b {
		if o, ok := a[k]; !ok || o.Dot != e.Dot {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b section.Entry) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (b *Board) load(saved []byte) error {
	var s savedBoard
	if err := unpack(saved, &s); err != nil {
		return err
	}
	if s.V != schema.Version || s.Desired == nil || s.Override == nil {
		return fmt.Errorf("open a saved twin: version %d, wants %d, or a section is missing", s.V, schema.Version)
	}
	o, err := section.OpenOverride(s.Override)
	if err != nil {
		return fmt.Errorf("open a saved twin: %w", err)
	}
	d, err := b.desired.Apply(s.Desired)
	if err != nil {
		return fmt.Errorf("open a saved twin: %w", err)
	}
	b.desired, b.override, b.events = d, o, s.Events
	with := func(differ []section.Entry) map[string]section.Entry {
		all := maps.Clone(d.Entries)
		for _, e := range differ {
			if all[e.Key] = e; e.Dot == (wire.Dot{}) {
				delete(all, e.Key)
			}
		}
		return all
	}
	b.applied, b.before = with(s.Applied), with(s.Before)
	maps.Copy(b.refused, s.Refused)
	for _, l := range s.Leases {
		b.leases[l.Dot] = l.Left
	}
	for _, k := range s.Held {
		b.held[k] = true
	}
	b.forget()
	return nil
}

// savedFleet is the fleet's side in its database.
type savedFleet struct {
	V        uint8          `cbor:"1,keyasint"`
	Instance string         `cbor:"2,keyasint"`
	Desired  *wire.Desired  `cbor:"3,keyasint"`
	Base     uint64         `cbor:"4,keyasint,omitempty"`
	Behind   bool           `cbor:"5,keyasint,omitempty"`
	Override *wire.Override `cbor:"6,keyasint"`
	Reported *wire.Reported `cbor:"7,keyasint,omitempty"`
	Applied  uint64         `cbor:"8,keyasint,omitempty"`
	Pruned   uint64         `cbor:"9,keyasint,omitempty"`
	Events   []Event        `cbor:"10,keyasint,omitempty"`
}

// Save gives what NewFleet opens.
func (f *Fleet) Save() ([]byte, error) {
	return pack(&savedFleet{
		V: schema.Version, Instance: f.cfg.Instance, Desired: f.desired.Whole(), Base: f.base, Behind: f.behind,
		Override: f.override.Wire(), Reported: wholeReported(f.epoch, f.counter, f.reported), Applied: f.applied, Pruned: f.pruned, Events: f.events,
	})
}

func (f *Fleet) load(saved []byte) error {
	var s savedFleet
	if err := unpack(saved, &s); err != nil {
		return err
	}
	if s.V != schema.Version || s.Desired == nil || s.Override == nil || s.Reported == nil {
		return fmt.Errorf("open a saved twin: version %d, wants %d, or a section is missing", s.V, schema.Version)
	}
	o, err := section.OpenOverride(s.Override)
	if err != nil {
		return fmt.Errorf("open a saved twin: %w", err)
	}
	d, err := f.desired.Apply(s.Desired)
	if err != nil {
		return fmt.Errorf("open a saved twin: %w", err)
	}
	f.desired, f.override, f.base, f.behind = d, o, s.Base, s.Behind
	f.applied, f.pruned, f.events = s.Applied, s.Pruned, s.Events
	f.epoch, f.counter = s.Reported.Epoch, s.Reported.To
	maps.Copy(f.reported, s.Reported.Set)
	if s.Instance != f.cfg.Instance && !f.behind { // a life that begins from a backup
		f.base, f.behind = d.Version, true
	}
	return nil
}

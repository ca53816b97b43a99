// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package live is what is known of boards right now: who was heard last, and the newest
// value of each series. These change with nearly every message, so they are held in memory
// and written to the ledger at a pace of their own. What a crash loses of them comes again
// with the next message of each board.
//
// [Boards] joins the one writer of a ledger with its readers in the same process: after
// each commit the writer tells whose data changed, and their values. So readers need not
// look for changes in the database, and see values that are not written yet.
package live

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"fulmar/schema"
)

const (
	// maxSeries bounds the series of one board whose newest value is kept.
	maxSeries = 2 * schema.MaxSeries
	// maxPeriod is the longest time between messages taken for a period and not for
	// an outage, ms.
	maxPeriod = 10 * 60 * 1000
)

// Key names a board across tenants.
type Key struct{ Tenant, Board string }

// Reading is the newest value of a series.
type Reading struct {
	_       struct{} `cbor:",toarray"`
	Value   float64
	Quality schema.Quality
	At      int64 // ms since 1970
}

// Values are those of one board. The zero Values are of one that was never heard.
type Values struct {
	LastSeen int64 // ms since 1970
	Period   int64 // smoothed time between messages, ms
	// Names are those of the series in order, Readings run in parallel.
	Names    []string // shared by copies: replaced, never changed
	Readings []Reading
}

// Parse reads the newest values as [Values.Encode] wrote them.
func (v *Values) Parse(b []byte) error {
	latest := map[string]Reading{}
	if len(b) > 0 {
		if err := cbor.Unmarshal(b, &latest); err != nil {
			return fmt.Errorf("newest values: %w", err)
		}
	}
	v.Names, v.Readings = nil, nil
	for name := range latest {
		v.Names = append(v.Names, name)
	}
	slices.Sort(v.Names)
	for _, name := range v.Names {
		v.Readings = append(v.Readings, latest[name])
	}
	return nil
}

// Encode gives the newest values as a CBOR map of series name to Reading.
func (v *Values) Encode() ([]byte, error) {
	latest := make(map[string]Reading, len(v.Names))
	for i, name := range v.Names {
		latest[name] = v.Readings[i]
	}
	return cbor.Marshal(latest)
}

// Copy gives values that stay as they are now.
func (v *Values) Copy() Values {
	c := *v
	c.Readings = slices.Clone(v.Readings)
	return c
}

// Seen notes that a message has come now (ms since 1970).
func (v *Values) Seen(now int64) {
	if since := now - v.LastSeen; v.LastSeen > 0 && since < maxPeriod {
		v.Period += (since - v.Period) / 8
	}
	v.LastSeen = now
}

// Take takes a reading, unless a newer one is known. One that lies in the future gives way
// to any: the board's clock was wrong.
func (v *Values) Take(name string, r Reading, now int64) {
	i, known := slices.BinarySearchFunc(v.Names, name, strings.Compare)
	switch {
	case known:
		if old := v.Readings[i].At; old <= r.At || old > now {
			v.Readings[i] = r
		}
	case len(v.Names) < maxSeries:
		v.Names = slices.Insert(slices.Clone(v.Names), i, name)
		v.Readings = slices.Insert(v.Readings, i, r)
	}
}

// Told is what a reader is told of a board.
type Told struct {
	Name   string
	Values Values // nobody may change what its slices hold
	// Cold tells that more has changed than its values and its books of numbers; or, with
	// Gone, that all of it was removed.
	Cold, Gone bool
}

type entry struct {
	Told
	seq, cold uint64 // of the last change, and of the last that was cold
}

// Boards are those of one ledger; one entry for each board that was heard since the start,
// so their number is bounded by that of boards. All methods may be called at any time.
type Boards struct {
	mu     sync.Mutex
	seq    uint64
	wiped  uint64
	writer bool
	by     map[string]map[string]*entry // tenant, name
}

// Begin says that the ledger's writer is in this process, and tells all changes.
func (b *Boards) Begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writer = true
}

// Tell tells of a committed change.
func (b *Boards) Tell(k Key, v Values, cold bool) { b.put(k, Told{Name: k.Board, Values: v}, cold) }

// Gone tells that all that was known of a board was removed.
func (b *Boards) Gone(k Key) {
	b.put(k, Told{Name: k.Board, Gone: true}, true)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wiped++
}

func (b *Boards) put(k Key, t Told, cold bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by == nil {
		b.by = map[string]map[string]*entry{}
	}
	of := b.by[k.Tenant]
	if of == nil {
		of = map[string]*entry{}
		b.by[k.Tenant] = of
	}
	e := of[k.Board]
	if e == nil {
		e = &entry{}
		of[k.Board] = e
	}
	b.seq++
	cold = cold || e.Gone // it is another board now
	e.Told, e.seq = t, b.seq
	if cold {
		e.cold = b.seq
	}
}

// Get gives the values of a board that were told last.
func (b *Boards) Get(k Key) (Values, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.by[k.Tenant][k.Board]
	if e == nil || e.Gone {
		return Values{}, false
	}
	return e.Values.Copy(), true
}

// Mark is how far a reader has been told.
type Mark struct {
	seq uint64
	// Wiped counts the boards of all tenants that are gone: their numbers, and those of
	// their rows, may be given anew, so a reader that counts by them begins anew.
	Wiped uint64
	// Writer is false where nobody in this process tells: then only the database knows.
	Writer bool
}

// Since gives what was told of a tenant's boards after a mark (the zero Mark: all that
// was), and the next mark.
func (b *Boards) Since(tenant string, m Mark) (told []Told, next Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.by[tenant] {
		if e.seq > m.seq {
			t := e.Told
			t.Cold = e.cold > m.seq
			told = append(told, t)
		}
	}
	return told, Mark{b.seq, b.wiped, b.writer}
}

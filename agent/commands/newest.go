// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/schema"
)

// maxSeries is how many series the table of newest values holds: as many as a batch may
// have, twice. What does not fit is left out.
const maxSeries = 2 * schema.MaxSeries

// valueRoom is how many bytes the values of an answer may take: the frame about them is
// small.
const valueRoom = command.MaxValue - 1024

// Newest is the newest value of each series that was sampled. It is safe for use by many
// goroutines.
type Newest struct {
	clock  schema.Clock
	mu     sync.Mutex
	values map[string]reading
}

type reading struct {
	value   float64
	quality schema.Quality
	mono    int64
}

// NewNewest makes an empty table.
func NewNewest(clock schema.Clock) *Newest {
	return &Newest{clock: clock, values: map[string]reading{}}
}

// Samples takes a batch in: a sink beside the spool's. It keeps nothing of b.
func (n *Newest) Samples(t schema.Time, b *schema.Samples) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, name := range b.Series {
		r := reading{value: b.Value[i], mono: t.Mono}
		if b.Quality != nil {
			r.quality = b.Quality[i]
		}
		if _, known := n.values[name]; !known && len(n.values) >= maxSeries {
			continue
		}
		n.values[name] = r
	}
}

// Value gives the newest good value of a series and its age; ok says that there is one
// whose quality is good.
func (n *Newest) Value(name string) (v float64, age time.Duration, ok bool) {
	now := n.clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	r, known := n.values[name]
	return r.value, time.Duration(now.Mono - r.mono), known && r.quality == schema.QualityGood
}

// sensorValue is one reading in the answer of read-sensor-batch. Without a good quality
// it has no value.
type sensorValue struct {
	Value   *float64 `cbor:"value,omitempty"`
	Quality string   `cbor:"quality"`
	AgeS    float64  `cbor:"age_s"` // seconds since it was read
}

type sensorBatch struct {
	Values map[string]sensorValue `cbor:"values"`
	// None are the names that match no series; LeftOut how many values found no room.
	None    []string `cbor:"none,omitempty"`
	LeftOut int      `cbor:"left_out,omitempty"`
}

// batch gives the newest values of names and globs; all of them for none.
func (n *Newest) batch(patterns []string) sensorBatch {
	if len(patterns) == 0 {
		patterns = []string{"*"}
	}
	now := n.clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	names := slices.Sorted(maps.Keys(n.values))
	out := sensorBatch{Values: map[string]sensorValue{}}
	room := valueRoom
	for _, p := range patterns {
		found := false
		for _, name := range names {
			if !matches(p, name) {
				continue
			}
			found = true
			if _, there := out.Values[name]; there {
				continue
			}
			if room -= len(name) + 48; room < 0 { // three short keys, two floats, a word
				out.LeftOut++
				continue
			}
			r := n.values[name]
			v := sensorValue{Quality: r.quality.String(), AgeS: time.Duration(now.Mono - r.mono).Round(time.Millisecond).Seconds()}
			if r.quality == schema.QualityGood {
				v.Value = &r.value
			}
			out.Values[name] = v
		}
		if !found {
			out.None = append(out.None, p)
		}
	}
	if len(out.None) > 8 {
		out.None = out.None[:8] // enough to see what is wrong
	}
	return out
}

// matches knows '*' as all: names have no levels for people, though they may have slashes.
func matches(pattern, name string) bool {
	flat := func(s string) string { return strings.ReplaceAll(s, "/", "\x00") }
	ok, err := path.Match(flat(pattern), flat(name))
	return err == nil && ok
}

func (s *Service) readSensorBatch() builtin {
	return builtin{
		name: "read-sensor-batch", lane: command.Quick, effect: "gives the newest values of sensors, with their quality and age",
		args: []command.Field{{Name: "sensors", Type: command.Texts, Help: "names or globs of series, thermal.*; without it all"}},
		check: func(a command.Args) error {
			for _, p := range a.Texts("sensors") {
				if _, err := path.Match(p, ""); err != nil {
					return &command.Error{Code: command.CodeArgs, Text: fmt.Sprintf("sensors: %.40q is no glob of series names", p)}
				}
			}
			return nil
		},
		repeat: true, // it has no effect
		do: func(_ context.Context, _ command.Call, a command.Args) (any, error) {
			return s.cfg.Newest.batch(a.Texts("sensors")), nil
		},
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package thin turns many batches of samples into a few summaries: one a minute,
// with minimum, mean, maximum and count of each series, so that a spike survives
// where its second does not.
package thin

import (
	"time"

	"fulmar/schema"
)

const (
	// span is the length of a summary: a day of 40 series at one a second shrinks
	// to about a twentieth, and a minute is finer than anybody looks at old days.
	span = time.Minute
	// seriesMax keeps a summary of longest names under schema.MaxRecord.
	seriesMax = 128
	// MaxMinutes bounds the minutes gathered at once: 60 of 40 series are 150 KB.
	MaxMinutes = 60
)

// sum is what is known of one series in one minute.
type sum struct {
	name           string
	total          float64 // of the good readings; their mean is total / count
	least, largest float64
	count          uint32
	quality        schema.Quality // of the last reading that was not good
}

// minute gathers one minute of one boot.
type minute struct {
	boot  uint64
	start int64 // ns since boot
	wall  int64 // ms since 1970 at start, as the first record tells it
	sums  []sum
	index map[string]int
}

// Gathering takes records, in the order of their numbers.
type Gathering struct {
	minutes []*minute
	kept    [][]byte // records that are no plain samples
}

// Add takes one record's payload, which is copied where it is kept; false when it
// belongs to a minute that there is no room for.
func (g *Gathering) Add(payload []byte) bool {
	rec, err := schema.DecodeRecord(payload)
	if err != nil || rec.Kind != schema.KindSamples || rec.Samples.Over != nil {
		if len(g.kept) >= 2*MaxMinutes {
			return false
		}
		g.kept = append(g.kept, append([]byte(nil), payload...))
		return true
	}
	m := g.minute(rec.Time)
	if m == nil {
		return false
	}
	s := rec.Samples
	for i, name := range s.Series {
		q := schema.QualityGood
		if s.Quality != nil {
			q = s.Quality[i]
		}
		m.add(name, s.Value[i], q)
	}
	return true
}

// minute finds or begins the minute of a time; nil: there are too many.
func (g *Gathering) minute(t schema.Time) *minute {
	start := t.Mono - t.Mono%int64(span)
	for i := len(g.minutes) - 1; i >= 0; i-- { // mostly the last one
		if m := g.minutes[i]; m.boot == t.Boot && m.start == start {
			return m
		}
	}
	if len(g.minutes) >= MaxMinutes {
		return nil
	}
	m := &minute{boot: t.Boot, start: start, wall: t.Wall - (t.Mono-start)/int64(time.Millisecond), index: map[string]int{}}
	g.minutes = append(g.minutes, m)
	return m
}

func (m *minute) add(name string, v float64, q schema.Quality) {
	i, known := m.index[name]
	if !known {
		i = len(m.sums)
		m.index[name] = i
		m.sums = append(m.sums, sum{name: name})
	}
	s := &m.sums[i]
	if q != schema.QualityGood {
		s.quality = q
		return
	}
	if s.count == 0 {
		s.least, s.largest = v, v
	}
	s.least, s.largest = min(s.least, v), max(s.largest, v)
	s.total += v
	s.count++
}

// Records gives the encoded records that stand for what was added.
func (g *Gathering) Records() ([][]byte, error) {
	out := g.kept
	for _, m := range g.minutes {
		for at := 0; at < len(m.sums); at += seriesMax {
			b, err := schema.EncodeRecord(m.record(m.sums[at:min(at+seriesMax, len(m.sums))]))
			if err != nil {
				return nil, err
			}
			out = append(out, b)
		}
	}
	return out, nil
}

func (m *minute) record(sums []sum) *schema.Record {
	n := len(sums)
	s := &schema.Samples{
		Series: make([]string, n), Value: make([]float64, n),
		Over: &schema.Over{SpanMs: span.Milliseconds(), Min: make([]float64, n), Max: make([]float64, n), Count: make([]uint32, n)},
	}
	for i, v := range sums {
		s.Series[i] = v.name
		if v.count > 0 {
			// Within its bounds also where the sum has lost digits or overflowed.
			s.Value[i] = min(max(v.total/float64(v.count), v.least), v.largest)
			s.Over.Min[i], s.Over.Max[i], s.Over.Count[i] = v.least, v.largest, v.count
			continue
		}
		if s.Quality == nil {
			s.Quality = make([]schema.Quality, n)
		}
		s.Quality[i] = v.quality
	}
	return &schema.Record{Kind: schema.KindSamples, Time: schema.Time{Boot: m.boot, Mono: m.start, Wall: m.wall}, Samples: s}
}

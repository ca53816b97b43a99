// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/schema"
)

// maxLatest bounds the series kept; a board has some hundred.
const maxLatest = 4096

// Latest keeps the newest reading of each series: also of those that rules of change keep
// from being sent. Safe for concurrent use.
type Latest struct {
	clock schema.Clock

	mu     sync.Mutex
	series map[string]newest
}

type newest struct {
	value   float64
	quality schema.Quality
	mono    int64 // of the clock, ns: counts a suspend
}

// Reading is the newest reading of one series. Value says nothing where the quality is not
// good.
type Reading struct {
	Series  string
	Value   float64
	Quality schema.Quality
	Age     time.Duration
}

// NewLatest makes one that knows nothing yet.
func NewLatest(clock schema.Clock) *Latest {
	return &Latest{clock: clock, series: map[string]newest{}}
}

// Value gives the newest value of a series and how old it is; ok is false where there is
// none, or where the last reading was not good.
func (l *Latest) Value(series string) (v float64, age time.Duration, ok bool) {
	now := l.clock.Now().Mono
	l.mu.Lock()
	defer l.mu.Unlock()
	n, known := l.series[series]
	return n.value, time.Duration(now - n.mono), known && n.quality == schema.QualityGood
}

// All gives the newest reading of every series, by name.
func (l *Latest) All() []Reading {
	now := l.clock.Now().Mono
	l.mu.Lock()
	out := make([]Reading, 0, len(l.series))
	for name, n := range l.series {
		out = append(out, Reading{name, n.value, n.quality, time.Duration(now - n.mono)})
	}
	l.mu.Unlock() // the sampler waits for it
	slices.SortFunc(out, func(a, b Reading) int { return strings.Compare(a.Series, b.Series) })
	return out
}

// Put takes one reading, made at mono; a nil Latest takes none.
func (l *Latest) Put(series string, v float64, q schema.Quality, mono int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.series[series]; ok || len(l.series) < maxLatest {
		l.series[series] = newest{v, q, mono}
	}
}

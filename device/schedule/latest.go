// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"sync"
	"time"

	"fulmar/schema"
)

// maxLatest bounds the series kept; a board has some hundred.
const maxLatest = 4096

// Latest keeps the newest value of each series: also of those that rules of change keep
// from being sent. Safe for concurrent use.
type Latest struct {
	clock schema.Clock

	mu     sync.Mutex
	series map[string]newest
}

type newest struct {
	value float64
	mono  int64 // of the clock, ns: counts a suspend
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
	n, ok := l.series[series]
	return n.value, time.Duration(now - n.mono), ok
}

// put takes one reading; a nil Latest takes none.
func (l *Latest) put(series string, v float64, q schema.Quality, mono int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if q != schema.QualityGood {
		delete(l.series, series)
		return
	}
	if _, ok := l.series[series]; ok || len(l.series) < maxLatest {
		l.series[series] = newest{v, mono}
	}
}

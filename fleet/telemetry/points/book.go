// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

const (
	// idle is after how long, ms of samples, a series that nothing came of leaves its
	// place to another. It stays in the database until retention takes it.
	idle = 24 * 60 * 60 * 1000
	// namedRefusals is how many refused series are kept by name: enough to see a pattern.
	namedRefusals = 100
)

// Limits bound how many series are live at once: each costs about 2 KiB of
// memory (docs/benchmarks.md).
type Limits struct{ Board, Tenant int }

// Refused is a series that found no place.
type Refused struct {
	Tenant, Board, Series string
}

// Book knows the live series. It is for one goroutine.
type Book struct {
	limits  Limits
	boards  map[place]*shelf
	tenants map[string]int // live series

	refusals uint64 // points
	refused  []Refused
}

type shelf struct {
	board  Board
	series map[string]*Series
	full   int64 // when a place was last looked for in vain, ms of samples
}

// NewBook makes an empty book.
func NewBook(l Limits) *Book {
	return &Book{limits: l, boards: map[place]*shelf{}, tenants: map[string]int{}}
}

// Refused tells how many points were refused since the start because their series found
// no place, and names the newest of those series.
func (k *Book) Refused() (points uint64, newest []Refused) {
	return k.refusals, slices.Clone(k.refused)
}

// Live tells how many series are live.
func (k *Book) Live() (n int) {
	for _, c := range k.tenants {
		n += c
	}
	return n
}

// place is where a board's series are: its number in the ledger and its name, since
// the fleet's own series have no number.
type place struct {
	id           int64
	tenant, name string
}

// forget lets a board go.
func (k *Book) forget(p place) {
	if s := k.boards[p]; s != nil {
		k.tenants[s.board.Tenant] -= len(s.series)
		delete(k.boards, p)
	}
}

// series gives the series that is kept under the key, made of the labels if it is new;
// nil where it finds no place.
func (k *Book) series(b Board, key string, at int64, make func() labels.Labels) *Series {
	where := place{b.ID, b.Tenant, b.Name}
	sh := k.boards[where]
	if sh != nil && sh.board != b { // another site: other series
		k.forget(where)
		sh = nil
	}
	if sh == nil {
		sh = &shelf{board: b, series: map[string]*Series{}}
		k.boards[where] = sh
	}
	if s := sh.series[key]; s != nil {
		s.used = max(s.used, at)
		return s
	}
	if len(sh.series) >= k.limits.Board || k.tenants[b.Tenant] >= k.limits.Tenant {
		k.sweep(sh, at)
	}
	if len(sh.series) >= k.limits.Board || k.tenants[b.Tenant] >= k.limits.Tenant {
		k.refuse(Refused{b.Tenant, b.Name, strings.ReplaceAll(key, "\xff", " ")})
		return nil
	}
	s := &Series{Labels: make(), used: at}
	sh.series[key] = s
	k.tenants[b.Tenant]++
	return s
}

// sweep lets idle series of a board go, at most once in a minute of samples, so that a
// board that invents names does not cost a walk for each.
func (k *Book) sweep(sh *shelf, at int64) {
	if at-sh.full < 60_000 && sh.full-at < 60_000 {
		return
	}
	sh.full = at
	for key, s := range sh.series {
		if s.used < at-idle {
			delete(sh.series, key)
			k.tenants[sh.board.Tenant]--
		}
	}
}

// Sweep lets all idle series go: a tenant's places are those of its boards that live.
func (k *Book) Sweep(now int64) {
	for where, sh := range k.boards {
		for key, s := range sh.series {
			if s.used < now-idle {
				delete(sh.series, key)
				k.tenants[sh.board.Tenant]--
			}
		}
		if len(sh.series) == 0 {
			delete(k.boards, where)
		}
	}
}

func (k *Book) refuse(r Refused) {
	k.refusals++
	if slices.Contains(k.refused, r) {
		return
	}
	if len(k.refused) >= namedRefusals {
		k.refused = k.refused[1:]
	}
	k.refused = append(k.refused, r)
}

// Own gives a point of a series of the fleet's own about a board; false where it finds
// no place. Boards are told apart by their names.
func (k *Book) Own(b Board, at int64, v float64, metric string, more ...string) (Point, bool) {
	s := k.series(b, metric+"\xff"+strings.Join(more, "\xff"), at, func() labels.Labels { return Labels(b, metric, more...) })
	return Point{s, at, v}, s != nil
}

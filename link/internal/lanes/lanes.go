// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package lanes

import (
	"math"
	"slices"

	"fulmar/link/internal/share"
	"fulmar/schema"
)

// The sides of the line: what was made since the connection began, and what waited
// for it. They share it 7 : 3 by bytes, so that the page is live while a backlog
// drains; who is alone has all of it.
const (
	Live = iota
	Backlog
	numSides
)

// sideWeights share the line between the sides.
func sideWeights() *share.Queue { return share.New(7, 3) }

// classWeights share a side between the classes that are not alarms: events are what
// the board is for, metrics are small, pictures can wait.
func classWeights() *share.Queue { return share.New(4, 2, 1) }

// maxSeen bounds the epochs remembered of one connection.
const maxSeen = 16 * schema.MaxCursors

// others are the classes of classWeights, in its order.
var others = [...]schema.Class{schema.ClassEvent, schema.ClassMetric, schema.ClassSnapshot}

// Lane is where a connection stands in one run of numbers: those of a class and
// epoch that were made before the connection, or after. So what is acknowledged
// out of order is one run of live numbers above one of the backlog.
type Lane struct {
	Class schema.Class
	Epoch uint64
	Side  int
	Next  uint64 // number to read from
	Last  uint64 // highest number of the lane
	Empty bool   // nothing was there when it was read last; a wake clears it
	Busy  bool   // a picture of it is on its way
}

// Lanes are all of a connection's. They belong to one goroutine.
type Lanes struct {
	all []*Lane
	// alarms are shared by the sides only; the others by side, then by class.
	alarms, sides *share.Queue
	classes       [numSides]*share.Queue
	seen          map[stream]bool // epochs that had lanes, for one that comes back
}

type stream struct {
	class schema.Class
	epoch uint64
}

// New makes lanes without any; see Follow.
func New() Lanes {
	return Lanes{alarms: sideWeights(), sides: sideWeights(), classes: [numSides]*share.Queue{classWeights(), classWeights()}, seen: map[stream]bool{}}
}

// Follow makes lanes for what the spool has now: with began, of a connection that
// begins, and later for epochs that are new, all of which is live. Those of epochs
// that are gone are dropped; should one come back, as with its disk, what it holds
// is backlog.
func (l *Lanes) Follow(cursors []schema.Cursor, began bool) {
	l.all = slices.DeleteFunc(l.all, func(o *Lane) bool {
		gone := !o.Busy && !slices.ContainsFunc(cursors, func(c schema.Cursor) bool { return c.Class == o.Class && c.Epoch == o.Epoch })
		return gone || o.Next > o.Last && !o.Busy
	})
	for _, c := range cursors[:min(len(cursors), schema.MaxCursors)] {
		known := slices.ContainsFunc(l.all, func(o *Lane) bool { return c.Class == o.Class && c.Epoch == o.Epoch })
		key := stream{c.Class, c.Epoch}
		switch {
		case known:
		case began || l.seen[key]:
			if c.Acked < c.Last {
				l.all = append(l.all, &Lane{Class: c.Class, Epoch: c.Epoch, Side: Backlog, Next: c.Acked + 1, Last: c.Last})
			}
			l.all = append(l.all, &Lane{Class: c.Class, Epoch: c.Epoch, Side: Live, Next: c.Last + 1, Last: math.MaxUint64})
		default:
			l.all = append(l.all, &Lane{Class: c.Class, Epoch: c.Epoch, Side: Live, Next: c.Acked + 1, Last: math.MaxUint64})
		}
		if len(l.seen) >= maxSeen {
			clear(l.seen)
		}
		l.seen[key] = true
	}
}

// Stir lets every lane be read again.
func (l *Lanes) Stir() {
	for _, o := range l.all {
		o.Empty = false
	}
}

// of visits the lanes of a side and class until do is done.
func (l *Lanes) of(side int, c schema.Class, do func(*Lane) (bool, error)) (bool, error) {
	for _, o := range l.all {
		if o.Side != side || o.Class != c {
			continue
		}
		if done, err := do(o); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// Alarm gives alarms their turn.
func (l *Lanes) Alarm(step func(*Lane) (done bool, size int, err error)) (bool, int, error) {
	var tried [numSides]bool
	for side, ok := l.alarms.Next(tried[:]); ok; side, ok = l.alarms.Next(tried[:]) {
		tried[side] = true
		size := 0
		done, err := l.of(side, schema.ClassAlarm, func(o *Lane) (done bool, err error) {
			done, size, err = step(o)
			return done, err
		})
		if err != nil {
			return false, 0, err
		}
		if done {
			l.alarms.Served(side, size)
			return true, size, nil
		}
	}
	return false, 0, nil
}

// Other gives the next of the other classes its turn.
func (l *Lanes) Other(step func(*Lane) (done bool, size int, err error)) (bool, int, error) {
	var triedSides [numSides]bool
	for side, ok := l.sides.Next(triedSides[:]); ok; side, ok = l.sides.Next(triedSides[:]) {
		triedSides[side] = true
		var tried [len(others)]bool
		for i, ok := l.classes[side].Next(tried[:]); ok; i, ok = l.classes[side].Next(tried[:]) {
			tried[i] = true
			size := 0
			done, err := l.of(side, others[i], func(o *Lane) (done bool, err error) {
				done, size, err = step(o)
				return done, err
			})
			if err != nil {
				return false, 0, err
			}
			if done {
				l.sides.Served(side, size)
				l.classes[side].Served(i, size)
				return true, size, nil
			}
		}
	}
	return false, 0, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package section

import "slices"

// Source tells where a value that holds comes from.
type Source uint8

// The sources.
const (
	FromNowhere  Source = iota // the key is not set: what the board's config file says holds
	FromDesired                // the fleet's
	FromOverride               // set on the board
)

// Conflict is a key with edits that have not seen each other.
type Conflict struct {
	Key    string
	Policy Policy
	// Fleet is the fleet's edit and Board those of the board, the newest first. Fleet is
	// nil if only edits of the board are in conflict, after a disk was put back.
	Fleet *Edit
	Board []Edit
	// Holds is the value that holds now.
	Holds Value
}

// Edit is what somebody set a key to. Value is nil for a deletion.
type Edit struct {
	Value  Value
	Author string
	Reason string
	// Lease is set for edits of the board, in milliseconds; 0: until cleared.
	LeaseMs uint64
}

func EditOf(e *Entry) Edit { return Edit{e.Value, e.Author, e.Reason, e.LeaseMs} }

// Decide computes what holds of a key from the fleet's edit (nil: none) and those of the
// board. winner is the edit that holds, nil for none; conflict tells that several could.
// It is the same function on both sides.
func Decide(d *Entry, os []Entry) (winner *Entry, from Source, conflict bool) {
	var open []*Entry // edits of the board that the fleet's has not seen
	replaced := false // the fleet's edit, by one of the board
	for i := range os {
		if d != nil && Saw(&os[i], d) {
			replaced = true
		}
		if d == nil || !Saw(d, &os[i]) {
			open = append(open, &os[i])
		}
	}
	switch {
	case len(open) == 0 && d == nil:
		return nil, FromNowhere, false
	case len(open) == 0:
		return d, FromDesired, false
	case (d == nil || replaced) && len(open) == 1:
		return open[0], FromOverride, false
	}
	all := open
	if d != nil && !replaced {
		all = append([]*Entry{d}, open...)
	}
	w := byPolicy(Policy(open[0].Policy), all, open[0])
	if w == d {
		return d, FromDesired, true
	}
	return w, FromOverride, true
}

// byPolicy chooses among edits in conflict. all begins with the fleet's, if it is one of
// them; newest is the newest of the board's.
func byPolicy(p Policy, all []*Entry, newest *Entry) *Entry {
	switch p {
	case PolicyFleet:
		return all[0]
	case PolicyMax, PolicyMin:
		best, bestN := newest, 0.0
		for _, e := range slices.Backward(all) { // of equals the fleet's
			n, ok := Value(e.Value).number()
			if !ok {
				return newest // what is no number cannot be compared
			}
			if e == all[len(all)-1] || (p == PolicyMax && n >= bestN) || (p == PolicyMin && n <= bestN) {
				best, bestN = e, n
			}
		}
		return best
	}
	return newest
}

// ConflictOf tells of a key in conflict for a person to read.
func ConflictOf(d *Entry, os []Entry) Conflict {
	w, _, _ := Decide(d, os)
	c := Conflict{Key: w.Key, Holds: w.Value}
	replaced := false
	for i := range os {
		replaced = replaced || d != nil && Saw(&os[i], d)
		if d == nil || !Saw(d, &os[i]) {
			if len(c.Board) == 0 {
				c.Policy = Policy(os[i].Policy)
			}
			c.Board = append(c.Board, EditOf(&os[i]))
		}
	}
	if d != nil && !replaced {
		e := EditOf(d)
		c.Fleet = &e
	}
	return c
}

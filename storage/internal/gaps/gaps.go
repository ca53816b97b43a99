// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gaps makes gaps of numbers, and keeps those that are owed: known, and not
// yet written down.
package gaps

import (
	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/ranges"
)

// Of makes a gap like g of each range, at most [classconf.MaxGaps] of them: what is
// between the last ones is then told as lost, too, which the fleet ignores where it
// has it. The times of g go to the first and the last gap. It changes parts.
func Of(parts []ranges.Range, g schema.Gap) []schema.Gap {
	if n := len(parts); n > classconf.MaxGaps {
		parts[classconf.MaxGaps-1].Last = parts[n-1].Last
		parts = parts[:classconf.MaxGaps]
	}
	out := make([]schema.Gap, len(parts))
	for i, p := range parts {
		out[i] = g
		out[i].First, out[i].Last = p.First, p.Last
		if i > 0 {
			out[i].FromWall = 0
		}
		if i < len(parts)-1 {
			out[i].ToWall = 0
		}
	}
	return out
}

// Owed are gaps that wait for the disk, bounded by [classconf.MaxOwed].
type Owed []schema.Gap

// Add owes one number more, lost at wall (ms since 1970); false: there is no room
// for another gap, and the number must not be used.
func (o *Owed) Add(class schema.Class, epoch, seq uint64, why schema.Reason, wall int64) bool {
	if n := len(*o); n > 0 {
		if last := &(*o)[n-1]; last.Last+1 == seq && last.Reason == why {
			last.Last, last.ToWall = seq, wall
			return true
		}
		if n >= classconf.MaxOwed {
			return false
		}
	}
	*o = append(*o, schema.Gap{Class: class, Epoch: epoch, First: seq, Last: seq, Reason: why, FromWall: wall, ToWall: wall})
	return true
}

// Paid takes out what was written down: a copy of the list as it was then. The last
// one may have grown since.
func (o *Owed) Paid(written []schema.Gap) {
	n := len(written)
	rest := (*o)[n-1:]
	if last := written[n-1].Last; rest[0].Last > last {
		rest[0].First = last + 1
	} else {
		rest = rest[1:]
	}
	*o = append((*o)[:0], rest...)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"maps"
	"slices"

	"fulmar/twin/section"
)

// Known is what one side knows of a key: who set it to what, and what holds.
type Known struct {
	Key   string
	Holds Value  // nil: nothing, the board's config file decides
	From  Source // of Holds
	// Fleet is the fleet's edit, nil if it made none that is still remembered; one
	// without a value is a deletion. Version is the desired version that made it.
	Fleet   *Edit
	Version uint64
	// Board are the edits of the board, the newest first, and Policy what was to decide
	// between them and the fleet's.
	Board  []Edit
	Policy Policy
	// Replaced: the fleet's edit has seen all of the board's, which the board takes out
	// once it knows. Conflict: edits that have not seen each other.
	Replaced, Conflict bool
}

// Known gives all that is known of the keys, in their order.
func (f *Fleet) Known() []Known {
	names := map[string]bool{}
	for k := range f.desired.Entries {
		names[k] = true
	}
	for k := range f.override.Entries {
		names[k] = true
	}
	out := make([]Known, 0, len(names))
	for _, key := range slices.Sorted(maps.Keys(names)) {
		out = append(out, f.known(key))
	}
	return out
}

func (f *Fleet) known(key string) Known {
	k, d, os := Known{Key: key}, f.at(key), f.override.Entries[key]
	w, from, conflict := section.Decide(d, os)
	k.From, k.Conflict = from, conflict
	if w != nil && len(w.Value) > 0 {
		k.Holds = w.Value
	}
	if d != nil {
		e := section.EditOf(d)
		k.Fleet, k.Version = &e, d.Dot.N
	}
	k.Replaced = d != nil && len(os) > 0
	for i := range os {
		k.Replaced = k.Replaced && section.Saw(d, &os[i])
		k.Board = append(k.Board, section.EditOf(&os[i]))
	}
	if len(os) > 0 {
		k.Policy = Policy(os[0].Policy)
	}
	return k
}

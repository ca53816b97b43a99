// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package section

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"fulmar/schema"
	"fulmar/twin/wire"
)

// Policy decides between an edit of the fleet and one of the board that have not seen
// each other.
type Policy uint8

// The policies. Their numbers are on the wire.
const (
	PolicyFleet Policy = 0 // the fleet's
	PolicyEdge  Policy = 1 // the board's: who is there knows better, as with a trip limit
	PolicyMax   Policy = 2 // the greater number
	PolicyMin   Policy = 3 // the lesser number
	PolicyHold  Policy = 4 // the board's for now; a person decides
)

// policyNames are the policies' words, by number.
func policyNames() []string { return []string{"fleet", "edge", "max", "min", "hold"} }

// String is the policy's word.
func (p Policy) String() string {
	if names := policyNames(); int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("policy %d", uint8(p))
}

// ParsePolicy reads a policy's word.
func ParsePolicy(s string) (Policy, error) {
	if i := slices.Index(policyNames(), s); i >= 0 {
		return Policy(i), nil
	}
	return 0, fmt.Errorf("policy %q is none of %v", s, policyNames())
}

// Entry is one edit of one key.
type Entry = wire.Entry

// Saw tells whether a knew of b when it was made, or is b.
func Saw(a, b *Entry) bool {
	return a.Dot == b.Dot || a.Seen[b.Dot.Actor] >= b.Dot.N
}

// Seeing gives what an edit has seen that replaces the given ones: their dots, and what
// they had seen. With too many actors the oldest go: then an edit that was replaced long
// ago may look like one in conflict, and nothing is lost.
func Seeing(known ...*Entry) map[string]uint64 {
	seen := map[string]uint64{}
	for _, e := range known {
		if e == nil {
			continue
		}
		Join(seen, e.Seen)
		seen[e.Dot.Actor] = max(seen[e.Dot.Actor], e.Dot.N)
	}
	return Trim(seen)
}

// Join counts in a what is counted in b.
func Join(a, b map[string]uint64) {
	for actor, n := range b {
		a[actor] = max(a[actor], n)
	}
}

// Trim takes the oldest actors out of a vector with too many. Actors' names rise with
// their starts, so both sides take out the same.
func Trim(v map[string]uint64) map[string]uint64 {
	if len(v) <= wire.MaxActors {
		return v
	}
	for _, a := range slices.Sorted(maps.Keys(v))[:len(v)-wire.MaxActors] {
		delete(v, a)
	}
	return v
}

// byAge sorts siblings: the edit of the newest actor first.
func byAge(a, b Entry) int {
	return cmp.Or(-cmp.Compare(a.Dot.Actor, b.Dot.Actor), -cmp.Compare(a.Dot.N, b.Dot.N), bytes.Compare(a.Value, b.Value))
}

// Digest is the SHA-256 of a section's deterministic CBOR.
func Digest(section any) []byte {
	b, err := schema.Encode(section)
	if err != nil {
		// Sections are within bounds before they are taken: only a broken build gets here.
		panic(err)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// trait is a fact that all failed boards have.
type trait struct {
	text string
	good int // good boards that have it too
}

// Common says what the failed boards have in common that the good have not: the one
// fact, or the two together, that all failed boards have and the fewest good ones. It
// gives "" where fewer than two failed, nothing is good, or the best of them holds for
// more than a quarter of the good boards: then it explains little. It is a hint, not a
// cause; the numbers stand beside it.
func Common(failed, good []map[string]string) string {
	if len(failed) < 2 || len(good) == 0 {
		return ""
	}
	var shared []string
	for _, k := range slices.Sorted(maps.Keys(failed[0])) {
		same := failed[0][k] != ""
		for _, f := range failed[1:] {
			same = same && f[k] == failed[0][k]
		}
		if same {
			shared = append(shared, k)
		}
	}
	var best *trait
	consider := func(keys ...string) {
		n := 0
		for _, g := range good {
			has := true
			for _, k := range keys {
				has = has && g[k] == failed[0][k]
			}
			if has {
				n++
			}
		}
		if best == nil || n < best.good {
			var words []string
			for _, k := range keys {
				words = append(words, k+" "+failed[0][k])
			}
			best = &trait{strings.Join(words, " with "), n}
		}
	}
	for _, k := range shared { // single facts first: a pair wins only where it tells more
		consider(k)
	}
	for i, k := range shared {
		for _, l := range shared[i+1:] {
			consider(k, l)
		}
	}
	if best == nil || 4*best.good > len(good) {
		return ""
	}
	others := len(good) - best.good
	if best.good == 0 {
		return fmt.Sprintf("common to the %d: %s (0 of %d others failed)", len(failed), best.text, others)
	}
	return fmt.Sprintf("common to the %d: %s (%d good boards have it too; 0 of %d others failed)", len(failed), best.text, best.good, others)
}

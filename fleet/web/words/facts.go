// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package words

import (
	"slices"
	"strconv"
	"strings"
)

// Fact is one thing known about a board.
type Fact struct{ Name, Text string }

// Facts writes what is known about a board; known names first, in
func Facts(known map[string]string, release, keyMode string) []Fact {
	names := []Fact{
		{"model", "Board"},
		{"l4t", "L4T"},
		{"os", "System"},
		{"kernel", "Kernel"},
		{"arch", "Architecture"},
		{"cpus", "CPU cores"},
		{"memory_bytes", "Memory"},
	}
	var out []Fact
	done := map[string]bool{}
	for _, n := range names {
		if s := known[n.Name]; s != "" {
			if v, err := strconv.ParseFloat(s, 64); err == nil && n.Name == "memory_bytes" {
				s = Quantity(v, UnitBytes)
			}
			out = append(out, Fact{n.Text, s})
		}
		done[n.Name] = true
	}
	var rest []string
	for k := range known {
		if !done[k] && known[k] != "" {
			rest = append(rest, k)
		}
	}
	slices.Sort(rest)
	for _, k := range rest {
		out = append(out, Fact{Sentence(strings.ReplaceAll(k, "_", " ")), known[k]})
	}
	if release != "" {
		out = append(out, Fact{"fulmard", release})
	}
	key := map[string]string{"software": "in a file on the board", "tpm": "in the security chip"}[keyMode]
	if key == "" {
		key = keyMode
	}
	if key != "" {
		out = append(out, Fact{"Private key", key})
	}
	return out
}

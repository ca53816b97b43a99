// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fulmar/internal/debversion"
)

// The facts of a board (schema.Hello) that needs are compared with.
const (
	FactArch     = "arch"
	FactModel    = "model"
	FactL4T      = "l4t"
	FactTensorRT = "tensorrt"
)

// Unmet tells in a sentence each what a board lacks: facts are its own words on what it is,
// components the versions of what it runs. Versions are in Debian's order. What a board does
// not tell, it has not. Space is not looked at: only whoever installs knows what is free.
func (n *Needs) Unmet(facts, components map[string]string) (out []string) {
	lacks := func(what, want, has string) {
		if has == "" {
			has = "tells none"
		} else {
			has = "has " + has
		}
		out = append(out, fmt.Sprintf("needs %s %s, and the board %s", what, want, has))
	}
	if has := facts[FactArch]; n.Arch != "" && has != n.Arch {
		lacks("architecture", n.Arch, has)
	}
	if has := facts[FactModel]; n.Board != "" && !strings.HasPrefix(has, n.Board) {
		lacks("board", n.Board, has)
	}
	if has := facts[FactL4T]; n.L4TMin != "" && !atLeast(has, n.L4TMin) {
		lacks("L4T at least", n.L4TMin, has)
	}
	if has := facts[FactL4T]; n.L4TMax != "" && (has == "" || !atMost(has, n.L4TMax)) {
		lacks("L4T at most", n.L4TMax, has)
	}
	if has := facts[FactTensorRT]; n.TensorRT != "" && !atLeast(has, n.TensorRT) {
		lacks("TensorRT at least", n.TensorRT, has)
	}
	for _, name := range slices.Sorted(maps.Keys(n.Components)) {
		if has := components[name]; !atLeast(has, n.Components[name]) {
			lacks(name+" at least", n.Components[name], has)
		}
	}
	return out
}

func atLeast(has, want string) bool { return has != "" && debversion.Compare(has, want) >= 0 }

// atMost takes 36.4.3 for at most 36.4, as whoever wrote it means it.
func atMost(has, want string) bool {
	return debversion.Compare(has, want) <= 0 || strings.HasPrefix(has, want+".")
}

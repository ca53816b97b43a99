// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"strings"
	"testing"
)

// TestRows: columns stand under their names also where a row has nothing in its last
// ones, and no line ends with spaces.
func TestRows(t *testing.T) {
	t.Parallel()
	cells := func(i int) Column[[]string] {
		return Column[[]string]{Name: "abc"[i : i+1], Of: func(r []string) string { return r[i] }}
	}
	rows := [][]string{{"a long one", "", ""}, {"x", "y", "z\x1b"}, {"", "a wide one", ""}}
	for kind, want := range map[string]string{
		"table": "A           B           C\na long one\nx           y           z?\n            a wide one\n",
		"tsv":   "A\tB\tC\na long one\nx\ty\tz?\n\ta wide one\n",
		"name":  "a long one\nx\n\n",
	} {
		var b strings.Builder
		if err := Rows(&b, &Format{kind: kind}, rows, cells(0), cells(1), cells(2)); err != nil || b.String() != want {
			t.Errorf("%s: %v\n%q, wants\n%q", kind, err, b.String(), want)
		}
	}
}

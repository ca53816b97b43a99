// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"strings"
	"testing"
)

// TestValue: what a person wrote is shown as such, and does not fill the screen.
func TestValue(t *testing.T) {
	t.Parallel()
	long := `{"when":"` + strings.Repeat("a", 80) + `"}`
	for _, c := range [][3]string{
		{"table", `{"when":"a \u003e 1"}`, `{"when":"a > 1"}`},
		{"table", `12.50`, "12.50"},
		{"table", ``, ""},
		{"wide", long, long},
		{"table", long, long[:60] + "..."},
		{"table", `not`, "not"},
	} {
		f := Format{kind: c[0]}
		if got := f.Value([]byte(c[1])); got != c[2] {
			t.Errorf("%s as %s: %q", c[1], c[0], got)
		}
	}
}

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

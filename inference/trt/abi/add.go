// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"fmt"
	"strconv"
	"strings"
)

// AddMajor gives the text of a table a column for a further major, a copy of the last
// one. Held against that major's headers it then tells what is different there.
func AddMajor(text []byte, major int) ([]byte, error) {
	t, err := Parse(text)
	if err != nil {
		return nil, err
	}
	n := len(t.Majors)
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		row, comment, has := strings.Cut(line, "#")
		f := strings.Fields(row)
		if len(f) == 0 {
			continue
		}
		if has {
			comment = " #" + comment
		}
		if row = grow(f, n, major); row != "" {
			lines[i] = row + comment
		}
	}
	out := []byte(strings.Join(lines, "\n"))
	_, err = Parse(out)
	return out, err
}

// grow writes a row with one cell more, "" if it has no cells.
func grow(f []string, n, major int) string {
	if f[0] == "majors" {
		return layout(f[0], "", append(f[1:], strconv.Itoa(major)), nil)
	}
	first, calls := 0, 0
	switch f[0] {
	case "length", "info", "size":
		first, calls = 1, len(f)
	case "value", "field", "item":
		first, calls = 2, len(f)
	case "public":
		first, calls = 3, len(f)
	case "method":
		first, calls = 2, 2+n
	case "function":
		first, calls = 2, 2
	default:
		return ""
	}
	name, cells, how := strings.Join(f[1:first], " "), f[first:calls:calls], f[calls:len(f):len(f)]
	if len(cells) > 0 {
		cells = append(cells, lastNumber(cells[len(cells)-1]))
	}
	if len(how) > 1 {
		how = append(how, how[len(how)-1])
	}
	return layout(f[0], name, cells, how)
}

// lastNumber takes the versions off a cell: they are of another major.
func lastNumber(cell string) string {
	steps := strings.Split(cell, ",")
	n, _, _ := strings.Cut(steps[len(steps)-1], "@")
	return n
}

// layout puts a row where people look for its columns.
func layout(key, name string, cells, calls []string) string {
	row := fmt.Sprintf("%-6s %-42s", key, name)
	for _, c := range cells {
		row += fmt.Sprintf(" %-9s", c)
	}
	for _, c := range calls {
		row += " " + c
	}
	return strings.TrimRight(row, " ")
}

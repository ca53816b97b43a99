// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"cmp"
	"strings"
)

// compareVersion orders versions as Debian policy 5.6.12 does, without epochs: by turns
// what is no digit, letters before other signs and ~ before everything, even the end, and
// numbers of any length. A leading v is left out, as tags have it. It allocates nothing:
// it is asked once for each board.
func compareVersion(a, b string) int {
	a, b = trimV(a), trimV(b)
	for a != "" || b != "" {
		var x, y string
		x, a = split(a, func(c byte) bool { return !digit(c) })
		y, b = split(b, func(c byte) bool { return !digit(c) })
		if d := compareLetters(x, y); d != 0 {
			return d
		}
		x, a = split(a, digit)
		y, b = split(b, digit)
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if d := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); d != 0 {
			return d
		}
	}
	return 0
}

func trimV(s string) string {
	if len(s) > 1 && s[0] == 'v' && digit(s[1]) {
		return s[1:]
	}
	return s
}

// split cuts s where it first holds what is not of a kind.
func split(s string, of func(byte) bool) (head, rest string) {
	n := 0
	for n < len(s) && of(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func compareLetters(a, b string) int {
	weight := func(s string, i int) int {
		switch {
		case i >= len(s):
			return 0
		case s[i] == '~':
			return -1
		case s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z':
			return int(s[i])
		}
		return int(s[i]) + 256
	}
	for i := range max(len(a), len(b)) {
		if d := cmp.Compare(weight(a, i), weight(b, i)); d != 0 {
			return d
		}
	}
	return 0
}

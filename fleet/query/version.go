// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"cmp"
	"strings"
)

// chunk is a part of a version: what is no digit, then a number.
type chunk struct {
	letters string
	number  string // without leading zeros: of any length
}

// splitVersion takes a version apart as Debian does: by turns non-digits and digits. A
// leading v is left out, as tags have it.
func splitVersion(s string) []chunk {
	if len(s) > 1 && s[0] == 'v' && digit(s[1]) {
		s = s[1:]
	}
	var out []chunk
	for s != "" {
		n := 0
		for n < len(s) && !digit(s[n]) {
			n++
		}
		m := n
		for m < len(s) && digit(s[m]) {
			m++
		}
		out = append(out, chunk{s[:n], strings.TrimLeft(s[n:m], "0")})
		s = s[m:]
	}
	return out
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// compareVersion orders versions as Debian policy 5.6.12 does, without epochs: letters
// before other signs, ~ before everything, even the end.
func compareVersion(a, b []chunk) int {
	for i := range max(len(a), len(b)) {
		var x, y chunk
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if d := compareLetters(x.letters, y.letters); d != 0 {
			return d
		}
		if d := cmp.Or(cmp.Compare(len(x.number), len(y.number)), cmp.Compare(x.number, y.number)); d != 0 {
			return d
		}
	}
	return 0
}

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

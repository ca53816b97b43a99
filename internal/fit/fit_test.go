// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fit

import "testing"

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{
		{"valve", 9, "valve"},
		{"valve", 5, "valve"},
		{"valve", 3, "val"},
		{"größe", 3, "gr"},
		{"größe", 4, "grö"},
		{"°", 1, ""},
		{"", 4, ""},
		{"a\xffb", 9, "a?b"},
		{"gr\xc3", 9, "gr?"},
	} {
		if got := Text(c.s, c.n); got != c.want {
			t.Errorf("Text(%q, %d) is %q, wants %q", c.s, c.n, got, c.want)
		}
	}
}

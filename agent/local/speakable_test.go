// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"strings"
	"testing"
)

// TestSpeakable: names that would break the journal, or stand for another actor, are told
// by their numbers.
func TestSpeakable(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"anna": true, "m.kern@plant": true, `PLANT\anna`: true, "jürgen": true,
		"": false, "an na": false, "anna/rule": false, "j\xfcrgen": false, "anna\n": false, "an\x00na": false, strings.Repeat("a", maxUser+1): false,
	} {
		if speakable(name) != want {
			t.Errorf("%q: wants %v", name, want)
		}
	}
}

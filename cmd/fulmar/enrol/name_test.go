// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"strings"
	"testing"
)

func TestBoardName(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"dock-1": "dock-1", "Jetson_Orin.local": "jetson_orin.local", "-Halle 7-": "halle-7", "": "", "---": "", "Größe": "gr--e",
		strings.Repeat("a", 70): strings.Repeat("a", 64),
	} {
		if got := boardName(host); got != want {
			t.Errorf("%q becomes %q, wants %q", host, got, want)
		}
	}
}

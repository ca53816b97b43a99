// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cut

import "testing"

func TestBytesOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"5": 5, "5B": 5, "500MB": 5e8, "64MiB": 64 << 20, "2GB": 2e9, "1kB": 1000} {
		var n int64
		if err := bytesOf(text, &n); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1TB", "99999GB", "1.5GB"} {
		var n int64
		if err := bytesOf(text, &n); err == nil {
			t.Errorf("%q was read as %d", text, n)
		}
	}
}

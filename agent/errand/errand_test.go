// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package errand

import "testing"

func TestOrdinal(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 21: "21st", 113: "113th"} {
		if got := ordinal(n); got != want {
			t.Errorf("%d is called %s", n, got)
		}
	}
}

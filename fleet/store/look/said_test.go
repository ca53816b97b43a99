// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import "testing"

func TestSaid(t *testing.T) {
	t.Parallel()
	for _, x := range [][3]string{
		{"spool", "the disk is full", "spool: the disk is full"},
		{"camera/gate", "camera gate: no frame for 30 s", "camera gate: no frame for 30 s"},
		{"camera/gate", "camera gate delivers", "camera gate delivers"},
		{"camera/gate", "camera gate2 delivers", "camera/gate: camera gate2 delivers"},
		{"worker", "worker", "worker"},
		{"worker", "", "worker: "},
		{"", "text", ": text"},
	} {
		if got := said(x[0], x[1]); got != x[2] {
			t.Errorf("%q %q: %q, not %q", x[0], x[1], got, x[2])
		}
	}
}

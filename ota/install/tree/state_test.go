// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// FuzzState: what was read is written and read again as the same, with and without its sum.
func FuzzState(f *testing.F) {
	for _, st := range []state{{}, {Current: "1.0-0123456789abcdef", Trial: true, Tries: 2, Mark: "builtin:parcels"}, {Fell: "2-0123456789abcdef", Why: "it is bad"}} {
		b, err := encodeState(st)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-66])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range [][]byte{b, fmt.Appendf(nil, "%s\n%x\n", b, sha256.Sum256(b))} {
			st, err := decodeState(x)
			if err != nil {
				continue
			}
			again, err := encodeState(st)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := decodeState(again); err != nil || back != st {
				t.Fatalf("%+v became %+v, %v", st, back, err)
			}
		}
	})
}

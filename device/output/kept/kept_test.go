// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kept

import "testing"

func FuzzFiles(f *testing.F) {
	f.Add([]byte(`{"v":1,"active":true,"since":{},"by":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLatch(b)
		if err != nil && !l.Active {
			t.Error("what cannot be read is no shutdown")
		}
		_, _ = parseLast(b)
	})
}

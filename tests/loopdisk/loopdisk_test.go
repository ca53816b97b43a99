// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package loopdisk_test

import (
	"os"
	"path/filepath"
	"testing"

	"fulmar/tests/loopdisk"
)

// TestWritten: the count has what was written, and nothing where nothing was.
func TestWritten(t *testing.T) {
	t.Parallel()
	d, err := loopdisk.New(t.TempDir())
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	count := func() int64 {
		n, err := d.Written()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const size, slack = 1 << 20, 256 << 10 // the journal's part of one small file
	count()                                // what mounting left
	before := count()
	if n := count() - before; n > 16<<10 {
		t.Errorf("%d bytes though nothing was written", n)
	}
	before = count()
	if err := os.WriteFile(filepath.Join(d.Dir, "f"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := count() - before; n < size || n > size+slack {
		t.Errorf("%d bytes were counted, want %d and a little", n, size)
	}
}

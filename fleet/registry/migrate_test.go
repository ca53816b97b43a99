// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestRegistriesOfBefore opens registries as the servers of earlier schema steps left
// them, with three boards each.
func TestRegistriesOfBefore(t *testing.T) {
	t.Parallel()
	for _, step := range []int{1, 3} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f, err := os.Open(fmt.Sprintf("testdata/registry-%d.db.gz", step))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "registry.db"), b, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			boards, err := r.Boards(t.Context(), DefaultTenant)
			if err != nil || len(boards) != 3 || boards[0].Facts["model"] == "" {
				t.Fatalf("%+v, %v", boards, err)
			}
			before, err := r.Roll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Revoke(t.Context(), DefaultTenant, boards[0].Name, "somebody", "stolen"); err != nil {
				t.Fatal(err)
			}
			if after, err := r.Roll(t.Context()); err != nil || after <= before {
				t.Errorf("a change of a board is not counted: %d after %d, %v", after, before, err)
			}
			if pw, err := r.Accounts().EnsureAdmin(t.Context()); err != nil || pw != "" {
				t.Errorf("a second administrator, %v", err)
			}
		})
	}
}

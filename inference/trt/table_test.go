// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/inference/trt/trttest"
)

// TestTableIsUsed: the table has no method that the shim does not call or implement.
// Each one is a claim about a library, and one that nothing exercises is not tested.
func TestTableIsUsed(t *testing.T) {
	var source strings.Builder
	files, err := filepath.Glob("*.[ch]")
	if err != nil || len(files) < 5 {
		t.Fatalf("the shim's files are %v: %v", files, err)
	}
	for _, f := range files {
		if f == "tables.h" {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	for _, major := range majors {
		for _, m := range trttest.Methods(major) {
			if name := strings.ReplaceAll(m, "::", "_"); !strings.Contains(source.String(), name) {
				t.Errorf("%s is in the table of %d and nobody uses it", m, major)
			}
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Library is the path of ONNX Runtime in the cache that cross/ort/fetch fills. A
// test without it is skipped, except in CI.
func Library(tb testing.TB) string {
	tb.Helper()
	machine := runtime.GOARCH
	if machine == "amd64" {
		machine = "x64"
	}
	return need(tb, "ONNX Runtime is not in .cache; run cross/ort/fetch", os.Getenv("CI") == "true",
		".cache", "onnxruntime", "1.30.0", "linux-"+machine, "libonnxruntime.so.1")
}

// Shared is a path in the public data beside the checkout (../shared/data). A test
// without that folder is skipped.
func Shared(tb testing.TB, elem ...string) string {
	tb.Helper()
	root := need(tb, "the public data is not in ../shared/data", false, "..", "shared", "data")
	p := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		tb.Fatalf("the public data is there but incomplete: %v", err)
	}
	return p
}

// need gives a path from the repository's root, or ends the test.
func need(tb testing.TB, why string, must bool, elem ...string) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			tb.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
	p := filepath.Join(append([]string{dir}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		if must {
			tb.Fatal(why)
		}
		tb.Skip(why)
	}
	return p
}

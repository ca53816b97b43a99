// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package axetest holds pages against axe-core in a test's browser: what a program can
// tell of WCAG 2.2 A and AA, and of what is good practice. It sees no meaning; a page
// that passes may still lie.
package axetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Version of axe-core, as cross/axe/fetch pins it.
const Version = "4.14.1"

// Script gives axe-core for a browser to evaluate. Where it cannot be had the test is
// skipped; under CI it fails.
func Script(t testing.TB) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0) //nolint:dogsled // only the file is wanted
	root := filepath.Join(filepath.Dir(here), "..", "..")
	out, err := exec.CommandContext(t.Context(), filepath.Join(root, "cross", "axe", "fetch")).CombinedOutput()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("axe-core cannot be had: %v: %s", err, out)
		}
		t.Skipf("axe-core cannot be had, the page is not held against it: %s", out)
	}
	b, err := os.ReadFile(filepath.Join(root, ".cache", "axe", Version, "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Run is the expression that a page with the script evaluates: a promise of an array of
// strings, one for each violation that is serious or critical, with its rule and where.
const Run = `axe.run(document, {resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then((r) =>
	r.violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) =>
		v.id + " (" + v.impact + "): " + v.help + ": " + v.nodes.slice(0, 4).map((n) => n.target.join(" ") + " " + (n.any[0]?.message || "")).join(" | ")))`

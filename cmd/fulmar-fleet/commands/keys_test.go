// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
)

// TestKeys: what a person does with key sets is done, told, and in the audit log.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		var out, talk bytes.Buffer
		if code := Run(t.Context(), "test", append(args, "--data", dir), &out, &talk); code != want {
			t.Fatalf("%v: exit %d, %s", args, code, talk.String())
		}
		return out.String()
	}
	run(exitWrong, "keys", "show") // none yet
	k, err := keyring.Open(filepath.Join(dir, keyring.Dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if out := run(0, "keys", "show"); !strings.HasPrefix(out, "key set 1\n") || strings.Count(out, "held by this server") != 2 {
		t.Errorf("%q", out)
	}
	if out := run(0, "keys", "rotate-command"); !strings.HasPrefix(out, "key set 2\n") || strings.Count(out, "command") != 2 {
		t.Errorf("%q", out)
	}
	if out := run(0, "keys", "rotate-command", "--stolen"); !strings.HasPrefix(out, "key set 3\n") || strings.Count(out, "command") != 1 {
		t.Errorf("%q", out)
	}
	set := filepath.Join(dir, "set.json")
	run(0, "keys", "show", "--out", set)
	run(exitWrong, "keys", "show", "--out", set)  // never written over
	run(exitWrong, "keys", "install", set)        // in force already
	run(exitUsage, "keys", "rotate-command", "x") // no such word
	if log := run(0, "audit"); strings.Count(log, "key-set") != 2 || !strings.Contains(log, "stolen") {
		t.Errorf("the audit log: %q", log)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
	"fulmar/trust"
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
	if out := run(0, "keys", "show"); !strings.HasPrefix(out, "key set 1\n") || strings.Count(out, "held by this server") != 4 {
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
	run(exitWrong, "keys", "complete") // nothing is lacking
	if out := run(0, "keys", "rotate-director"); !strings.HasPrefix(out, "key set 4\n") || strings.Count(out, "director") != 2 {
		t.Errorf("%q", out)
	}
	run(0, "keys", "rotate-freshness", "--stolen")
	key, err := trust.NewKeyFile(filepath.Join(dir, "release.pem"), trust.P256)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := trust.PublicPEM(key.Public())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "release.pub"), pub, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	run(exitWrong, "keys", "add-release", filepath.Join(dir, "release.pem")) // the private half
	if out := run(0, "keys", "add-release", filepath.Join(dir, "release.pub"), "--from", "2"); !strings.HasPrefix(out, "key set 6\n") || !strings.Contains(out, "release      "+key.ID[:16]) {
		t.Errorf("%q", out)
	}
	if log := run(0, "audit"); strings.Count(log, "key-set") != 5 || !strings.Contains(log, key.ID[:16]) || !strings.Contains(log, "stolen") {
		t.Errorf("the audit log: %q", log)
	}
}

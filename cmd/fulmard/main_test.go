// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigCommands(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fulmard.yaml")
	dropIns := filepath.Join(filepath.Dir(path), "fulmard.d")
	if err := os.Mkdir(dropIns, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(p, text string) {
		t.Helper()
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := fulmard(args, &out, &errs)
		return code, out.String(), errs.String()
	}
	write(path, "# nothing yet\n")
	if code, out, errs := run("config", "check", path); code != 0 || !strings.Contains(out, "fulmar enrol") {
		t.Error(code, out, errs)
	}
	write(filepath.Join(dropIns, "10-enrolment.yaml"), "fleet: {address: 'f:1'}\n")
	if code, out, errs := run("config", "check", path); code != 0 || out != path+" with "+dropIns+"/10-enrolment.yaml is good\n" {
		t.Error(code, out, errs)
	}
	if code, out, errs := run("config", "show", path); code != 0 || !strings.Contains(out, "address: f:1 # fulmard.d/10-enrolment.yaml\n") {
		t.Error(code, out, errs)
	}
	if code, out, errs := run("config", "show", "--json", path); code != 0 || !json.Valid([]byte(out)) {
		t.Error(code, out, errs)
	}
	for _, args := range [][]string{{"config"}, {"config", "show", path, path}, {"config", "check", "--json", path}, {"config", "sho", path}} {
		if code, _, errs := run(args...); code != 2 || !strings.Contains(errs, "usage") {
			t.Error(args, code, errs)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	fleetcommands "fulmar/cmd/fulmar-fleet/commands"
	"fulmar/cmd/fulmar/commands"
	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
)

// as names the program that the test's own executable is run as.
const as = "FULMAR_TEST_AS"

func TestMain(m *testing.M) {
	switch os.Getenv(as) {
	case "fulmar":
		os.Exit(commands.Run(context.Background(), "1.2.3", os.Args[1:], os.Stdout, os.Stderr))
	case "fulmar-fleet":
		os.Exit(fleetcommands.Run(context.Background(), "1.2.3", os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// programs makes a folder in which the programs are this test under their names.
func programs(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"fulmar", "fulmar-fleet"} {
		text := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", as, name, self)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// blocks are the lines of all blocks of shell of a page.
func blocks(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```sh"
		case inside && line != "":
			out = append(out, line)
		}
	}
	return out
}

// builds writes what the page takes as given: programs of some versions, and a model.
func builds(t *testing.T, dir string) {
	t.Helper()
	var common []byte
	sum := sha256.Sum256([]byte("fulmard"))
	for len(common) < 400_000 {
		sum = sha256.Sum256(sum[:])
		common = append(common, sum[:]...)
	}
	write := func(name string, b []byte) {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []string{"1.8.2", "1.9.0", "2.0.0", "2.0.1"} {
		write("build/"+v+"/fulmard", slices.Insert(slices.Clone(common), 200_000, []byte("version "+v)...))
	}
	write("models/parcels/model.onnx", common[:300_000])
	for _, n := range []string{"model.yaml", "labels.txt", "golden/1.json", "golden/2.json"} {
		write("models/parcels/"+n, []byte(n))
	}
}

// TestCommandsOfTheDocs runs the page from its first line to its last.
func TestCommandsOfTheDocs(t *testing.T) {
	t.Parallel()
	path, fleet, desk := programs(t), t.TempDir(), t.TempDir()
	// A server's first start, as far as keys go.
	reg, err := registry.Open(fleet)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(filepath.Join(fleet, keyring.Dir), nil)
	if err == nil {
		err = errors.Join(k.Close(), reg.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	builds(t, desk)
	lines := blocks(t, "../../docs/releases.md")
	for _, want := range []string{"key new", "key show", "key rotate", "release create", "release sign", "release verify", "release inspect", "release diff", "release bundle"} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "fulmar "+want) }) {
			t.Errorf("docs/releases.md does not show fulmar %s", want)
		}
	}
	for _, line := range lines {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", strings.ReplaceAll(line, "/var/lib/fulmar-fleet", fleet))
		cmd.Dir = desk
		cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "PWD="+desk)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v: %s", line, err, out)
		}
		if strings.HasPrefix(line, "if ") && !strings.Contains(string(out), "FLT0201") {
			t.Errorf("%s\nwas refused for another reason: %s", line, out)
		}
	}
}

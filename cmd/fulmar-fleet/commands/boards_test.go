// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/internal/cli"
)

// run runs a command on a data folder.
func run(t *testing.T, dir string, args ...string) (out, talk string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	_, err = cli.Execute(t.Context(), Root("dev"), append(args, "--data", dir), &o, &e)
	return o.String(), e.String(), err
}

// TestPersonOnTheServer does with the data folder what the page does.
func TestPersonOnTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, _, err := run(t, dir, "pin"); err == nil || !strings.Contains(err.Error(), "serve") {
		t.Errorf("a folder without a fleet: %v", err)
	}
	a, err := ca.Open(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if out, _, err := run(t, dir, "pin"); err != nil || strings.TrimSpace(out) != fmt.Sprintf("%x", a.Hash()) {
		t.Errorf("%q %v", out, err)
	}
	ask := func(board string, key byte) error {
		_, _, err := reg.Enrol(t.Context(), registry.Enrolment{Board: board, KeyMode: "software", KeyHash: [32]byte{key}, From: "192.0.2.1", Ask: true},
			func(string) (*ca.Leaf, error) { return &ca.Leaf{Serial: "1"}, nil })
		return err
	}
	if _, talk, err := run(t, dir, "pending"); err != nil || !strings.Contains(talk, "no board waits") {
		t.Error(talk, err)
	}
	for key, board := range map[byte]string{1: "b1", 2: "b2", 3: "b2", 4: "b3"} {
		var w *registry.Waiting
		if err := ask(board, key); !errors.As(err, &w) {
			t.Fatal(err)
		}
	}
	out, talk, err := run(t, dir, "pending")
	if err != nil || strings.Count(out, "\n") != 4 || !strings.Contains(out, "0100000000000000") || !strings.Contains(talk, "approve") {
		t.Errorf("%s %s %v", out, talk, err)
	}
	if out, _, err := run(t, dir, "pending", "--json"); err != nil || strings.Count(out, `"fingerprint":`) != 4 {
		t.Errorf("%s %v", out, err)
	}
	for args, want := range map[string]string{
		"approve b2":                            "more than one",
		"approve b9":                            "no board of this name",
		"approve 77":                            "no board of this name",
		"approve b1 --fingerprint 000000000000": "another board asks",
		"revoke b1":                             "no board of this name",
		"audit --head x":                        "SEQ:HASH",
	} {
		if _, _, err := run(t, dir, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	for _, args := range []string{"approve", "approve b1 b2", "pin x", "revoke"} {
		if _, _, err := run(t, dir, strings.Fields(args)...); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if _, talk, err := run(t, dir, "approve", "b1", "--fingerprint", "0100000000000000"); err != nil || !strings.Contains(talk, "is let in") {
		t.Fatal(talk, err)
	}
	if _, talk, err := run(t, dir, "refuse", "b3"); err != nil || !strings.Contains(talk, "refused") {
		t.Fatal(talk, err)
	}
	if err := ask("b1", 1); err != nil {
		t.Error(err)
	}
	if err := ask("b3", 4); !errors.Is(err, registry.ErrRefused) {
		t.Error(err)
	}
	if _, talk, err := run(t, dir, "revoke", "--why", "stolen", "b1"); err != nil || !strings.Contains(talk, "token --board b1") {
		t.Fatal(talk, err)
	}
	if err := ask("b1", 1); !errors.Is(err, registry.ErrRevoked) {
		t.Error(err)
	}
	head, _, err := run(t, dir, "audit", "--verify")
	if err != nil || len(head) < 66 {
		t.Fatal(head, err)
	}
	out, _, err = run(t, dir, "audit")
	if err != nil || strings.Count(out, "\n") != 8 || !strings.Contains(out, "revoke  server, user ") || !strings.Contains(out, "stolen") {
		t.Errorf("%s %v", out, err)
	}
	if out, _, err := run(t, dir, "audit", "--json"); err != nil || strings.Count(out, `"what":`) != 8 {
		t.Errorf("%s %v", out, err)
	}
	if _, _, err := run(t, dir, "audit", "--head", strings.TrimSpace(head)); err != nil {
		t.Error(err)
	}
	forged := "1:" + hex.EncodeToString(make([]byte, 32))
	if _, _, err := run(t, dir, "audit", "--verify", "--head", forged); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("%v", err)
	}
}

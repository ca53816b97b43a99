// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fulmar/agent/config"
	"fulmar/command"
	"fulmar/device"
	"fulmar/internal/exetest"
)

// TestUserCommand: a manifest in commands.d beside the config is a command of the board,
// done by its program under the real fulmard's bounds; a damaged one is said and keeps
// nothing else from working.
func TestUserCommand(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the programs' user has to come in
		t.Fatal(err)
	}
	fulmard := program(t)
	bin, err := os.ReadFile(fulmard)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := exetest.Write(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	self := put("fulmard", string(bin), 0o755)
	flush := put("flush", "#!/bin/sh\nread -r q\ncase \"$q\" in *'\"line\":\"south\"'*) echo no water >&2; exit 3;; esac\necho \"{\\\"asked\\\": $q}\"\n", 0o755)
	manifest := func(name, more string) string {
		return fmt.Sprintf("name: %s\neffect: opens the flush valve\nrun: %s\nuser: nobody\nmemory_mib: 256\n%s", name, flush, more)
	}
	put("commands.d/flush.yaml", manifest("flush-filter", "args: [{name: seconds, type: integer, min: 1, max: 60, required: true}, {name: line, type: text, one_of: [north, south]}]\n"), 0o644)
	put("commands.d/taken.yaml", manifest("restart", ""), 0o644)
	put("commands.d/damaged.yaml", "name: [\n", 0o644)
	b := &board{path: filepath.Join(dir, "fulmard.yaml"), level: new(slog.LevelVar)}
	b.write(t, "")
	cfg, err := config.Load(b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.Agent, err = New(cfg, Options{ConfigPath: b.path, Release: "test", Root: device.NewRoot("/"), Log: slog.New(slog.DiscardHandler), Level: b.level, Program: self})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if names := b.control.Commands().Names(); !slices.Contains(names, "flush-filter") {
		t.Fatalf("the board has %q", names)
	}
	r := b.give(t, "flush-filter", `{"seconds":5,"line":"north"}`)
	v, err := command.ToJSON(r.Value)
	if err != nil || r.State != command.Done || !strings.Contains(string(v), `"seconds":5`) || !strings.Contains(string(v), `"actor":"local/eve"`) {
		t.Errorf("%+v %s, %v", r, v, err)
	}
	if r := b.give(t, "flush-filter", `{"seconds":5,"line":"south"}`); r.State != command.Failed || !strings.Contains(r.Text, "no water") {
		t.Errorf("%+v", r)
	}
	for _, args := range []string{`{}`, `{"seconds":61}`, `{"seconds":1.5}`, `{"seconds":5,"line":"east"}`, `{"seconds":5,"x":1}`} {
		if r := b.give(t, "flush-filter", args); r.State != command.Refused || r.Code != command.CodeArgs {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if r := b.give(t, "restart", `{"part":"worker"}`); r.Code != "no-worker" {
		t.Errorf("a manifest took the place of the board's own command: %+v", r)
	}
	until(t, "a word about the damaged manifest", func() bool {
		for _, s := range b.said(t) {
			if s.Subject == "user-commands" && s.State == "refused" && strings.Contains(s.Text, "damaged.yaml") && strings.Contains(s.Text, "user command restart") {
				return true
			}
		}
		return false
	})
}

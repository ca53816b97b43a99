// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/command"
	"fulmar/device"
	"fulmar/schema"
)

// give gives a command at the board and waits for its end.
func (b *board) give(t *testing.T, name, args string) command.Result {
	t.Helper()
	raw, err := command.FromJSON([]byte(args))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := b.control.Commands().Local(ctx, "local/eve", name, raw, commands.Options{})
	if err == nil && !r.State.Final() {
		r, err = b.control.Commands().Wait(ctx, r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCommandsOnABoard: what a board without a fleet and without a worker does, for real.
func TestCommandsOnABoard(t *testing.T) {
	t.Parallel()
	b := start(t)
	until(t, "a sample", func() bool { return b.scheduler.Stats().Records > 2 })
	r := b.give(t, "read-sensor-batch", `{"sensors":["synthetic*","cpu*"]}`)
	if v, err := command.ToJSON(r.Value); err != nil || r.State != command.Done || !strings.Contains(string(v), `"quality":"good"`) {
		t.Errorf("%+v %s, %v", r, v, err)
	}
	for _, c := range []struct{ name, args, code string }{
		{"snapshot", `{"camera":"cam0"}`, "no-such-camera"},
		{"restart", `{"part":"worker"}`, "no-worker"},
		{"restart", `{}`, command.CodeArgs},
		{"set-output", `{"output":"x","value":1}`, command.CodeUnknown},
	} {
		if r := b.give(t, c.name, c.args); r.Code != c.code {
			t.Errorf("%s: %v %s %q", c.name, r.State, r.Code, r.Text)
		}
	}
	r = b.give(t, "collect-diagnostics", "")
	if r.State != command.Done {
		t.Fatalf("%+v", r)
	}
	parts := unpack(t, filepath.Join(b.cfg.BlobDir(), "diagnostics-"+r.ID.String()+".tar.gz"))
	for name, want := range map[string]string{
		"health.json": `"spool_key"`, "spool.json": `"Classes"`, "config.yaml": "board: dock-1", "goroutines.txt": "goroutine profile", "facts.json": `"release": "test"`,
	} {
		if !strings.Contains(parts[name], want) {
			t.Errorf("%s of %d bytes does not say %s", name, len(parts[name]), want)
		}
	}
	if n := b.spool.Stats().Classes[schema.ClassSnapshot].Outstanding; n != 1 {
		t.Errorf("%d files wait for the fleet", n)
	}
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(text)
	}
}

// TestRestartCommand: the agent ends in order, and the next one says that it was done.
func TestRestartCommand(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &board{path: filepath.Join(dir, "fulmard.yaml"), level: new(slog.LevelVar)}
	b.write(t, "")
	cfg, err := config.Load(b.path)
	if err != nil {
		t.Fatal(err)
	}
	life := func(ctx context.Context, during func()) {
		if b.Agent, err = New(cfg, Options{ConfigPath: b.path, Release: "test", Root: device.NewRoot("/"), Log: slog.New(slog.DiscardHandler), Level: b.level}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		during()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the agent did not end")
		}
	}
	var id command.ID
	life(context.Background(), func() {
		raw, err := command.FromWords([]string{"part=agent"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.control.Commands().Local(context.Background(), "local/eve", "restart", raw, commands.Options{})
		if err != nil || r.State != command.Accepted {
			t.Fatalf("%+v, %v", r, err)
		}
		id = r.ID
	})
	ctx, stop := context.WithCancel(context.Background())
	life(ctx, func() {
		defer stop()
		wait, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if r, err := b.control.Commands().Wait(wait, id); err != nil || r.State != command.Done {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/agent/anchor"

	"fulmar/agent/config"
	"fulmar/device"
	"fulmar/schema"
	"fulmar/storage"
)

// boardIn makes an agent in an empty folder; spoil is asked before it is made.
func boardIn(t *testing.T, extra string, log *slog.Logger, spoil func(cfg *config.Config) error) *Agent {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "fulmard.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "board: dock-1\ndata: %s\nfleet: {address: '127.0.0.1:1', token_file: /none}\n%s", dir, extra), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := spoil(cfg); err != nil {
		t.Fatal(err)
	}
	a, err := New(cfg, Options{Root: device.NewRoot("/"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestBoardStartsWithoutASpool: whatever is wrong with the spool's folder or key, the
// board starts, works from memory and says why.
func TestBoardStartsWithoutASpool(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(cfg *config.Config) error
		why   string
	}{
		"a file in its place":   {func(cfg *config.Config) error { return os.WriteFile(cfg.SpoolDir(), []byte("x"), 0o600) }, "not a directory"},
		"another board's spool": {func(cfg *config.Config) error { return spoolOf("dock-9", cfg.SpoolDir()) }, `records of "dock-9" and this board is "dock-1"`},
		"a key others can read": {func(cfg *config.Config) error { return os.WriteFile(cfg.SpoolKeyFile(), []byte("x"), 0o644) }, "spool.key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := boardIn(t, "", slog.New(slog.DiscardHandler), c.spoil)
			if why := a.spool.Stats().Memory; !strings.Contains(why, c.why) {
				t.Errorf("the spool works from memory because: %q, want %q", why, c.why)
			}
			if _, err := a.spool.Append(t.Context(), schema.ClassAlarm, []byte("x")); err != nil {
				t.Error(err)
			}
			if h := a.Health(); !slices.ContainsFunc(h.Causes, func(s string) bool { return strings.HasPrefix(s, "spool: ") && strings.Contains(s, c.why) }) {
				t.Errorf("health does not tell it: %q", h.Causes)
			}
		})
	}
}

// spoolOf makes a closed spool of a board.
func spoolOf(board, dir string) error {
	s, err := storage.Open(storage.Config{Dir: dir, Owner: board, NoSync: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// TestSpoolIsClaimed: under the name that the board will send with, before the link is
// made; with another name nothing is sent, which is no reason to end.
func TestSpoolIsClaimed(t *testing.T) {
	t.Parallel()
	a := boardIn(t, "", slog.New(slog.DiscardHandler), func(*config.Config) error { return nil })
	if !a.claimSpool(t.Context(), "dock-1") {
		t.Error("the board's own spool is refused")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool, 1)
	go func() { ended <- a.claimSpool(ctx, "dock-9") }()
	until(t, "a refusal in the status", func() bool { return a.Health().Link == "refused" })
	if h := a.Health(); !slices.ContainsFunc(h.Causes, func(s string) bool { return strings.HasPrefix(s, "link: spool of another board") }) {
		t.Errorf("causes %q", h.Causes)
	}
	select {
	case <-ended:
		t.Fatal("it does not wait")
	default:
	}
	if _, err := a.spool.Append(t.Context(), schema.ClassEvent, []byte("x")); err != nil {
		t.Errorf("a board whose spool is refused keeps nothing: %v", err)
	}
	cancel()
	if <-ended {
		t.Error("another board's spool may be sent")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// TestSpoolKeyInAFileIsTold: in the log, as a warning, and in the health.
func TestSpoolKeyInAFileIsTold(t *testing.T) {
	t.Parallel()
	for extra, want := range map[string]string{"": "file", "spool: {encrypt: 'off'}\n": "none"} {
		var log bytes.Buffer
		a := boardIn(t, extra, slog.New(slog.NewTextHandler(&log, nil)), func(*config.Config) error { return nil })
		warned := strings.Count(log.String(), "level=WARN msg=\"the spool's key lies in a file: who has the disk has the records")
		if warned != strings.Count(want, "file") {
			t.Errorf("key %s: warned %d times in\n%s", want, warned, log.String())
		}
		if got := a.Health().SpoolKey; got != want {
			t.Errorf("health says that the key is in %q, want %q", got, want)
		}
	}
}

// TestSpoolIsEncrypted is the default.
func TestSpoolIsEncrypted(t *testing.T) {
	t.Parallel()
	b := start(t)
	if st := b.spool.Stats(); st.Keys == nil || st.Memory != "" {
		t.Errorf("keys %+v, memory %q", st.Keys, st.Memory)
	}
}

// TestTimesToLive come from the config, and are left out where boots cannot be told
// apart.
func TestTimesToLive(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := boardIn(t, "spool: {ttl: {event: 1h, metric: 2h}}\n", slog.New(slog.NewTextHandler(&log, nil)), func(*config.Config) error { return nil })
	c := a.spoolConfig().Classes
	if c[schema.ClassEvent].TTL != time.Hour || c[schema.ClassMetric].TTL != 2*time.Hour || c[schema.ClassAlarm].TTL != 0 || c[schema.ClassSnapshot].TTL != 0 {
		t.Errorf("classes %+v", c)
	}
	if strings.Contains(log.String(), "spool.ttl") {
		t.Error("the boot is known and the log says that it is not")
	}
	a.clock, a.bootKnown = anchor.BootClock(device.NewRoot(t.TempDir()), a.log)
	if c := a.spoolConfig().Classes; c[schema.ClassEvent].TTL != 0 || c[schema.ClassMetric].TTL != 0 || !strings.Contains(log.String(), "spool.ttl is left out") {
		t.Errorf("classes %+v of an unknown boot", c)
	}
}

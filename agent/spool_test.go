// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/agent/config"
	"fulmar/device"
	"fulmar/schema"
)

// TestBoardStartsWithoutASpool: whatever is wrong with the spool's folder or key, the
// board starts, works from memory and says why.
func TestBoardStartsWithoutASpool(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(cfg *config.Config) error
		why   string
	}{
		"a file in its place":   {func(cfg *config.Config) error { return os.WriteFile(cfg.SpoolDir(), []byte("x"), 0o600) }, "not a directory"},
		"a key others can read": {func(cfg *config.Config) error { return os.WriteFile(cfg.SpoolKeyFile(), []byte("x"), 0o644) }, "spool.key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "fulmard.yaml")
			if err := os.WriteFile(path, []byte("board: b\ndata: "+dir+"\nfleet: {address: '127.0.0.1:1', token_file: /none}\nkey: {mode: software}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(cfg); err != nil {
				t.Fatal(err)
			}
			a, err := New(cfg, Options{Root: device.NewRoot("/"), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			if why := a.spool.Stats().Memory; !strings.Contains(why, c.why) {
				t.Errorf("the spool works from memory because: %q, want %q", why, c.why)
			}
			if _, err := a.spool.Append(t.Context(), schema.ClassAlarm, []byte("x")); err != nil {
				t.Error(err)
			}
		})
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

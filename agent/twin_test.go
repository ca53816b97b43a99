// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/twin"
)

// TestTwinOverConfig: what is set of the twin is in force without a restart, over each
// reload of the file, and is no part of the copy of the file that is kept.
func TestTwinOverConfig(t *testing.T) {
	t.Parallel()
	b := start(t)
	set := func(key string, v any) {
		t.Helper()
		w, err := twin.ValueOf(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.control.Twin().Set(key, twin.Edit{Value: w, Author: "local/eva"}); err != nil {
			t.Fatal(err)
		}
	}
	level := func(l slog.Level) func() bool { return func() bool { return b.level.Level() == l } }
	set("log.level", "error")
	until(t, "the twin's level", level(slog.LevelError))
	b.write(t, "log: {level: debug}\nlink: {keep_alive: 70s}\n")
	until(t, "the file's other keys", func() bool { return b.config().Link.KeepAlive == 70*time.Second })
	if b.level.Level() != slog.LevelError || b.config().Log.Level != "error" {
		t.Errorf("a reload took the twin away: %v", b.level.Level())
	}
	until(t, "the copy of the file", func() bool {
		cfg := b.fileConfig()
		text, err := os.ReadFile(cfg.LastGoodPath())
		if err != nil {
			return false
		}
		c, err := config.Parse(text)
		return err == nil && c.Link.KeepAlive == 70*time.Second && c.Log.Level == "debug"
	})
	if h := b.twinHealth(); h.Ticks == 0 || h.Every == 0 || len(h.Causes) != 0 {
		t.Errorf("health %+v: the link's cause is not the twin's", h)
	}
	if _, err := b.control.Twin().Clear("log.level", "local/eva"); err != nil {
		t.Fatal(err)
	}
	until(t, "the file's level", level(slog.LevelDebug))
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// crashed is a copy of a spool's folder as a crash leaves it.
func crashed(t *testing.T, dir string) string {
	t.Helper()
	after := t.TempDir()
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return after
}

// TestStartsThatEndBadly: after three of them the files are left alone, the board
// comes up all the same, and the disk is used again later.
func TestStartsThatEndBadly(t *testing.T) {
	t.Parallel()
	cfg := small(t.TempDir())
	for n := range 3 {
		s := open(t, cfg)
		if why := s.Stats().Memory; why != "" {
			t.Fatalf("start %d works from memory: %s", n+1, why)
		}
		fill(t, s, schema.ClassEvent, storagetest.Cursor(t, s, schema.ClassEvent).Last+1, storagetest.Cursor(t, s, schema.ClassEvent).Last+1)
		cfg.Dir = crashed(t, cfg.Dir)
	}
	s := open(t, cfg)
	if why := s.Stats().Memory; !strings.Contains(why, "3 starts") {
		t.Fatalf("after three bad starts: %q", why)
	}
	if _, err := s.Append(t.Context(), schema.ClassAlarm, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	storage.RetryDisk(t.Context(), s)
	if why := s.Stats().Memory; why != "" {
		t.Fatalf("the disk is not used again: %s", why)
	}
	if got := storagetest.Drain(t, s, schema.ClassEvent); len(got) != 3 {
		t.Errorf("%d events of three lives", len(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if why := open(t, cfg).Stats().Memory; why != "" {
		t.Errorf("a start after a clean close works from memory: %s", why)
	}
}

// TestPowerFailsOften: a start of another boot is a power loss, and however many there
// are, records go to disk.
func TestPowerFailsOften(t *testing.T) {
	t.Parallel()
	cfg := small(t.TempDir())
	for n := range 8 {
		cfg.Clock = schema.NewClock(uint64(n), time.Minute)
		if why := open(t, cfg).Stats().Memory; why != "" {
			t.Fatalf("after %d power losses: %s", n, why)
		}
		cfg.Dir = crashed(t, cfg.Dir)
	}
	for _, nonsense := range []string{"", "x", "1", "0 -5", "0 99999999999999999999", strings.Repeat("0 9", 1000)} {
		if err := os.WriteFile(filepath.Join(cfg.Dir, "starts"), []byte(nonsense), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Clock = schema.NewClock(99, time.Minute)
		s := open(t, cfg)
		if why := s.Stats().Memory; why != "" {
			t.Errorf("%.20q: %s", nonsense, why)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTenMinutesAreGood: a start counts as good after ten minutes, also where the
// power goes later.
func TestTenMinutesAreGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for n := range 6 {
			s, stop := runSpool(t, dir)
			if why := s.Stats().Memory; why != "" {
				t.Fatalf("start %d works from memory: %s", n+1, why)
			}
			time.Sleep(11 * time.Minute)
			dir = crashed(t, dir)
			stop()
			_ = s.Close() // the copy goes on
		}
	})
}

// TestProbe: a file that kills the process that looks at it goes to quarantine
// before it can kill this one, and its numbers are told.
func TestProbe(t *testing.T) {
	t.Parallel()
	cfg := small(t.TempDir())
	s := open(t, cfg)
	fill(t, s, schema.ClassEvent, 1, 20)
	fill(t, s, schema.ClassMetric, 1, 20)
	looked := 0
	cfg.Dir = crashed(t, cfg.Dir)
	cfg.Probe = func(ctx context.Context, path string) error {
		looked++
		storage.ProbeFile(path)
		if _, limited := ctx.Deadline(); !limited {
			t.Error("no bound on the look")
		}
		if strings.Contains(path, string(filepath.Separator)+"event"+string(filepath.Separator)) {
			return errors.New("signal: bus error")
		}
		return nil
	}
	s2 := open(t, cfg)
	if looked != schema.NumClasses {
		t.Errorf("%d files looked at, want the newest of each class", looked)
	}
	var a account
	a.take(t, s2)
	a.complete(t, s2)
	if len(a.records[schema.ClassEvent]) != 0 || len(a.records[schema.ClassMetric]) != 20 {
		t.Errorf("%d events, %d metrics", len(a.records[schema.ClassEvent]), len(a.records[schema.ClassMetric]))
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "quarantine", "event-*.db")); len(left) != 1 {
		t.Errorf("in quarantine: %v", left)
	}
	if err := s2.Close(); err != nil {
		t.Fatal(err)
	}
	looked = 0
	open(t, cfg)
	if looked != 0 {
		t.Error("files are looked at after a clean close")
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"errors"
	"fmt"
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
// before it can kill this one, and its numbers are told. After one bad start the newest
// files are looked at, after two all: one that is only read later may be at fault.
func TestProbe(t *testing.T) {
	t.Parallel()
	for _, bad := range []int{1, 2} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			t.Parallel()
			cfg := small(t.TempDir())
			s := open(t, cfg)
			fill(t, s, schema.ClassEvent, 1, 500)
			fill(t, s, schema.ClassMetric, 1, 20)
			files, err := filepath.Glob(filepath.Join(cfg.Dir, "event", "*.db"))
			if err != nil || len(files) < 3 {
				t.Fatalf("%d files of events, %v; want several", len(files), err)
			}
			looks := schema.NumClasses
			if bad > 1 {
				looks += len(files) - 1
			}
			cfg.Dir = crashed(t, cfg.Dir)
			if err := os.WriteFile(filepath.Join(cfg.Dir, "starts"), fmt.Append(nil, "7 ", bad), 0o600); err != nil {
				t.Fatal(err)
			}
			killer := filepath.Base(files[len(files)-bad])
			looked := map[string]bool{}
			cfg.Probe = func(ctx context.Context, path string) error {
				looked[path] = true
				storage.ProbeFile(path)
				if _, limited := ctx.Deadline(); !limited {
					t.Error("no bound on the look")
				}
				if filepath.Base(filepath.Dir(path)) == "event" && filepath.Base(path) == killer {
					return errors.New("signal: bus error")
				}
				return nil
			}
			s2 := open(t, cfg)
			if len(looked) != looks {
				t.Errorf("%d files looked at, want %d", len(looked), looks)
			}
			var a account
			a.take(t, s2)
			a.complete(t, s2)
			if n := len(a.records[schema.ClassEvent]); n == 0 || n == 500 || len(a.records[schema.ClassMetric]) != 20 {
				t.Errorf("%d events, %d metrics", n, len(a.records[schema.ClassMetric]))
			}
			if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "quarantine", "event-*.db")); len(left) != 1 || filepath.Base(left[0]) != "event-"+killer {
				t.Errorf("in quarantine: %v, want %s", left, killer)
			}
			if err := s2.Close(); err != nil {
				t.Fatal(err)
			}
			clear(looked)
			open(t, cfg)
			if len(looked) != 0 {
				t.Error("files are looked at after a clean close")
			}
		})
	}
}

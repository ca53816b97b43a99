// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/probe"
	"fulmar/device"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
	"fulmar/storage/vault"
)

// program builds the real fulmard.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fulmard")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "fulmar/cmd/fulmard").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// events makes a closed spool with enough events for a tree of pages, and gives the
// file that holds them.
func events(t *testing.T, cfg storage.Config) string {
	t.Helper()
	cfg.NoSync = true
	s, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(100) {
		if _, err := s.Append(t.Context(), schema.ClassEvent, storagetest.Payload(schema.ClassEvent, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return newest(t, cfg.Dir)
}

func newest(t *testing.T, spool string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(spool, "event", "*.db"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files[len(files)-1]
}

// looped is a copy of a file that leads bbolt in circles.
func looped(t *testing.T, path string, last bool) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := storagetest.LoopSegment(copied, last); err != nil {
		t.Fatal(err)
	}
	return copied
}

// TestProbe: the real child comes back from sound files, also from those it has no key
// for, and not from one that leads in circles, which it ends itself long before the
// memory of the board does.
func TestProbe(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := &Agent{opt: Options{Program: program(t)}, log: slog.New(slog.NewTextHandler(&log, nil))}
	key, err := vault.OpenKeyFile(filepath.Join(t.TempDir(), "spool.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"plain":     events(t, storage.Config{Dir: t.TempDir()}),
		"encrypted": events(t, storage.Config{Dir: t.TempDir(), Holder: key}),
	} {
		for _, last := range []bool{true, false} {
			bad := looped(t, path, last)
			// Should the bound be missing, this one keeps the machine whole.
			cmd := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -v 4000000 && exec \"$@\"", "sh", a.opt.Program, "spool-probe", bad)
			out, err := cmd.CombinedOutput()
			peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10 //nolint:forcetypeassert // on Linux
			// The kernel counts what this process had when it started the child.
			var own syscall.Rusage
			if e := syscall.Getrusage(syscall.RUSAGE_SELF, &own); e != nil || own.Maxrss<<10 > probe.MaxData {
				t.Log("the child's peak cannot be told from this process' own", e)
				peak = 0
			}
			if err == nil || peak > probe.MaxData || !bytes.HasPrefix(out, []byte(probe.Looking)) {
				t.Fatalf("%s, last leaf %v: the child took %d MiB, at most %d, and ended with %v: %.200s", name, last, peak>>20, probe.MaxData>>20, err, out)
			}
			t.Logf("%s, last leaf %v: the child took %d MiB", name, last, peak>>20)
			if err := look(t, a, bad); err == nil || !strings.Contains(err.Error(), "exit status 2") {
				t.Errorf("%s, last leaf %v: %v, want an end of its own for want of memory", name, last, err)
			}
		}
		if err := look(t, a, path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for what, path := range map[string]string{"nothing": "/none", "a folder": t.TempDir(), "no segment": a.opt.Program} {
		if err := look(t, a, path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A program that never comes to the file says nothing about it.
	for _, p := range []string{"/none", "/bin/false"} {
		log.Reset()
		a.opt.Program = p
		if err := look(t, a, "/none"); err != nil || !strings.Contains(log.String(), "could not be looked at") {
			t.Errorf("%s: %v, logged %q", p, err, log.String())
		}
	}
}

func look(t *testing.T, a *Agent, path string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the machine of the tests is busy
	defer cancel()
	return a.probe(ctx, path)
}

// TestBoardSurvivesItsSpool: the file that would end each start goes to quarantine, is
// told as lost, and the board runs on its disk.
func TestBoardSurvivesItsSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "fulmard.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "board: dock-1\ndata: %s\nfleet: {address: '127.0.0.1:1', token_file: /none}\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := vault.OpenKeyFile(cfg.SpoolKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := storagetest.LoopSegment(events(t, storage.Config{Dir: cfg.SpoolDir(), Holder: key}), true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.SpoolDir(), "starts"), []byte("1 1"), 0o600); err != nil { // one that ended badly
		t.Fatal(err)
	}
	a, err := New(cfg, Options{Program: program(t), Root: device.NewRoot("/"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	if why := a.spool.Stats().Memory; why != "" {
		t.Errorf("the board works from memory: %s", why)
	}
	if files, err := filepath.Glob(filepath.Join(cfg.SpoolDir(), "quarantine", "event-*.db")); err != nil || len(files) != 1 {
		t.Errorf("in quarantine: %v, %v", files, err)
	}
	if recs, err := a.spool.Read(schema.ClassEvent, 1, 10, 1<<20); err != nil || len(recs) != 0 {
		t.Errorf("%d events, %v", len(recs), err)
	}
	if lost := a.spool.Stats().Classes[schema.ClassEvent].Lost; lost[schema.ReasonCrash]+lost[schema.ReasonCorrupt] < 100 {
		t.Errorf("100 events are gone, told are %v", lost)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

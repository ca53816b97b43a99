// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/schema"
	"fulmar/storage"
)

// loopDisk is a small ext4 of its own: where it is mounted, and how to take it away,
// dead as it may be, and to put it back there, as a card that is pulled and put into
// another slot: a new device with the same content.
func loopDisk(t *testing.T) (dir string, putBack func()) {
	t.Helper()
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 24<<20); err != nil {
		t.Fatal(err)
	}
	need(t, "mkfs.ext4", "-q", "-F", img)
	attach := func(img string) string {
		loop := strings.TrimSpace(string(need(t, "losetup", "--find", "--show", img)))
		t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
		return loop
	}
	dir = mount(t, attach(img), "ext4", "")
	return dir, func() {
		t.Helper()
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(img+"2", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(attach(img+"2"), dir, "ext4", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskDiesAndComesBack: the card dies under a running spool and is put back: new
// records go to disk again, what memory held meanwhile stays readable under its own
// epoch, what no fleet took of it is told, and nothing of the disk is lost.
func TestDiskDiesAndComesBack(t *testing.T) {
	t.Parallel()
	dir, putBack := loopDisk(t)
	cfg := small(filepath.Join(dir, "spool"))
	cfg.NoSync = false
	cfg.Classes[schema.ClassMetric].Linger = time.Millisecond
	told := make(chan error, 4)
	cfg.OnMemory = func(why error) { told <- why }
	s := start(t, cfg)
	fill(t, s.Spool, schema.ClassEvent, 1, 50)
	fill(t, s.Spool, schema.ClassMetric, 1, 50)
	shutdown(t, dir)
	for range 100 {
		if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("in memory")); err != nil {
			t.Fatal(err)
		}
	}
	if why := <-told; why == nil {
		t.Error("the owner is told that all is well")
	}
	held := s.Stats().Held[schema.ClassEvent]
	storage.RetryDisk(t.Context(), s.Spool)
	if s.Stats().Memory == "" || held == 0 {
		t.Fatalf("the disk is dead, %d events are held, and memory mode says %q", held, s.Stats().Memory)
	}
	putBack()
	storage.RetryDisk(t.Context(), s.Spool)
	if why := s.Stats().Memory; why != "" {
		t.Fatalf("the disk is back: %s", why)
	}
	if why := <-told; why != nil {
		t.Errorf("the owner is told: %v", why)
	}
	last := s.Cursors()[schema.ClassEvent].Last
	fill(t, s.Spool, schema.ClassEvent, last+1, last+50)
	if n := s.Stats().Held[schema.ClassEvent]; n != held {
		t.Errorf("%d events are held in memory, %d were when the disk came back", n, held)
	}
	inMemory := s.Cursors()[schema.NumClasses:]
	if len(inMemory) != 1 {
		t.Fatalf("%d cursors of memory, wants the events'", len(inMemory))
	}
	recs, err := s.ReadEpoch(schema.ClassEvent, inMemory[0].Epoch, 0, 10, 1<<20)
	if err != nil || len(recs) != 10 {
		t.Fatalf("%d records from memory, %v", len(recs), err)
	}
	if err := s.Ack(schema.ClassEvent, inMemory[0].Epoch, 1, 10); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if err := s.Spool.Close(); err != nil {
		t.Error(err)
	}
	s2 := open(t, cfg)
	var a account
	a.take(t, s2)
	untold := held - 10
	a.gaps[schema.ClassEvent] = slices.DeleteFunc(a.gaps[schema.ClassEvent], func(g schema.Gap) bool {
		if g.Epoch == inMemory[0].Epoch {
			untold -= int(g.Last - g.First + 1)
		}
		return g.Epoch == inMemory[0].Epoch
	})
	a.complete(t, s2)
	if events, metrics := len(a.records[schema.ClassEvent]), len(a.records[schema.ClassMetric]); untold != 0 || events != 100 || metrics != 50 {
		t.Errorf("%d events and %d metrics on disk, want 100 and 50; %d events of memory are told nowhere", events, metrics, untold)
	}
	if err := s2.Close(); err != nil {
		t.Error(err)
	}
}

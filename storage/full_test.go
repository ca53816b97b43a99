// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

func tiny(dir string) storage.Config {
	cfg := small(dir)
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{SegmentBytes: 64 << 10, QuotaBytes: 256 << 10}
	}
	return cfg
}

func TestQuotaEvictsOldestGapFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []schema.Class{schema.ClassEvent, schema.ClassMetric, schema.ClassSnapshot} {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			s := open(t, tiny(t.TempDir()))
			defer s.Close()
			const n = 2000
			for seq := uint64(1); seq <= n; seq += 50 {
				fill(t, s, c, seq, seq+49)
				if st := s.Stats().Classes[c]; st.Bytes > st.QuotaBytes {
					t.Fatalf("%d bytes on disk at record %d, the quota is %d", st.Bytes, seq, st.QuotaBytes)
				}
			}
			var a account
			a.take(t, s)
			a.complete(t, s)
			lost := a.lost(c, schema.ReasonQuota)
			if st := s.Stats().Classes[c]; lost == 0 || st.Lost[schema.ReasonQuota] != lost || st.Outstanding != n-lost {
				t.Errorf("%d records in gaps, stats say %d lost and %d left of %d", lost, st.Lost[schema.ReasonQuota], st.Outstanding, n)
			}
			if a.records[c][n] == nil || a.records[c][1] != nil || a.gap(c, 1) == nil {
				t.Error("not the oldest were evicted")
			}
			for _, g := range a.gaps[c] {
				if g.FromWall == 0 || g.ToWall < g.FromWall {
					t.Errorf("gap %+v does not tell its time", g)
				}
			}
		})
	}
}

// What is acknowledged when its segment is evicted is not told as lost.
func TestQuotaLeavesOutWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	c := schema.ClassMetric
	s := open(t, tiny(t.TempDir()))
	defer s.Close()
	epoch := storagetest.Epoch(t, s, c)
	fill(t, s, c, 1, 60)
	if err := s.Ack(c, epoch, 11, 20); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(c, epoch, 31, 40); err != nil {
		t.Fatal(err)
	}
	fill(t, s, c, 61, 2000)
	var a account
	a.take(t, s)
	for _, seq := range []uint64{11, 20, 31, 40} {
		if g := a.gap(c, seq); g != nil {
			t.Errorf("number %d was acknowledged and is told as lost: %+v", seq, g)
		}
	}
	for _, seq := range []uint64{1, 10, 21, 30, 41} {
		if g := a.gap(c, seq); g == nil || g.Reason != schema.ReasonQuota {
			t.Errorf("number %d is not told as lost", seq)
		}
	}
}

// A full alarm class refuses alarms and still takes the gaps of the others.
func TestFullAlarmsRefuseAndGapsStillFit(t *testing.T) {
	t.Parallel()
	s := open(t, tiny(t.TempDir()))
	defer s.Close()
	c := schema.ClassAlarm
	var n uint64
	var err error
	for ; err == nil && n < 5000; n++ {
		_, err = s.Append(t.Context(), c, storagetest.Payload(c, n+1))
	}
	if !errors.Is(err, storage.ErrFull) {
		t.Fatalf("after %d alarms: %v, want ErrFull", n, err)
	}
	fill(t, s, schema.ClassMetric, 1, 2000)
	var a account
	a.take(t, s)
	a.complete(t, s)
	if a.lost(schema.ClassMetric, schema.ReasonQuota) == 0 {
		t.Error("no metric was evicted")
	}
	if a.records[c][1] == nil {
		t.Error("an alarm was evicted")
	}
	cur := storagetest.Cursor(t, s, c)
	if err := s.Ack(c, cur.Epoch, 1, cur.Last); err != nil {
		t.Fatal(err)
	}
	fillUntil(t, s, c)
}

// fillUntil waits for the cursor to free segments, as Run or Close would do.
func fillUntil(t *testing.T, s *storage.Spool, c schema.Class) {
	t.Helper()
	var err error
	for range 100 {
		if _, err = s.Append(t.Context(), c, []byte("room again")); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("no room after all was acknowledged: %v", err)
}

// mount gives a small file system of its own. It needs root.
func mount(t *testing.T, source, fstype, data string) string {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must run as root to mount a small file system")
		}
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount(source, dir, fstype, 0, data); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount %s: %v", fstype, err)
		}
		t.Skipf("mount %s: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestDiskFull fills an 8 MiB disk from outside. Records that were acknowledged
// stay, the least urgent classes give way, each loss is told, nothing panics, and
// with room again all goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := mount(t, "tmpfs", "tmpfs", "size=8m")
	cfg := small(filepath.Join(dir, "spool"))
	s := open(t, cfg)
	defer func() { s.Close() }()
	fill(t, s, schema.ClassMetric, 1, 2000)
	fill(t, s, schema.ClassEvent, 1, 1000)
	if !s.Stats().Balloon {
		t.Fatal("no balloon")
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 16<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk did not fill up: %v", err)
	}
	// Events go on at the cost of metrics, alarms at the cost of both.
	taken := uint64(1000)
	for range 1500 {
		if _, err := s.Append(t.Context(), schema.ClassEvent, storagetest.Payload(schema.ClassEvent, taken+1)); err == nil {
			taken++
		} else if !errors.Is(err, unix.ENOSPC) && !strings.Contains(err.Error(), "no space") {
			t.Fatalf("an unclear error: %v", err)
		}
	}
	if taken < 1500 {
		t.Errorf("only %d events were taken on the full disk", taken-1000)
	}
	for i := range 50 {
		if _, err := s.Append(t.Context(), schema.ClassAlarm, []byte("the disk is full")); err != nil {
			t.Fatalf("alarm %d on the full disk: %v", i, err)
		}
	}
	var a account
	a.take(t, s)
	a.complete(t, s)
	if a.lost(schema.ClassMetric, schema.ReasonDiskFull) == 0 {
		t.Error("no metric gave way")
	}
	if !s.Stats().Balloon {
		t.Error("the reserve is used up, though others gave way")
	}
	// A crash on the full disk, and a start on it.
	if err := s.Close(); err != nil {
		t.Logf("close on the full disk: %v", err)
	}
	s = open(t, cfg)
	var b account
	b.take(t, s)
	b.complete(t, s)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for _, c := range schema.Classes() {
		if _, err := s.Append(t.Context(), c, []byte("room again")); err != nil {
			t.Errorf("%s with room again: %v", c, err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
}

// TestDiskDead shuts an ext4 down under the spool, as a dying card does: records
// stay in bounded memory and can be delivered from there, nothing panics, and the
// next start accounts for every number of the disk.
func TestDiskDead(t *testing.T) {
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
	for range 6000 {
		for _, c := range []schema.Class{schema.ClassEvent, schema.ClassMetric} {
			if _, err := s.Append(t.Context(), c, []byte("a record without a disk")); err != nil {
				t.Fatalf("%s on a dead disk: %v", c, err)
			}
		}
	}
	if why := <-told; why == nil || s.Stats().Memory == "" {
		t.Errorf("nobody is told that there is no disk: %v, %q", why, s.Stats().Memory)
	}
	if recs, err := s.Read(schema.ClassEvent, 1, 10, 1000); err != nil || len(recs) == 0 {
		t.Errorf("what was written does not read: %d, %v", len(recs), err)
	}
	if n := drainMemory(t, s.Spool); n == 0 || s.Stats().Held != [schema.NumClasses]int{} {
		t.Errorf("%d records delivered from memory, %v left", n, s.Stats().Held)
	}
	if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("the last")); err != nil {
		t.Error(err)
	}
	_ = s.stop() // whether metrics of the moment of death were still queued is chance
	if err := s.Spool.Close(); err == nil {
		t.Error("Close says that all is well")
	}
	// The card works again after a power cycle.
	putBack()
	s2 := open(t, cfg)
	var a account
	a.take(t, s2)
	a.complete(t, s2)
	if len(a.records[schema.ClassEvent]) != 50 || len(a.records[schema.ClassMetric]) != 50 {
		t.Errorf("%d events and %d metrics after the power cycle, want 50 each", len(a.records[schema.ClassEvent]), len(a.records[schema.ClassMetric]))
	}
	if err := s2.Close(); err != nil {
		t.Error(err)
	}
}

// drainMemory reads and acknowledges what is only in memory: the epochs after the
// first four cursors.
func drainMemory(t *testing.T, s *storage.Spool) (n int) {
	t.Helper()
	for _, cur := range s.Cursors()[schema.NumClasses:] {
		for {
			recs, err := s.ReadEpoch(cur.Class, cur.Epoch, 0, 100, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if len(recs) == 0 {
				break
			}
			for _, r := range recs {
				if err := s.Ack(r.Class, r.Epoch, r.Seq, r.Seq); err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
	}
	return n
}

func need(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v", name, err)
		}
		t.Skipf("%s: %v", name, err)
	}
	return out
}

// shutdown makes the file system fail all I/O from now on.
func shutdown(t *testing.T, dir string) {
	t.Helper()
	const ext4Shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnlyDisk starts on a disk that takes nothing: the spool works from memory
// and goes to disk when it can, and what memory still held at the end is told.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	dir := mount(t, "tmpfs", "tmpfs", "size=8m")
	cfg := small(filepath.Join(dir, "spool"))
	s := open(t, cfg)
	fill(t, s, schema.ClassAlarm, 1, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	s = open(t, cfg)
	if s.Stats().Memory == "" {
		t.Fatal("a read-only disk is not told")
	}
	for _, c := range schema.Classes() {
		if n, err := s.Append(t.Context(), c, []byte("in memory")); err != nil || n != 1 {
			t.Fatalf("%s: %d, %v", c, n, err)
		}
		recs, err := s.Read(c, 1, 10, 1000)
		if err != nil || len(recs) != 1 || s.Ack(c, recs[0].Epoch, 1, 1) != nil {
			t.Fatalf("%s does not read from memory: %v, %v", c, recs, err)
		}
	}
	if n, err := s.Append(t.Context(), schema.ClassEvent, []byte("left over")); err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	inMemory := s.Cursors()[schema.ClassEvent].Epoch
	storage.RetryDisk(t.Context(), s)
	if s.Stats().Memory == "" {
		t.Fatal("the disk is still read-only")
	}
	remount(0)
	storage.RetryDisk(t.Context(), s)
	if why := s.Stats().Memory; why != "" {
		t.Fatalf("the disk is back: %s", why)
	}
	if n, err := s.Append(t.Context(), schema.ClassAlarm, []byte("on disk")); err != nil || n != 4 {
		t.Fatalf("%d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	alarms := storagetest.Drain(t, s, schema.ClassAlarm)
	if len(alarms) != 5 {
		t.Fatalf("%d alarms on disk, want 3, 1 and a gap", len(alarms))
	}
	rec, err := schema.DecodeRecord(alarms[4].Payload)
	if err != nil || rec.Gap == nil || rec.Gap.Epoch != inMemory || rec.Gap.First != 2 || rec.Gap.Last != 2 {
		t.Errorf("what memory held at the end is told as %+v, %v", rec, err)
	}
}

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
	if st := s.Stats(); st.Balloon {
		t.Error("the balloon was not given up")
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

// TestDiskDead shuts an ext4 down under the spool, as a dying card does. Durable
// classes say so, metrics wait in their bounded queue and are then counted as
// lost, nothing panics, and the next start accounts for every number.
func TestDiskDead(t *testing.T) {
	t.Parallel()
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 24<<20); err != nil {
		t.Fatal(err)
	}
	need(t, "mkfs.ext4", "-q", "-F", img)
	out := need(t, "losetup", "--find", "--show", img)
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	dir := mount(t, loop, "ext4", "")
	cfg := small(filepath.Join(dir, "spool"))
	cfg.NoSync = false
	cfg.Classes[schema.ClassMetric].Linger = time.Millisecond
	s := start(t, cfg)
	fill(t, s.Spool, schema.ClassEvent, 1, 50)
	fill(t, s.Spool, schema.ClassMetric, 1, 50)
	shutdown(t, dir)
	if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("x")); err == nil {
		t.Error("an event was taken by a dead disk")
	}
	var full int
	for range 6000 {
		if _, err := s.Append(t.Context(), schema.ClassMetric, []byte("a metric")); errors.Is(err, storage.ErrFull) {
			full++
		} else if err != nil {
			t.Fatalf("metric: %v", err)
		}
	}
	for range 100 { // the committer finds out at its own pace
		if s.Stats().Classes[schema.ClassMetric].CommitErrors > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	st := s.Stats().Classes[schema.ClassMetric]
	if full == 0 || st.Rejected != uint64(full) || st.Queued > 4096 || st.Owed == 0 || st.CommitErrors == 0 {
		t.Errorf("%d metrics refused; stats %+v", full, st)
	}
	if recs, err := s.Read(schema.ClassEvent, 1, 10, 1000); err != nil || len(recs) == 0 {
		t.Errorf("what is in memory does not read: %d, %v", len(recs), err)
	}
	if err := s.stop(); err == nil {
		t.Error("Run ended without a word though metrics could not be written")
	}
	if err := s.Spool.Close(); err == nil {
		t.Error("Close says that all is well")
	}
	// The card works again after a power cycle.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(loop, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
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

func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	dir := mount(t, "tmpfs", "tmpfs", "size=8m")
	cfg := small(filepath.Join(dir, "spool"))
	s := open(t, cfg)
	fill(t, s, schema.ClassAlarm, 1, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Open(cfg); !errors.Is(err, unix.EROFS) {
		t.Errorf("open on a read-only disk: %v, want EROFS", err)
	}
}

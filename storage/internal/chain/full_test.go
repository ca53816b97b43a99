// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/schema"
)

// fullDisk gives loaded classes on a disk of 8 MiB without room: 1 MiB of it is the
// balloon, most of the rest metrics and what somebody else wrote.
func fullDisk(t *testing.T) *Shared {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI must run as root to mount a small file system: %v", err)
		}
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var cfg [schema.NumClasses]Config
	for i := range cfg {
		cfg[i] = Config{SegmentBytes: 64 << 10, QuotaBytes: 16 << 20}
	}
	s := loaded(t, dir, cfg)
	s.RefillBalloon()
	for n := range 2000 {
		for _, c := range s.classes[schema.ClassEvent : schema.ClassMetric+1] {
			if c.id == schema.ClassEvent && n > 200 {
				continue
			}
			if _, err := c.Append(t.Context(), record()); err != nil {
				t.Fatal(err)
			}
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	fillUp(t, s, "ballast")
	return s
}

// fillUp takes what room there is.
func fillUp(t *testing.T, s *Shared, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.Dir, name), make([]byte, 16<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the disk did not fill up: %v", err)
	}
}

func record() []byte { return bytes.Repeat([]byte("m"), 900) }

// TestBusyClassesMakeRoom: on a full disk an alarm or event does not fail because the
// classes that could give way are at work: it waits until they are not. Each of these
// may be waiting for the alarm class meanwhile, to write a gap.
func TestBusyClassesMakeRoom(t *testing.T) {
	t.Parallel()
	for _, id := range []schema.Class{schema.ClassAlarm, schema.ClassEvent} {
		t.Run(id.String(), func(t *testing.T) {
			t.Parallel()
			s := fullDisk(t)
			c, metric := s.classes[id], s.classes[schema.ClassMetric]
			busy := []*Class{metric, s.classes[schema.ClassSnapshot]}
			for _, v := range busy {
				v.io.Lock()
			}
			const n = 500 // more than the balloon has room for, less than the metrics have
			ended := make(chan error, 1)
			go func() {
				for range n {
					if _, err := c.Append(t.Context(), record()); err != nil {
						ended <- err
						return
					}
				}
				ended <- nil
			}()
			for c.Stats(time.Now()).CommitErrors == 0 && len(ended) == 0 { // until there is no room
				time.Sleep(time.Millisecond)
			}
			early := false
			select {
			case err := <-ended:
				early = true
				t.Errorf("with all others busy: %v; want a wait", err)
			case <-time.After(50 * time.Millisecond): // too short a wait finds less, and fails nothing
			}
			fillUp(t, s, "more")
			if err := s.WriteGaps([]schema.Gap{{Class: schema.ClassSnapshot, Epoch: 1, First: 1, Last: 1, Reason: schema.ReasonCrash}}); err != nil {
				t.Errorf("a busy class cannot write a gap meanwhile: %v", err)
			}
			for _, v := range busy {
				v.io.Unlock()
			}
			if early {
				return
			}
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if lost := c.Stats(time.Now()).Lost; id == schema.ClassEvent && lost[schema.ReasonDiskFull] > 0 {
				t.Errorf("%d events gave way before the metrics did", lost[schema.ReasonDiskFull])
			}
			if metric.Stats(time.Now()).Lost[schema.ReasonDiskFull] == 0 {
				t.Error("no metric gave way")
			}
			if fi, err := os.Stat(s.Balloon.Path); err != nil || fi.Size() <= 512<<10 { // an alarm may take half of it
				t.Errorf("nothing was put back into the reserve: %v, %v", fi.Size(), err)
			}
		})
	}
}

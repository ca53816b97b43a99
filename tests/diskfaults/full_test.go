// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package diskfaults_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fulmar/schema"
)

// TestFull fills a small ext4 from outside while all classes compete. Alarms go on,
// metrics give way, and with room again everything is taken.
func TestFull(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	s := open(t, d.config())
	stop := run(t, s)
	body := bytes.Repeat([]byte("m"), 900)
	for n := range 2000 {
		_, err := s.Append(t.Context(), schema.ClassMetric, body)
		if err == nil && n%200 == 0 { // the queue in front holds 1 MiB
			err = s.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ballast := filepath.Join(d.mnt, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(body)
	}
	if f.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk did not fill up: %v", err)
	}
	var wg sync.WaitGroup
	for _, c := range []schema.Class{schema.ClassAlarm, schema.ClassEvent, schema.ClassMetric} {
		wg.Go(func() {
			for n := range 300 {
				if _, err := s.Append(t.Context(), c, body); err != nil && c == schema.ClassAlarm {
					t.Errorf("alarm %d on the full disk: %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(drain(t, s, schema.ClassAlarm)); n < 300 {
		t.Errorf("%d alarms are there, 300 were taken", n)
	}
	if lost := s.Stats().Classes[schema.ClassMetric].Lost[schema.ReasonDiskFull]; lost == 0 {
		t.Error("no metric gave way")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for _, c := range schema.Classes() {
		if _, err := s.Append(t.Context(), c, []byte("room again")); err != nil {
			t.Errorf("%s with room again: %v", c, err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

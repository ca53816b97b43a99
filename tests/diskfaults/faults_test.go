// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package diskfaults_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/schema"
	"fulmar/storage"
)

// TestSlowFlush: on a disk whose flush takes half a second, eight callers that make
// 50 events a second, and metrics beside them, share commits: the number of commits
// is bounded by time, not by records, and nobody waits for more than a few.
func TestSlowFlush(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	s := open(t, d.config())
	stop := run(t, s)
	if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("first")); err != nil {
		t.Fatal(err)
	}
	const flush = 500 * time.Millisecond
	before := d.tell("slow " + flush.String())
	begin := time.Now()
	end := begin.Add(6 * time.Second)
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() { // a camera does not wait: each event is a caller of its own
			for n := 0; time.Now().Before(end); n++ {
				wg.Go(func() {
					start := time.Now()
					if _, err := s.Append(t.Context(), schema.ClassEvent, fmt.Appendf(nil, "event %d of %d", n, g)); err != nil {
						t.Errorf("event: %v", err)
					}
					mu.Lock()
					took = append(took, time.Since(start))
					mu.Unlock()
				})
				if _, err := s.Append(t.Context(), schema.ClassMetric, fmt.Appendf(nil, "metric %d of %d", n, g)); err != nil {
					t.Errorf("metric: %v", err)
				}
				time.Sleep(160 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	spent := time.Since(begin)
	flushes := d.tell("well") - before
	commits := s.Stats().Classes[schema.ClassEvent].Commits
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("%d events in %.1f s, %d commits, %d flushes; durable after p50 %v, p99 %v", len(took), spent.Seconds(), commits, flushes, p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	if most := 2 + int(spent/flush); int(commits) > most {
		t.Errorf("%d commits in %v, each flushes at least once: at most %d fit", commits, spent, most)
	}
	if int(commits)*8 > len(took) {
		t.Errorf("%d commits for %d events: they do not share them", commits, len(took))
	}
	if flushes > 20+6*int(spent/flush) { // three classes commit side by side, two flushes each
		t.Errorf("%d flushes in %v", flushes, spent)
	}
	// A caller waits for the rest of the commit at hand and for its own. One takes
	// three flushes at most (two of the journal for the records, one for bbolt's meta
	// page; 2 to 3 were counted), each behind one for another class, as the disk does one at a
	// time: 2 * 3 * 2 = 12, and two of slack. That does not grow with the
	// number of events; where it did, it would pass this bound within seconds.
	if p99 > 14*flush {
		t.Errorf("p99 of events is %v, %d flushes", p99, p99/flush)
	}
	if worst := took[len(took)-1]; worst > 16*flush {
		t.Errorf("an event took %v, %d flushes", worst, worst/flush)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := drain(t, s, schema.ClassEvent); len(got) != len(took)+1 {
		t.Errorf("%d events on disk, %d were made", len(got), len(took)+1)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestAlarmsShareSlowFlushes: an alarm waits for nothing but the disk; those that come
// while it writes go in one commit.
func TestAlarmsShareSlowFlushes(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	s := open(t, d.config())
	stop := run(t, s)
	d.tell("slow 200ms")
	before := s.Stats().Classes[schema.ClassAlarm].Commits
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			if _, err := s.Append(t.Context(), schema.ClassAlarm, fmt.Appendf(nil, "alarm %d", n)); err != nil {
				t.Errorf("alarm: %v", err)
			}
		})
	}
	wg.Wait()
	d.tell("well")
	if n := s.Stats().Classes[schema.ClassAlarm].Commits - before; n > 20 {
		t.Errorf("%d commits for 200 alarms at once", n)
	}
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Error(err)
	}
}

// TestFailing: a disk that turns read-only, or fails each write, under a running
// spool. Appends go on in memory at once, Stats says so, nothing hangs, what was on
// disk is on disk at the next start.
func TestFailing(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*disk){
		"read-only": func(d *disk) { remount(d.t, d.mnt, unix.MS_RDONLY) },
		"dead":      func(d *disk) { d.tell("dead") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testFailing(t, name, fail)
		})
	}
}

func remount(t *testing.T, mnt string, flags uintptr) {
	t.Helper()
	var err error
	for range 100 { // busy while a file is just being written
		if err = unix.Mount("", mnt, "", unix.MS_REMOUNT|flags, ""); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Skipf("remount: %v", err)
	}
}

func testFailing(t *testing.T, name string, fail func(*disk)) {
	d := newDisk(t)
	d.t = t
	s := open(t, d.config())
	stop := run(t, s)
	kept := map[uint64]string{}
	add := func(n int) (failed int) {
		for i := range n {
			p := fmt.Sprintf("%s %d", name, i)
			begin := time.Now()
			seq, err := s.Append(t.Context(), schema.ClassEvent, []byte(p))
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("append took %v", took)
			}
			if err != nil {
				failed++
			} else if s.Stats().Memory == "" {
				kept[seq] = p
			}
		}
		return failed
	}
	if n := add(50); n > 0 {
		t.Fatalf("%d events failed on a sound disk", n)
	}
	// A remount needs that no file is open to be written: end the session first.
	if name == "read-only" {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		fail(d)
		s = open(t, d.config())
		stop = run(t, s)
	} else {
		fail(d)
	}
	before := len(kept)
	if n := add(50); n > 1 { // the one that found out may fail
		t.Errorf("%d of 50 events were refused though memory had room", n)
	}
	st := s.Stats()
	if st.Memory == "" || st.Held[schema.ClassEvent] == 0 || len(kept) > before+1 {
		t.Errorf("memory %q, %d events held", st.Memory, st.Held[schema.ClassEvent])
	}
	settleMemory(t, s)
	if err := stop(); err != nil {
		t.Logf("Run ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Logf("Close said: %v", err)
	}
	if name == "read-only" {
		remount(t, d.mnt, 0)
		s = open(t, d.config())
		defer s.Close()
		got := drain(t, s, schema.ClassEvent)
		for seq, p := range kept {
			if got[seq] != p {
				t.Errorf("event %d is %q after the disk came back, was %q", seq, got[seq], p)
			}
		}
		if m := s.Stats().Memory; m != "" {
			t.Errorf("the disk is back and the spool says %q", m)
		}
	}
}

// settleMemory reads what memory holds and acknowledges it, as the fleet would.
func settleMemory(t *testing.T, s *storage.Spool) {
	t.Helper()
	for _, cur := range s.Cursors() {
		recs, err := s.ReadEpoch(cur.Class, cur.Epoch, 0, 1000, 1<<20)
		if err != nil {
			t.Logf("%s epoch %x: %v", cur.Class, cur.Epoch, err) // on the dead disk
			continue
		}
		for _, r := range recs {
			if err := s.Ack(r.Class, r.Epoch, r.Seq, r.Seq); err != nil {
				t.Errorf("acknowledge %d in memory: %v", r.Seq, err)
				return
			}
		}
	}
	if n := s.Stats().Held[schema.ClassEvent]; n != 0 {
		t.Errorf("%d events are still held after all were acknowledged", n)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// runSpool opens a spool and runs it until the test or stop ends it.
func runSpool(t *testing.T, dir string) (*storage.Spool, context.CancelFunc) {
	t.Helper()
	s, err := storage.Open(storage.Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := func() {
		cancel()
		<-done
	}
	synctest.Wait()
	return s, stop
}

func metrics(t *testing.T, s *storage.Spool, first, last uint64) {
	t.Helper()
	for n := first; n <= last; n++ {
		seq, err := s.Append(t.Context(), schema.ClassMetric, storagetest.Payload(schema.ClassMetric, n))
		if err != nil || seq != n {
			t.Fatalf("append %d: number %d, %v", n, seq, err)
		}
	}
}

func ackMetrics(t *testing.T, s *storage.Spool, first, last uint64) {
	t.Helper()
	if err := s.Ack(schema.ClassMetric, storagetest.Epoch(t, s, schema.ClassMetric), first, last); err != nil {
		t.Fatal(err)
	}
}

// TestMetricsOnlineCostNoDisk: while the link is up and answers, metrics are read
// from memory and no record is ever written.
func TestMetricsOnlineCostNoDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := runSpool(t, t.TempDir())
		defer s.Close()
		defer stop()
		s.Online(true)
		synctest.Wait()
		for n := uint64(1); n <= 5000; n++ {
			metrics(t, s, n, n)
			time.Sleep(150 * time.Millisecond) // the reader hears of it after a tenth of a second
			select {
			case <-s.Wake():
			default:
				t.Fatalf("record %d: the reader is not told", n)
			}
			recs, err := s.Read(schema.ClassMetric, n, 10, 1<<20)
			if err != nil || len(recs) != 1 || recs[0].Seq != n || string(recs[0].Payload) != string(storagetest.Payload(schema.ClassMetric, n)) {
				t.Fatalf("record %d is not read from memory: %v, %v", n, recs, err)
			}
			ackMetrics(t, s, n, n)
		}
		st := s.Stats().Classes[schema.ClassMetric]
		if st.Appended != 0 || st.Acked != 5000 || st.Queued != 0 || st.Outstanding != 0 {
			t.Fatalf("%d records written, %d acknowledged, %d queued, %d outstanding", st.Appended, st.Acked, st.Queued, st.Outstanding)
		}
		if st.LossWindow < time.Second || st.LossWindow > 3*time.Second {
			t.Errorf("loss window is told as %v", st.LossWindow)
		}
	})
}

// TestMetricsGoToDisk: those that nobody acknowledges in time, and all once the
// link is down.
func TestMetricsGoToDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := runSpool(t, t.TempDir())
		defer s.Close()
		defer stop()
		s.Online(true)
		synctest.Wait()
		metrics(t, s, 1, 10)
		time.Sleep(1500 * time.Millisecond)
		ackMetrics(t, s, 4, 5)
		if n := s.Stats().Classes[schema.ClassMetric].Appended; n != 0 {
			t.Fatalf("%d records written within the time for an acknowledgement", n)
		}
		time.Sleep(time.Second)
		if st := s.Stats().Classes[schema.ClassMetric]; st.Appended != 8 || st.Outstanding != 8 {
			t.Fatalf("%d written, %d outstanding after the time, want 8", st.Appended, st.Outstanding)
		}
		metrics(t, s, 11, 12)
		time.Sleep(1100 * time.Millisecond)
		s.Online(false)
		time.Sleep(100 * time.Millisecond)
		if st := s.Stats().Classes[schema.ClassMetric]; st.Appended != 10 || st.Queued != 0 {
			t.Fatalf("%d written, %d queued with the link down, want 10 and 0", st.Appended, st.Queued)
		}
		if got := storagetest.Drain(t, s, schema.ClassMetric); len(got) != 10 {
			t.Fatalf("%d records read, want 10", len(got))
		}
	})
}

// TestCrashAfterMemory: a crash after acknowledgements from memory tells no damage,
// and gives no number twice.
func TestCrashAfterMemory(t *testing.T) {
	t.Parallel()
	for _, spill := range []bool{false, true} {
		t.Run(fmt.Sprintf("spill=%v", spill), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, after := t.TempDir(), t.TempDir()
				s, stop := runSpool(t, dir)
				defer s.Close()
				defer stop()
				s.Online(true)
				synctest.Wait()
				metrics(t, s, 1, 700)
				time.Sleep(time.Second) // the reservation is written, and the cursor of then
				ackMetrics(t, s, 1, 300)
				ackMetrics(t, s, 400, 700)
				last := uint64(700)
				if spill {
					time.Sleep(3 * time.Second) // 301 to 399 go to disk
					metrics(t, s, 701, 900)
					ackMetrics(t, s, 701, 900)
					metrics(t, s, 901, 905)
					time.Sleep(3 * time.Second)
					last = 905
				}
				seen := storagetest.Drain(t, s, schema.ClassMetric)
				if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(after, "lock")); err != nil {
					t.Fatal(err)
				}
				c, err := storage.Open(storage.Config{Dir: after, NoSync: true})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				got := storagetest.Drain(t, c, schema.ClassMetric)
				want := 0
				if spill {
					want = len(seen)
				}
				if len(got) != want {
					t.Errorf("%d records after the crash, want %d", len(got), want)
				}
				seq, err := c.Append(t.Context(), schema.ClassMetric, []byte("new"))
				if err != nil || seq <= last {
					t.Errorf("a new record gets number %d, %d was given before (%v)", seq, last, err)
				}
				for _, r := range storagetest.Drain(t, c, schema.ClassAlarm) {
					rec, err := schema.DecodeRecord(r.Payload)
					if err != nil || rec.Gap == nil {
						t.Fatalf("no gap: %v", err)
					}
					if rec.Gap.Reason != schema.ReasonCrash {
						t.Errorf("numbers %d to %d are told as %s", rec.Gap.First, rec.Gap.Last, rec.Gap.Reason)
					}
				}
			})
		})
	}
}

// TestUnreservedIsNotGiven: without Run nothing reserves ahead, and a number that
// a crash could give again must not be read.
func TestUnreservedIsNotGiven(t *testing.T) {
	t.Parallel()
	s, err := storage.Open(storage.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Online(true)
	metrics(t, s, 1, 2000)
	if got := storagetest.Drain(t, s, schema.ClassMetric); len(got) != 256 {
		t.Fatalf("%d records are given, the first block of numbers is 256", len(got))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := storagetest.Drain(t, s, schema.ClassMetric); len(got) != 2000 {
		t.Fatalf("%d records are given after all are on disk", len(got))
	}
}

// TestAckOfWhatNobodyCanHaveSeen is refused also for records in memory.
func TestAckOfWhatNobodyCanHaveSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := runSpool(t, t.TempDir())
		defer s.Close()
		defer stop()
		s.Online(true)
		synctest.Wait()
		metrics(t, s, 1, 3)
		if err := s.Ack(schema.ClassMetric, storagetest.Epoch(t, s, schema.ClassMetric), 1, 4); err == nil {
			t.Error("number 4 was never given out and is acknowledged")
		}
	})
}

// TestRefuseFromMemory: what the link cannot send is told also where it was never on
// disk.
func TestRefuseFromMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := runSpool(t, t.TempDir())
		defer s.Close()
		defer stop()
		s.Online(true)
		synctest.Wait()
		metrics(t, s, 1, 3)
		synctest.Wait()
		if err := s.Refuse(schema.ClassMetric, storagetest.Epoch(t, s, schema.ClassMetric), 2, schema.ReasonOversize); err != nil {
			t.Fatal(err)
		}
		if got := storagetest.Drain(t, s, schema.ClassMetric); len(got) != 2 {
			t.Errorf("%d records left, want 1 and 3", len(got))
		}
		if n := s.Stats().Classes[schema.ClassMetric].Lost[schema.ReasonOversize]; n != 1 {
			t.Errorf("%d told as lost", n)
		}
	})
}

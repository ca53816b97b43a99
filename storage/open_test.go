// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSecondOpenSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, small(dir))
	begin := time.Now()
	_, err := storage.Open(small(dir))
	if !errors.Is(err, storage.ErrLocked) || time.Since(begin) > 2*time.Second {
		t.Errorf("after %v: %v, want ErrLocked within 2 s", time.Since(begin), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, small(dir)).Close(); err != nil {
		t.Error(err)
	}
}

func TestNewerSpoolIsRefusedAndUntouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := open(t, small(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "event", "meta.a")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[8] = 99
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Open(small(dir)); !errors.Is(err, storage.ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want ErrNewer with the file's name", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(b) {
		t.Error("the newer spool was changed")
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := open(t, small(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	foreign := []string{"note.txt", "event/0000000000000001.db.bak", "event/1.db", "metric/000000000000000G.db", "alarm/lost+found"}
	for _, f := range foreign {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "event", "00000000000000ff.db")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	unfinished := filepath.Join(dir, "event", "00000000000000fe.db.tmp")
	if err := os.WriteFile(unfinished, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, small(dir))
	defer s.Close()
	if n := s.Stats().Foreign; n != len(foreign)+1 {
		t.Errorf("%d foreign files counted, want %d", n, len(foreign)+1)
	}
	for _, f := range foreign {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(b) != "mine" {
			t.Errorf("%s was touched: %v", f, err)
		}
	}
	if _, err := os.Lstat(unfinished); !os.IsNotExist(err) {
		t.Error("an unfinished segment was left")
	}
	fill(t, s, schema.ClassEvent, 1, 10)
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for _, bad := range []storage.ClassConfig{
		{SegmentBytes: 1},
		{QuotaBytes: 1 << 20, SegmentBytes: 1 << 19},
		{QuotaBytes: 1},
		{SegmentBytes: 1 << 40, QuotaBytes: 1 << 50},
		{BatchMax: -1},
		{BatchMax: 1 << 20},
		{Linger: time.Hour},
	} {
		cfg := storage.Config{Dir: t.TempDir()}
		cfg.Classes[schema.ClassEvent] = bad
		if s, err := storage.Open(cfg); err == nil {
			s.Close()
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// TestDayInABubble runs a day of one sample every 30 s, an event every 10 min and
// a link that comes and goes, in simulated time: the committers, lingers and
// cursor timers are the real ones.
func TestDayInABubble(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := small(dir)
		s := start(t, cfg)
		epoch := map[schema.Class]uint64{}
		for _, c := range s.Cursors() {
			epoch[c.Class] = c.Epoch
		}
		const samples = 24 * 60 * 2
		got := 0
		for i := range samples {
			time.Sleep(30 * time.Second)
			if _, err := s.Append(t.Context(), schema.ClassMetric, storagetest.Payload(schema.ClassMetric, uint64(i+1))); err != nil {
				t.Fatal(err)
			}
			if i%20 == 0 {
				begin := time.Now()
				if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("an event")); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begin); d > 300*time.Millisecond {
					t.Fatalf("an event took %v", d)
				}
			}
			if i%240 < 120 { // an hour with a link, an hour without
				got += drainAll(t, s, epoch)
			}
		}
		time.Sleep(2 * time.Second) // the last linger
		if st := s.Stats().Classes[schema.ClassMetric]; st.Queued != 0 || st.LossWindow != time.Second {
			t.Errorf("%d metrics still queued 2 s after the last", st.Queued)
		}
		got += drainAll(t, s, epoch)
		if want := samples + samples/20; got != want {
			t.Errorf("%d records arrived, want %d", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// drainAll reads and acknowledges what is durable.
func drainAll(t *testing.T, s storagetest.Spool, epoch map[schema.Class]uint64) (n int) {
	for _, c := range schema.Classes() {
		for {
			recs, err := s.Read(c, 1, 50, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			if len(recs) == 0 {
				break
			}
			n += len(recs)
			if err := s.Ack(c, epoch[c], recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// The committers coalesce: many at once cost few commits, and each class keeps to
// its linger.
func TestLingerAndCoalescing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, small(dir))
		synctest.Wait()
		for c, want := range map[schema.Class][2]time.Duration{
			schema.ClassAlarm:    {0, 0},
			schema.ClassEvent:    {20 * time.Millisecond, 250 * time.Millisecond},
			schema.ClassSnapshot: {20 * time.Millisecond, 250 * time.Millisecond},
		} {
			before := s.Stats().Classes[c].Commits
			begin := time.Now()
			done := make(chan error, 200)
			for range cap(done) {
				go func() {
					_, err := s.Append(t.Context(), c, []byte("at once"))
					done <- err
				}()
			}
			for range cap(done) {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			took := time.Since(begin)
			if took < want[0] || took > want[1] {
				t.Errorf("%s took %v, want %v to %v", c, took, want[0], want[1])
			}
			// Alarms do not linger: how many share a commit is the scheduler's to say.
			if n := s.Stats().Classes[c].Commits - before; n > 200 || c != schema.ClassAlarm && n != 1 {
				t.Errorf("%s: %d commits for 200 records at once", c, n)
			}
		}
		// Metrics do not wait, and are there after their second.
		begin := time.Now()
		if _, err := s.Append(t.Context(), schema.ClassMetric, []byte("m")); err != nil || time.Since(begin) != 0 {
			t.Errorf("a metric took %v, %v", time.Since(begin), err)
		}
		if recs, _ := s.Read(schema.ClassMetric, 1, 1, 10); len(recs) != 0 {
			t.Error("a metric that is not durable was read")
		}
		time.Sleep(1100 * time.Millisecond)
		if recs, _ := s.Read(schema.ClassMetric, 1, 1, 10); len(recs) != 1 {
			t.Error("a metric is not there after its linger")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What comes while a commit is under way lingers as well: no more commits are made
// than one in each linger.
func TestEachCommitLingers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, small(dir))
		synctest.Wait()
		begin := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				for range 40 {
					if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("one after the other")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took, n := time.Since(begin), s.Stats().Classes[schema.ClassEvent].Commits
		if most := uint64(took/(20*time.Millisecond)) + 1; n > most {
			t.Errorf("%d commits in %v, want at most %d", n, took, most)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An Append whose context ends while it lingers returns; the record comes anyway.
func TestAppendGivenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := small(dir)
		cfg.Classes[schema.ClassEvent].Linger = time.Second
		s := start(t, cfg)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := s.Append(ctx, schema.ClassEvent, []byte("x")); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 100*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		time.Sleep(time.Second)
		if recs, err := s.Read(schema.ClassEvent, 1, 1, 10); err != nil || len(recs) != 1 {
			t.Errorf("%d records, %v", len(recs), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The cursor is on disk half a second after an acknowledgement, and drained
// segments are gone with it.
func TestCursorIsWrittenAndDiskComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := start(t, small(dir))
		c := schema.ClassMetric
		fill(t, s.Spool, c, 1, 3000)
		before := s.Stats().Classes[c]
		if err := s.Ack(c, before.Epoch, 1, 2999); err != nil {
			t.Fatal(err)
		}
		if n := len(segments(t, dir, c)); n != before.Segments {
			t.Errorf("%d segments at once after the acknowledgement, want %d still: the cursor is not on disk", n, before.Segments)
		}
		time.Sleep(600 * time.Millisecond)
		if n := len(segments(t, dir, c)); n != 1 || before.Segments < 5 {
			t.Errorf("%d of %d segments left, want 1", n, before.Segments)
		}
		crashed := open(t, small(snapshot(t, dir)))
		var a account
		a.take(t, crashed)
		if len(a.records[c]) != 1 || a.records[c][3000] == nil {
			t.Errorf("%d records after a crash, want the one not acknowledged", len(a.records[c]))
		}
		if err := errors.Join(crashed.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestPowerLostInTheFirstMoment: a class that begins writes its meta twice; where the
// power went between the two nothing is missing, and no number is skipped.
func TestPowerLostInTheFirstMoment(t *testing.T) {
	t.Parallel()
	dir, after := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	s := open(t, small(dir))
	defer s.Close()
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// The copy of even generations is the second.
	if err := os.Remove(filepath.Join(after, "alarm", "meta.a")); err != nil {
		t.Fatal(err)
	}
	again := open(t, small(after))
	defer again.Close()
	// Before it is the gap of what was reserved for metrics, and nothing else.
	if seq, err := again.Append(t.Context(), schema.ClassAlarm, []byte("x")); err != nil || seq != 2 {
		t.Errorf("the first alarm has number %d, %v", seq, err)
	}
}

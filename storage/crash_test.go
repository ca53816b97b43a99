// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// TestCrashGap: the files tell to the number what was used of the durable classes,
// so a crash tells no loss that was none. Metrics have numbers before they are in a
// file: those that were reserved may have been seen.
func TestCrashGap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, small(dir))
	defer s.Close()
	for _, c := range schema.Classes() {
		fill(t, s, c, 1, 20)
	}
	crashed := snapshot(t, dir)
	s2 := open(t, small(crashed))
	var a account
	a.take(t, s2)
	a.complete(t, s2)
	for _, c := range schema.Classes() {
		if c == schema.ClassMetric {
			if n := len(a.gaps[c]); n != 1 || a.gaps[c][0].Reason != schema.ReasonCrash || a.gaps[c][0].First != 21 {
				t.Errorf("%s: gaps %+v, want one from 21 for the crash", c, a.gaps[c])
			}
		} else if len(a.gaps[c]) != 0 {
			t.Errorf("%s: gaps %+v, though nothing was lost", c, a.gaps[c])
		}
		seq, err := s2.Append(t.Context(), c, []byte("after"))
		if g := a.gap(c, seq); err != nil || g != nil {
			t.Errorf("%s: number %d given out though it is in gap %+v (%v)", c, seq, g, err)
		}
	}
	// A crash of the crashed one tells only what is new, not the old gaps again.
	if err := s2.Flush(); err != nil {
		t.Fatal(err)
	}
	s3 := open(t, small(snapshot(t, crashed)))
	defer s3.Close()
	if err := s2.Close(); err != nil {
		t.Fatal(err)
	}
	var b account
	b.take(t, s3)
	b.complete(t, s3)
	if n := len(b.gaps[schema.ClassMetric]); n != 2 {
		t.Errorf("%d gaps of metrics after two crashes, want 2: %+v", n, b.gaps[schema.ClassMetric])
	}
	// A clean stop tells none.
	s2 = open(t, small(crashed))
	defer s2.Close()
	var d account
	d.take(t, s2)
	if n := len(d.gaps[schema.ClassMetric]); n != 1 {
		t.Errorf("%d gaps after a clean stop, want the one of before", n)
	}
}

// TestNewestFileGone: where the newest file is gone after a crash, its numbers may
// have been seen by the fleet, so none of them is given again.
func TestNewestFileGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, small(dir))
	defer s.Close()
	last := uint64(0)
	for files := 0; files < 3; last++ {
		fill(t, s, schema.ClassEvent, last+1, last+1)
		names, err := filepath.Glob(filepath.Join(dir, "event", "*.db"))
		if err != nil {
			t.Fatal(err)
		}
		files = len(names)
	}
	crashed := snapshot(t, dir)
	names, err := filepath.Glob(filepath.Join(crashed, "event", "*.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(names[len(names)-1]); err != nil { // sorted by number
		t.Fatal(err)
	}
	s2 := open(t, small(crashed))
	seq, err := s2.Append(t.Context(), schema.ClassEvent, []byte("after"))
	if err != nil || seq <= last {
		t.Errorf("number %d given out, up to %d were used (%v)", seq, last, err)
	}
	var a account
	a.take(t, s2)
	a.complete(t, s2)
	if g := a.gap(schema.ClassEvent, last); g == nil {
		t.Errorf("number %d is told in no gap", last)
	}
}

const killEnv = "FULMAR_SPOOL_KILL_DIR"

// TestKill kills a child that appends, 200 times at a random moment, and holds the
// spool to its word: what Append acknowledged is there, what was read is what was
// written, and each number is a record or in a gap.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		appendForEver(dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	acked := map[schema.Class]map[uint64][]byte{}
	var seen account
	for cycle := range 200 {
		now := killOnce(t, dir, time.Duration(rng.IntN(30))*time.Millisecond)
		for c, m := range now {
			if acked[c] == nil {
				acked[c] = map[uint64][]byte{}
			}
			for seq, p := range m {
				acked[c][seq] = p
			}
		}
		cfg := small(dir)
		cfg.Log = logTo(t)
		s, err := storage.Open(cfg)
		if err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
		seen.take(t, s)
		seen.complete(t, s)
		for c, m := range now {
			for seq, want := range m {
				if got := seen.records[c][seq]; !bytes.Equal(got, want) {
					t.Fatalf("cycle %d: %s %d was acknowledged as %q and reads %q", cycle, c, seq, want, got)
				}
			}
		}
		// The fleet takes most of it; every other time the spool is left by a crash.
		for _, cur := range s.Cursors() {
			if mid := cur.Last - (cur.Last-cur.Acked)/8; mid > cur.Acked {
				if err := s.Ack(cur.Class, cur.Epoch, cur.Acked+1, mid); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked[schema.ClassAlarm]) < 200 || len(acked[schema.ClassEvent]) < 200 {
		t.Errorf("only %d alarms and %d events were appended: the test proves little", len(acked[schema.ClassAlarm]), len(acked[schema.ClassEvent]))
	}
}

// killOnce runs the child for a while after its first record, kills it and gives
// what it said was durable.
func killOnce(t *testing.T, dir string, after time.Duration) map[schema.Class]map[uint64][]byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killEnv+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := map[schema.Class]map[uint64][]byte{}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		var c schema.Class
		var seq uint64
		var p string
		if n, _ := fmt.Sscanf(sc.Text(), "ok %d %d %s .", &c, &seq, &p); n != 3 || sc.Bytes()[len(sc.Bytes())-1] != '.' {
			continue
		}
		if len(got) == 0 {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		if got[c] == nil {
			got[c] = map[uint64][]byte{}
		}
		got[c][seq] = []byte(p)
	}
	if err := cmd.Wait(); err == nil || len(got) == 0 {
		t.Fatalf("the child ended by itself (%v) after %d records", err, len(got))
	}
	return got
}

func appendForEver(dir string) {
	cfg := small(dir)
	cfg.Classes[schema.ClassMetric].Linger = time.Millisecond
	s, err := storage.Open(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	old := s.Cursors()
	go func() { _ = s.Run(context.Background()) }()
	for _, c := range schema.Classes() {
		for w := range 2 {
			go func() {
				for i := 0; ; i++ {
					p := fmt.Sprintf("%s-%d-%d-%d", c, os.Getpid(), w, i)
					seq, err := s.Append(context.Background(), c, []byte(p))
					if err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					if c != schema.ClassMetric {
						fmt.Printf("ok %d %d %s .\n", c, seq, p)
					} else {
						time.Sleep(100 * time.Microsecond)
					}
				}
			}()
		}
	}
	// Acknowledge beside it what was there at the start (the parent has read that),
	// so that kills meet cursors and unlinks too.
	for {
		for _, c := range old {
			recs, err := s.Read(c.Class, 1, 20, 1<<20)
			if err == nil && len(recs) > 0 && recs[len(recs)-1].Seq <= c.Last {
				_ = s.Ack(c.Class, c.Epoch, recs[0].Seq, recs[len(recs)-1].Seq)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func TestMetaDamage(t *testing.T) {
	t.Parallel()
	c := schema.ClassEvent
	for _, damaged := range [][]string{{"meta.a"}, {"meta.b"}, {"meta.a", "meta.b"}} {
		for _, how := range []string{"flip", "remove", "cut"} {
			t.Run(fmt.Sprint(how, damaged), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				s := open(t, small(dir))
				epoch := storagetest.Epoch(t, s, c)
				fill(t, s, c, 1, 400)
				if err := s.Ack(c, epoch, 1, 300); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				for _, name := range damaged {
					spoil(t, filepath.Join(dir, c.String(), name), how)
				}
				s = open(t, small(dir))
				defer s.Close()
				cur := storagetest.Cursor(t, s, c)
				if cur.Epoch != epoch || cur.Last < 400 {
					t.Fatalf("cursor %+v, want epoch %x and last at least 400", cur, epoch)
				}
				var a account
				a.take(t, s)
				a.complete(t, s)
				for n := uint64(301); n <= 400; n++ {
					if !bytes.Equal(a.records[c][n], storagetest.Payload(c, n)) {
						t.Fatalf("record %d is lost with the meta", n)
					}
				}
				seq, err := s.Append(t.Context(), c, []byte("next"))
				if err != nil || seq <= 400 || a.gap(c, seq) != nil {
					t.Fatalf("next number is %d, %v", seq, err)
				}
			})
		}
	}
}

func spoil(t *testing.T, path, how string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch how {
	case "flip":
		b[20] ^= 4
		err = os.WriteFile(path, b, 0o600)
	case "cut":
		err = os.WriteFile(path, b[:len(b)/2], 0o600)
	case "remove":
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// With both metas and every segment unreadable nothing is known of the numbers:
// the class begins a new epoch and still works.
func TestEverythingDamagedBeginsAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := schema.ClassMetric
	s := open(t, small(dir))
	epoch := storagetest.Epoch(t, s, c)
	fill(t, s, c, 1, 500)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(dir, c.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, c.String(), f.Name()), bytes.Repeat([]byte{0xa5}, 20000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, small(dir))
	defer s.Close()
	if e := storagetest.Epoch(t, s, c); e == epoch || e == 0 {
		t.Errorf("epoch %x after all was lost, want a new one", e)
	}
	fill(t, s, c, 1, 10)
	kept, err := os.ReadDir(filepath.Join(dir, "quarantine"))
	if err != nil || len(kept) != 2 {
		t.Errorf("%d files in quarantine, %v; want 2", len(kept), err)
	}
}

// Refuse settles a record with the sender's reason, once, and only what exists.
func TestRefuse(t *testing.T) {
	t.Parallel()
	s := open(t, small(t.TempDir()))
	for _, c := range []schema.Class{schema.ClassAlarm, schema.ClassSnapshot} { // the gaps take alarm numbers
		fill(t, s, c, 1, 5)
		epoch := storagetest.Epoch(t, s, c)
		for _, bad := range [][2]uint64{{epoch, 0}, {epoch, 99}, {epoch + 1, 3}} {
			if err := s.Refuse(c, bad[0], bad[1], schema.ReasonOversize); !errors.Is(err, storage.ErrUnknown) {
				t.Errorf("%s: refuse %d: %v, want ErrUnknown", c, bad[1], err)
			}
		}
		for range 2 {
			if err := s.Refuse(c, epoch, 3, schema.ReasonBlobGone); err != nil {
				t.Fatal(err)
			}
		}
		var a account
		a.take(t, s)
		a.complete(t, s)
		if a.records[c][3] != nil || len(a.gaps[c]) != 1 || a.lost(c, schema.ReasonBlobGone) != 1 || a.records[c][4] == nil {
			t.Errorf("%s: gaps %+v", c, a.gaps[c])
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Refuse(schema.ClassAlarm, 1, 1, schema.ReasonOversize); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

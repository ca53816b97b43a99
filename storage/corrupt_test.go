// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// TestCorruption damages a spool in 240 seeds: four of five inside a segment in five
// ways, the others by files that are not what they should be. Whatever happens,
// no wrong record is handed on, the process lives, each number is a record or in
// a gap, and the spool goes on taking records.
func TestCorruption(t *testing.T) {
	t.Parallel()
	c := schema.ClassEvent
	dir := t.TempDir()
	s := open(t, small(dir))
	fill(t, s, c, 1, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var lost, whole uint64
	for seed := range uint64(240) {
		rng := rand.New(rand.NewPCG(seed, 9))
		at := filepath.Join(t.TempDir(), "damaged")
		if err := os.CopyFS(at, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		files := segments(t, at, c)
		if len(files) < 4 {
			t.Fatalf("only %d segments: the test needs sealed ones", len(files))
		}
		var what string
		if seed%5 == 4 {
			what = misplace(t, at, c, files, rng)
		} else {
			what = damage(t, files[rng.IntN(len(files))], rng)
		}
		n := checkDamaged(t, at, c, fmt.Sprintf("seed %d (%s)", seed, what))
		if lost += n; n == 0 {
			whole++
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d records lost and told over 240 damages, %d damages cost nothing", lost, whole)
	if lost == 0 {
		t.Error("no damage was ever seen: the test damages nothing")
	}
}

// checkDamaged opens a damaged spool and gives how many records it lost.
func checkDamaged(t *testing.T, dir string, c schema.Class, what string) (lost uint64) {
	t.Helper()
	cfg := small(dir)
	cfg.Log = nil
	s, err := storage.Open(cfg)
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer s.Close()
	var a account
	for range 2 { // the second time all of it must stand as the first
		a.take(t, s)
	}
	a.complete(t, s)
	for seq, p := range a.records[c] {
		if !bytes.Equal(p, storagetest.Payload(c, seq)) {
			t.Errorf("%s: record %d is wrong and was handed on", what, seq)
		}
		if seq > 1000 {
			t.Errorf("%s: record %d was never written", what, seq)
		}
	}
	cur := storagetest.Cursor(t, s, c)
	seq, err := s.Append(t.Context(), c, []byte("goes on"))
	if err != nil || seq != cur.Last+1 {
		t.Errorf("%s: the next append got %d, %v; want %d", what, seq, err, cur.Last+1)
	}
	recs, err := s.Read(c, seq, 1, 1000)
	if err != nil || len(recs) != 1 || string(recs[0].Payload) != "goes on" {
		t.Errorf("%s: the next record does not read back: %v", what, err)
	}
	if q, _ := os.ReadDir(filepath.Join(dir, "quarantine")); len(q) > 2 {
		t.Errorf("%s: %d files in quarantine, at most 2", what, len(q))
	}
	// A newest segment that is gone cannot be told from numbers that were reserved
	// and never used.
	return a.lost(c, schema.ReasonCorrupt) + a.lost(c, schema.ReasonCrash)
}

func damage(t *testing.T, path string, rng *rand.Rand) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages := len(b) / 4096
	page := b[rng.IntN(pages)*4096:][:4096]
	var what string
	switch rng.IntN(5) {
	case 0:
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		what = fmt.Sprintf("bit at %d", at)
	case 1:
		clear(page)
		what = "zero page"
	case 2:
		for i := range page {
			page[i] = byte(rng.Uint32())
		}
		what = "garbage page"
	case 3:
		copy(page, b[rng.IntN(pages)*4096:][:4096])
		what = "page of elsewhere"
	case 4:
		b = b[:rng.IntN(len(b))]
		what = fmt.Sprintf("cut to %d", len(b))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

// misplace puts something else where a file of the spool was.
func misplace(t *testing.T, dir string, c schema.Class, files []string, rng *rand.Rand) string {
	t.Helper()
	a, b := files[rng.IntN(len(files))], files[rng.IntN(len(files))]
	metas := []string{filepath.Join(dir, c.String(), "meta.a"), filepath.Join(dir, c.String(), "meta.b")}
	var what string
	var errs []error
	switch rng.IntN(7) {
	case 0:
		what = "both metas gone"
		for _, m := range metas {
			errs = append(errs, os.WriteFile(m, []byte("no meta"), 0o600))
		}
	case 1:
		what = "two segments swapped"
		errs = append(errs, os.Rename(a, dir+"/t"), os.Rename(b, a), os.Rename(dir+"/t", b))
		if a == b {
			errs = nil
		}
	case 2:
		what = "the segment of another spool"
		otherDir := filepath.Join(t.TempDir(), "other")
		o := open(t, small(otherDir))
		fill(t, o, c, 1, 20)
		other := segments(t, otherDir, c)[0]
		errs = append(errs, o.Close(), os.Remove(a), os.Rename(other, a))
	case 3:
		what = "an empty segment"
		errs = append(errs, os.Truncate(a, 0))
	case 4:
		what = "a folder for a segment"
		errs = append(errs, os.Remove(a), os.Mkdir(a, 0o700))
	case 5:
		what = "a link for a segment"
		errs = append(errs, os.Rename(a, a+".moved"), os.Symlink(a+".moved", a))
	case 6:
		what = "foreign files"
		errs = append(errs, os.WriteFile(a+".old", []byte("x"), 0o600), os.WriteFile(dir+"/README", []byte("x"), 0o600), os.Mkdir(dir+"/"+c.String()+"/sub", 0o700))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return what
}

// A flipped bit in each byte of one frame: the record is never handed on wrong.
func TestEveryByteOfAFrame(t *testing.T) {
	t.Parallel()
	c := schema.ClassMetric
	dir := t.TempDir()
	s := open(t, small(dir))
	mark := []byte("a mark that can be found in the file")
	fill(t, s, c, 1, 5)
	if _, err := s.Append(t.Context(), c, mark); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := segments(t, dir, c)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(good, mark) - 13
	if at < 0 {
		t.Fatal("the frame is not in the file")
	}
	for i := range 13 + len(mark) {
		bad := bytes.Clone(good)
		for o := 0; ; { // older versions of the page stay in the file: spoil all
			n := bytes.Index(bad[o:], mark)
			if n < 0 {
				break
			}
			o += n + len(mark)
			bad[o-len(mark)-13+i] ^= 1 << (i % 8)
		}
		to := filepath.Join(t.TempDir(), "s")
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(segments(t, to, c)[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := small(to)
		s, err := storage.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var a account
		a.take(t, s)
		a.complete(t, s)
		if p := a.records[c][6]; p != nil || a.lost(c, schema.ReasonCorrupt) != 1 {
			t.Errorf("byte %d of the frame: record %q, gaps %+v", i, p, a.gaps[c])
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Damage under a running spool: the active segment is sealed and a new one taken,
// no Append fails for it.
func TestDamageWhileRunning(t *testing.T) {
	t.Parallel()
	c := schema.ClassEvent
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		cfg := small(dir)
		s, err := storage.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s, c, 1, 100)
		path := segments(t, dir, c)[0]
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		junk := make([]byte, 4096)
		for page := int64(2); page < fi.Size()/4096; page++ {
			if rng.IntN(2) == 0 {
				for i := range junk {
					junk[i] = byte(rng.Uint32())
				}
				if _, err := f.WriteAt(junk, page*4096); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.Close()
		fill(t, s, c, 101, 200)
		var a account
		a.take(t, s)
		a.complete(t, s)
		for seq, p := range a.records[c] {
			if !bytes.Equal(p, storagetest.Payload(c, seq)) {
				t.Errorf("seed %d: record %d is wrong", seed, seq)
			}
		}
		for n := uint64(101); n <= 200; n++ {
			if a.records[c][n] == nil {
				t.Errorf("seed %d: record %d, appended after the damage, is lost", seed, n)
				break
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A segment that someone removed, or that is of another spool, is a gap.
func TestMissingAndForeignSegments(t *testing.T) {
	t.Parallel()
	c := schema.ClassSnapshot
	for _, how := range []string{"first removed", "middle removed", "last removed", "middle swapped", "all removed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, small(dir))
			fill(t, s, c, 1, 1000)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			files := segments(t, dir, c)
			var err error
			switch how {
			case "first removed":
				err = os.Remove(files[0])
			case "middle removed":
				err = os.Remove(files[2])
			case "last removed":
				err = os.Remove(files[len(files)-1])
			case "middle swapped":
				var b []byte
				if b, err = os.ReadFile(files[1]); err == nil {
					err = os.WriteFile(files[2], b, 0o600)
				}
			case "all removed":
				for _, f := range files {
					if err = os.Remove(f); err != nil {
						break
					}
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := checkDamaged(t, dir, c, how); n == 0 {
				t.Error("nothing was told as lost")
			}
		})
	}
}

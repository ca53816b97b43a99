// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
	"fulmar/storage/internal/ranges"
)

// stopped copies the folder of a spool as a power loss now would leave it.
func stopped(t *testing.T, dir string) string {
	t.Helper()
	after := t.TempDir()
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return after
}

// begin makes the file of the next segment, and not the meta that tells of it.
func begin(t *testing.T, c *Class) {
	t.Helper()
	if err := c.files.Roll(c.book.Next); err != nil {
		t.Fatal(err)
	}
}

// told reads the class to its end, then the alarms, and gives the reason of each
// number that is in a gap. It fails where a number has two.
func told(t *testing.T, s *Shared, class schema.Class) map[uint64]schema.Reason {
	t.Helper()
	if _, err := s.classes[class].Read(1, 10000, 1<<20); err != nil {
		t.Fatal(err)
	}
	recs, err := s.classes[schema.ClassAlarm].Read(1, 10000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	why := map[uint64]schema.Reason{}
	for _, r := range recs {
		rec, err := schema.DecodeRecord(r.Payload)
		if err != nil || rec.Gap == nil || rec.Gap.Class != class {
			continue
		}
		for n := rec.Gap.First; n <= rec.Gap.Last; n++ {
			if other, twice := why[n]; twice && other != rec.Gap.Reason {
				t.Errorf("%s %d was told as %s and as %s", class, n, other, rec.Gap.Reason)
			}
			why[n] = rec.Gap.Reason
		}
	}
	return why
}

// wantCrash checks that just the numbers of r are told, each as lost in a crash.
func wantCrash(t *testing.T, why map[uint64]schema.Reason, r ranges.Range) {
	t.Helper()
	for n := r.First; n <= r.Last; n++ {
		if why[n] != schema.ReasonCrash {
			t.Fatalf("%d is told as %q, want crash", n, why[n])
		}
	}
	if uint64(len(why)) != r.Len() {
		t.Errorf("%d numbers are told, want %d to %d", len(why), r.First, r.Last)
	}
}

// fromMemory gives a spool of 5 metrics on disk and 5 that were taken from memory and
// never written, and its folder. Nothing on disk tells of the latter.
func fromMemory(t *testing.T) (*Class, string) {
	t.Helper()
	dir := t.TempDir()
	s := loaded(t, dir, [schema.NumClasses]Config{})
	s.Online.Store(true)
	c := s.classes[schema.ClassMetric]
	for n := range 10 {
		if _, err := c.Append(t.Context(), record()); err != nil {
			t.Fatal(err)
		}
		if n == 4 {
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Ack(c.book.Epoch, 6, 10); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

// TestPowerLossAfterAFileWasBegun: the file is on disk before the meta that tells of
// it and of what was settled below it, so it proves nothing of the numbers below.
func TestPowerLossAfterAFileWasBegun(t *testing.T) {
	t.Parallel()
	c, dir := fromMemory(t)
	begin(t, c)
	last := c.book.Reserved
	s := loaded(t, stopped(t, dir), [schema.NumClasses]Config{})
	wantCrash(t, told(t, s, schema.ClassMetric), ranges.Range{First: 6, Last: last})
	c = s.classes[schema.ClassMetric]
	if seq, err := c.Append(t.Context(), record()); err != nil || seq != last+1 {
		t.Errorf("the next record has number %d, %v; want %d", seq, err, last+1)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if recs, err := c.Read(1, 100, 1<<20); err != nil || len(recs) != 6 {
		t.Errorf("%d records, %v; want 6", len(recs), err)
	}
	wantCrash(t, told(t, s, schema.ClassMetric), ranges.Range{First: 6, Last: last})
}

// TestPowerLossBeforeItsGap: the start after it reserves numbers before it writes the
// gap, and its meta names the file that was begun. A loss then must change nothing.
func TestPowerLossBeforeItsGap(t *testing.T) {
	t.Parallel()
	c, dir := fromMemory(t)
	begin(t, c)
	dir = stopped(t, dir)
	c = made(t, dir, [schema.NumClasses]Config{}).classes[schema.ClassMetric]
	if err := c.Load(); err != nil {
		t.Fatal(err)
	}
	if err := c.reserve(c.book.Next - 1); err != nil {
		t.Fatal(err)
	}
	last := c.book.Reserved
	wantCrash(t, told(t, loaded(t, stopped(t, dir), [schema.NumClasses]Config{}), schema.ClassMetric), ranges.Range{First: 6, Last: last})
}

// TestPowerLossBeforeTheGapOfAlarms: after a torn meta the alarms go on behind all that
// was reserved, in a file that is begun before the gap that tells of it.
func TestPowerLossBeforeTheGapOfAlarms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := loaded(t, dir, [schema.NumClasses]Config{}).classes[schema.ClassAlarm]
	for range 5 {
		if _, err := c.Append(t.Context(), record()); err != nil {
			t.Fatal(err)
		}
	}
	dir = stopped(t, dir)
	if err := os.Truncate(filepath.Join(dir, "alarm", "meta.a"), 100); err != nil {
		t.Fatal(err)
	}
	c = made(t, dir, [schema.NumClasses]Config{}).classes[schema.ClassAlarm]
	if err := c.Load(); err != nil {
		t.Fatal(err)
	}
	begin(t, c)
	last := c.book.Next - 1
	wantCrash(t, told(t, loaded(t, stopped(t, dir), [schema.NumClasses]Config{}), schema.ClassAlarm), ranges.Range{First: 6, Last: last})
}

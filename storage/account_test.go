// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// account is what the fleet would know: which numbers came as records, with what
// payload, and which inside gaps.
type account struct {
	records map[schema.Class]map[uint64][]byte
	gaps    map[schema.Class][]schema.Gap
}

// take drains the spool into the account, alarms last since reading the others
// may write gaps. It acknowledges nothing.
func (a *account) take(t *testing.T, s storagetest.Spool) {
	t.Helper()
	if a.records == nil {
		a.records, a.gaps = map[schema.Class]map[uint64][]byte{}, map[schema.Class][]schema.Gap{}
	}
	for _, c := range []schema.Class{schema.ClassEvent, schema.ClassMetric, schema.ClassSnapshot, schema.ClassAlarm} {
		if a.records[c] == nil {
			a.records[c] = map[uint64][]byte{}
		}
		for _, r := range storagetest.Drain(t, s, c) {
			a.records[c][r.Seq] = r.Payload
			if c != schema.ClassAlarm {
				continue
			}
			if rec, err := schema.DecodeRecord(r.Payload); err == nil && rec.Gap != nil {
				a.gaps[rec.Gap.Class] = append(a.gaps[rec.Gap.Class], *rec.Gap)
			}
		}
	}
}

func (a *account) gap(c schema.Class, seq uint64) *schema.Gap {
	for i, g := range a.gaps[c] {
		if seq >= g.First && seq <= g.Last {
			return &a.gaps[c][i]
		}
	}
	return nil
}

// complete checks that each number of a class is a record or in a gap.
func (a *account) complete(t *testing.T, s storagetest.Spool) {
	t.Helper()
	for _, cur := range s.Cursors() {
		for seq := cur.Acked + 1; seq <= cur.Last; seq++ {
			if a.records[cur.Class][seq] == nil && a.gap(cur.Class, seq) == nil {
				t.Errorf("%s: number %d of %d is neither a record nor in a gap", cur.Class, seq, cur.Last)
				return
			}
		}
		for _, g := range a.gaps[cur.Class] {
			if g.Epoch != cur.Epoch {
				t.Errorf("%s: gap %+v of another epoch than %x", cur.Class, g, cur.Epoch)
			}
		}
	}
}

// lost counts the numbers of a class in gaps of a reason.
func (a *account) lost(c schema.Class, why schema.Reason) (n uint64) {
	for _, g := range a.gaps[c] {
		if g.Reason == why {
			n += g.Last - g.First + 1
		}
	}
	return n
}

func fill(t *testing.T, s *storage.Spool, c schema.Class, first, last uint64) {
	t.Helper()
	for n := first; n <= last; n++ {
		if seq, err := s.Append(t.Context(), c, storagetest.Payload(c, n)); err != nil || seq != n {
			t.Fatalf("append %d to %s: number %d, %v", n, c, seq, err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// snapshot copies a spool's folder as it is at this moment, as a crash would
// leave it to the next start (the page cache survives a killed process).
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "crashed")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// segments are the segment files of a class, oldest first.
func segments(t *testing.T, dir string, c schema.Class) []string {
	t.Helper()
	files, err := fs.Glob(os.DirFS(filepath.Join(dir, c.String())), "*.db")
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Join(dir, c.String(), files[i])
	}
	return files
}

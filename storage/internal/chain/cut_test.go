// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/segment"
)

// made gives the classes of a folder, not yet loaded.
func made(t *testing.T, dir string, cfg [schema.NumClasses]Config) *Shared {
	t.Helper()
	s := &Shared{Dir: dir, Clock: schema.NewClock(7, time.Hour), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), NoSync: true, Wake: make(chan struct{}, 1)}
	s.Balloon.Path = filepath.Join(dir, "balloon")
	classes, err := New(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range classes {
		t.Cleanup(c.Release)
	}
	return s
}

// loaded gives the classes of a folder, ready for use.
func loaded(t *testing.T, dir string, cfg [schema.NumClasses]Config) *Shared {
	t.Helper()
	s := made(t, dir, cfg)
	for _, c := range s.classes {
		if err := c.Load(); err != nil {
			t.Fatal(err)
		}
		if err := c.Settle(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestFailedCommitThatReachedTheDisk: its records went another way when it failed, so
// the next start must not give them once more.
func TestFailedCommitThatReachedTheDisk(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Class) error{"closed": (*Class).Close, "tried again": (*Class).Retry} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := loaded(t, dir, [schema.NumClasses]Config{})
			c := s.classes[schema.ClassEvent]
			for range 3 {
				if _, err := c.Append(t.Context(), record()); err != nil {
					t.Fatal(err)
				}
			}
			// What an EIO of the last fsync leaves: the record is there, the writer fails,
			// and so does the disk.
			if err := c.files.Append([]segment.Record{{Seq: 4, Payload: record()}}); err != nil {
				t.Fatal(err)
			}
			if err := c.files.Writer().Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(c.dir, c.dir+".gone"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Append(t.Context(), record()); err == nil {
				t.Fatal("the commit did not fail")
			}
			if err := os.Rename(c.dir+".gone", c.dir); err != nil {
				t.Fatal(err)
			}
			if err := end(c); err != nil {
				t.Fatal(err)
			}
			after := t.TempDir() // as a crash leaves it
			if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			c = loaded(t, after, [schema.NumClasses]Config{}).classes[schema.ClassEvent]
			recs, err := c.Read(1, 10, 1<<20)
			if err != nil || len(recs) != 3 {
				t.Errorf("%d records after a restart, %v; want 3", len(recs), err)
			}
			if seq, err := c.Append(t.Context(), record()); err != nil || seq != 4 {
				t.Errorf("the next record has number %d, %v; want 4", seq, err)
			}
			if recs, err = c.Read(1, 10, 1<<20); err != nil || len(recs) != 4 {
				t.Errorf("%d records with it, %v; want 4", len(recs), err)
			}
		})
	}
}

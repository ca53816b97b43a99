// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"testing"

	"fulmar/schema"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range schema.Classes() {
		for i := range 10 {
			if seq, err := s.Append(context.Background(), c, []byte("hello")); err != nil || seq != uint64(i+1) {
				t.Fatal(seq, err)
			}
		}
	}
	s.Flush()
	for _, c := range s.Cursors() {
		r, err := s.Read(c.Class, 0, 100, 1<<20)
		if err != nil || len(r) != 10 {
			t.Fatal(len(r), err)
		}
		if err := s.Ack(c.Class, c.Epoch, 3, 5); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Cursors() {
		r, err := s.Read(c.Class, 0, 100, 1<<20)
		if err != nil || len(r) != 7 {
			t.Fatal(c, len(r), err)
		}
	}
	t.Logf("%+v", s.Stats())
	s.Close()
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/ota/slot"
)

// TestFiles: the report has the hashes of what lies there now, also where somebody changed a
// file and gave it back its time and its size.
func TestFiles(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	s, stop := b.service(t)
	ready(t, s)
	defer stop()
	key := "worker/" + slot.Worker
	want := sha256.Sum256([]byte(elf("infer 1.0")))
	got := s.Proof().Files
	if len(got) != 1 || !bytes.Equal(got[key], want[:]) {
		t.Fatalf("%x", got)
	}
	path := filepath.Join(b.slots, "slots", b.token, slot.Worker)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the kernel's clock for files has ticks
	bad := []byte(elf("infer 1.1"))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(bad, 0)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Chtimes(path, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
	want = sha256.Sum256(bad)
	if got := s.Proof().Files[key]; !bytes.Equal(got, want[:]) {
		t.Errorf("after a change: %x", got)
	}
	if n := len(s.parts.sums.known); n != 1 {
		t.Errorf("%d sums are kept", n)
	}
}

// BenchmarkFiles is what a report costs when nothing has changed.
func BenchmarkFiles(b *testing.B) {
	var s sums
	path := filepath.Join(b.TempDir(), "fulmar-infer")
	if err := os.WriteFile(path, make([]byte, 20<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.begin()
		if s.of(path) == nil {
			b.Fatal("no sum")
		}
		s.end()
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package crash_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"fulmar/internal/disk"
	"fulmar/internal/disk/crash"
)

// TestInPlace: a file that was being changed in place is a mix of whole sectors, and after a
// sync it is as it was written.
func TestInPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rec := &crash.Recorder{T: t, Root: dir}
	path := filepath.Join(dir, "record")
	old, fresh := bytes.Repeat([]byte{1}, 2048), bytes.Repeat([]byte{2}, 2048)
	if err := disk.Put(rec, path, 0o600, old); err != nil {
		t.Fatal(err)
	}
	if err := rec.SyncDir(dir); err != nil {
		t.Fatal(err)
	}
	f, err := rec.Open(path)
	if err == nil {
		_, err = f.WriteAt(fresh, 0)
	}
	torn := len(rec.Log)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	mixed := 0
	for range 50 {
		at := filepath.Join(t.TempDir(), "disk")
		crash.Picture(crash.Empty(), rec.Log[:torn]).Crash(t, at, r, 0.5)
		b, err := os.ReadFile(filepath.Join(at, "record"))
		if err != nil || len(b) != 2048 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		for s := 0; s < len(b); s += 512 {
			if part := b[s : s+512]; !bytes.Equal(part, old[:512]) && !bytes.Equal(part, fresh[:512]) {
				t.Fatal("half a sector")
			}
		}
		if !bytes.Equal(b, old) && !bytes.Equal(b, fresh) {
			mixed++
		}
	}
	if mixed < 10 {
		t.Errorf("%d of 50 were torn", mixed)
	}
	at := filepath.Join(t.TempDir(), "disk")
	crash.Picture(crash.Empty(), rec.Log).Crash(t, at, r, 0)
	if b, err := os.ReadFile(filepath.Join(at, "record")); err != nil || !bytes.Equal(b, fresh) {
		t.Errorf("what was synced is lost: %v", err)
	}
}

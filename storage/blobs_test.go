// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/storage"
)

func blobs(t *testing.T, dir string, quota int64) *storage.Blobs {
	t.Helper()
	b, err := storage.OpenBlobs(dir, quota)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "blobs")
	b := blobs(t, dir, 1<<20)
	data := bytes.Repeat([]byte("jpeg"), 5000)
	sum, err := b.Put("cam0-1.jpg", data)
	if err != nil || sum != sha256.Sum256(data) {
		t.Fatalf("%x, %v", sum, err)
	}
	other := blobs(t, dir, 1<<20) // the other process
	f, err := other.Open("cam0-1.jpg")
	if err != nil || f.Size() != int64(len(data)) {
		t.Fatal(err)
	}
	if err := b.Remove("cam0-1.jpg"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("an opened blob does not read after its removal: %v", err)
	}
	f.Close()
	if _, err := other.Open("cam0-1.jpg"); !errors.Is(err, storage.ErrBlobGone) {
		t.Errorf("%v, want ErrBlobGone", err)
	}
	if err := other.Remove("cam0-1.jpg"); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	if n := other.Bytes(); n != 0 {
		t.Errorf("%d bytes left", n)
	}
}

func TestBlobNamesAndSizes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := blobs(t, filepath.Join(dir, "blobs"), 1000)
	for _, name := range []string{"", ".", "..", "../up", "a/b", ".put-1", "UPPER", "a\x00b"} {
		if _, err := b.Put(name, []byte("x")); err == nil {
			t.Errorf("Put %q", name)
		}
		if _, err := b.Open(name); err == nil || errors.Is(err, storage.ErrBlobGone) {
			t.Errorf("Open %q: %v", name, err)
		}
		if err := b.Remove(name); err == nil {
			t.Errorf("Remove %q", name)
		}
	}
	for _, n := range []int{0, 1001} {
		if _, err := b.Put("a", make([]byte, n)); err == nil {
			t.Errorf("a blob of %d bytes was taken", n)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "blobs", "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open("link"); err == nil {
		t.Error("a link was followed")
	}
	if _, err := storage.OpenBlobs(dir, 0); err == nil {
		t.Error("no quota was accepted")
	}
}

func TestBlobQuotaEvictsOldest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".put-stale"), make([]byte, 500), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".put-stale"), old, old); err != nil {
		t.Fatal(err)
	}
	b := blobs(t, dir, 10_000)
	for i := range 30 {
		if _, err := b.Put(fmt.Sprintf("b%02d", i), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		at := old.Add(time.Duration(i) * time.Second) // the clock may be coarser than the loop
		if err := os.Chtimes(filepath.Join(dir, fmt.Sprintf("b%02d", i)), at, at); err != nil {
			t.Fatal(err)
		}
		if n := b.Bytes(); n > 10_000 {
			t.Fatalf("%d bytes, the quota is 10000", n)
		}
	}
	if n := b.Evicted(); n != 20 {
		t.Errorf("%d evicted, want 20", n)
	}
	for i := range 30 {
		f, err := b.Open(fmt.Sprintf("b%02d", i))
		if gone := errors.Is(err, storage.ErrBlobGone); gone != (i < 20) {
			t.Errorf("blob %d: gone %v, %v", i, gone, err)
		}
		if err == nil {
			f.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".put-stale")); !os.IsNotExist(err) {
		t.Error("what a crash left of a Put is still there")
	}
}

func TestBlobsOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := mount(t, "tmpfs", "tmpfs", "size=1m")
	b := blobs(t, filepath.Join(dir, "blobs"), 10<<20) // the quota promises more than the disk has
	for i := range 50 {
		if _, err := b.Put(fmt.Sprintf("b%02d", i), make([]byte, 100<<10)); err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
	}
	if b.Evicted() == 0 || b.Bytes() > 1<<20 {
		t.Errorf("%d evicted, %d bytes", b.Evicted(), b.Bytes())
	}
	if _, err := b.Put("huge", make([]byte, 2<<20)); err == nil {
		t.Error("a blob larger than the disk was taken")
	}
	if ents, err := os.ReadDir(filepath.Join(dir, "blobs")); err != nil || len(ents) > 10 {
		t.Errorf("%d files left, %v", len(ents), err)
	}
}

// Two processes at once: one puts and evicts, one opens, reads and removes.
func TestBlobsShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := blobs(t, dir, 50_000), blobs(t, dir, 50_000)
	names := make(chan string, 80)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(names)
		for i := range cap(names) {
			name := fmt.Sprintf("b%d", i)
			if _, err := a.Put(name, bytes.Repeat([]byte{byte(i)}, 1000+i)); err != nil {
				t.Error(err)
			}
			names <- name
		}
	})
	wg.Go(func() {
		for name := range names {
			f, err := b.Open(name)
			if errors.Is(err, storage.ErrBlobGone) {
				continue
			} else if err != nil {
				t.Error(err)
				continue
			}
			got, err := io.ReadAll(f)
			if err != nil || int64(len(got)) != f.Size() || bytes.Count(got, got[:1]) != len(got) {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), f.Size(), err)
			}
			f.Close()
			if err := b.Remove(name); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

// TestBlobsOfALyingClock: the newest pictures stay, whatever the clock did: while the
// process ran, or over a restart with a clock that stands behind. The old files are
// as an older release left them, dated by a clock of 50 years on.
func TestBlobsOfALyingClock(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"running": false, "restart": true} {
		dir := t.TempDir()
		b := blobs(t, dir, 10_000)
		ahead := time.Now().AddDate(50, 0, 0)
		for i := range 10 {
			old := fmt.Sprintf("old%d.jpg", i)
			if _, err := b.Put(old, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			at := ahead.Add(time.Duration(i) * time.Second)
			if err := os.Chtimes(filepath.Join(dir, old), at, at); err != nil {
				t.Fatal(err)
			}
		}
		stale := filepath.Join(dir, ".put-stale")
		if err := errors.Join(os.WriteFile(stale, []byte("x"), 0o600), os.Chtimes(stale, ahead, ahead)); err != nil {
			t.Fatal(err)
		}
		if restart {
			b = blobs(t, dir, 10_000)
			if _, err := os.Stat(stale); !os.IsNotExist(err) {
				t.Error("what a crash left of a Put while the clock stood ahead is still there")
			}
		}
		reader := blobs(t, dir, 10_000) // the other process
		for i := range 15 {
			// Falling names: where times were equal, names would decide wrongly.
			if _, err := b.Put(fmt.Sprintf("new%02d.jpg", 20-i), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			for k := 0; k <= i; k++ {
				f, err := reader.Open(fmt.Sprintf("new%02d.jpg", 20-k))
				if want := k > i-9; want && err != nil {
					t.Errorf("%s: after %d new ones the one put at %d is gone: %v", name, i+1, k, err)
				}
				if err == nil {
					f.Close()
				}
			}
		}
		if ents, err := filepath.Glob(filepath.Join(dir, "old*")); err != nil || len(ents) > 0 {
			t.Errorf("%s: of 15 new pictures in room for 10 the old ones %v are left, %v", name, ents, err)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package memdisk_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"fulmar/tests/powerloss/memdisk"
)

// Images and their clones behave like plain slices that are copied.
func TestImageClones(t *testing.T) {
	t.Parallel()
	const size = 40960
	rng := rand.New(rand.NewPCG(1, 1))
	imgs, want := []*memdisk.Image{memdisk.NewImage(size)}, [][]byte{make([]byte, size)}
	for range 2000 {
		i := rng.IntN(len(imgs))
		if rng.IntN(20) == 0 && len(imgs) < 20 {
			imgs, want = append(imgs, imgs[i].Clone()), append(want, bytes.Clone(want[i]))
			continue
		}
		b := make([]byte, 1+rng.IntN(9000))
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		off := rng.IntN(size)
		if n := imgs[i].WriteAt(b, int64(off)); n != copy(want[i][off:], b) {
			t.Fatalf("%d bytes of %d written at %d", n, len(b), off)
		}
	}
	for i, img := range imgs {
		got := make([]byte, size)
		if n := img.ReadAt(got, 0); n != size || !bytes.Equal(got, want[i]) {
			t.Fatalf("image %d differs from its slice", i)
		}
	}
}

// What was flushed is always there, what was not is sometimes there, sometimes
// not and sometimes torn, and what came later is never there.
func TestReplay(t *testing.T) {
	t.Parallel()
	write := func(at int64, c byte) memdisk.Op {
		return memdisk.Op{Off: at*4096 + 4096, Data: bytes.Repeat([]byte{c}, 4096)}
	}
	log := []memdisk.Op{write(0, 'a'), write(1, 'b'), {Note: "x"}, {Flush: true}, write(1, 'c'), write(2, 'd'), {Flush: true}, write(3, 'e')}
	seen := map[string]int{}
	for seed := range uint64(200) {
		img := memdisk.NewReplay(memdisk.NewImage(20480), log).At(6, rand.New(rand.NewPCG(seed, 1)))
		var b [16384]byte
		img.ReadAt(b[:], 4096)
		if b[0] != 'a' || b[4095] != 'a' || b[4096] != 'b' && b[4096] != 'c' || b[12288] != 0 {
			t.Fatalf("seed %d: %c %c %c", seed, b[0], b[4096], b[12288])
		}
		switch n := bytes.Count(b[8192:12288], []byte("d")); {
		case n == 0:
			seen["lost"]++
		case n == 4096:
			seen["whole"]++
		case n%512 == 0:
			seen["torn"]++
		default:
			t.Fatalf("seed %d: torn inside a sector", seed)
		}
	}
	if len(seen) != 3 {
		t.Errorf("seen only %v", seen)
	}
}

// Disks that are added side by side each have their own notes: were two of them one
// file, the notes of the one would stand in the log of the other.
func TestAddSideBySide(t *testing.T) {
	t.Parallel()
	s := served(t, t.TempDir())
	const disks = 500
	all := make([]*memdisk.Disk, disks)
	var wg sync.WaitGroup
	for n := range all {
		wg.Go(func() {
			all[n] = s.Add(strconv.Itoa(n), memdisk.NewImage(4096))
			all[n].Record()
		})
	}
	wg.Wait()
	for n, d := range all {
		if err := os.WriteFile(d.Path()+".notes", []byte(strconv.Itoa(n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n, d := range all {
		log, _ := d.Log()
		if len(log) != 1 || log[0].Note != strconv.Itoa(n) {
			t.Errorf("disk %d has the notes %v", n, log)
		}
	}
}

// served gives a server of disks at dir, where this machine can have one.
func served(t *testing.T, dir string) *memdisk.Server {
	t.Helper()
	if missing := memdisk.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	s, err := memdisk.Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A file system on a disk: what was synced is in the log before the flush, a
// failing disk fails, and another content can be put in.
func TestDisk(t *testing.T) {
	t.Parallel()
	dir, mnt := t.TempDir(), t.TempDir()
	d := served(t, dir).Add("disk", memdisk.NewImage(16<<20))
	if err := d.Format(); err != nil {
		t.Fatal(err)
	}
	empty := d.Image()
	if err := d.Mount(mnt, ""); err != nil {
		t.Fatal(err)
	}
	defer memdisk.Discard(mnt)
	d.Record()
	mark := bytes.Repeat([]byte("a mark to be found"), 300)
	f, err := os.Create(filepath.Join(mnt, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(mark); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path()+".notes", []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, _ := d.Log()
	wrote, flushed, notes := -1, -1, []string{}
	for i, op := range log {
		switch {
		case bytes.Contains(op.Data, mark[:100]):
			wrote = i
		case op.Flush:
			flushed = i
		case op.Note != "":
			notes = append(notes, op.Note)
		}
	}
	if wrote < 0 || flushed < wrote || len(notes) != 2 || log[len(log)-1].Note != "two" {
		t.Errorf("write at %d, flush at %d, notes %q in a log of %d", wrote, flushed, notes, len(log))
	}
	d.Fail(0, syscall.EIO)
	if _, err := f.Write(mark); err == nil && f.Sync() == nil {
		t.Error("a dead disk took a write")
	}
	d.Fail(0, 0)
	f.Close()
	if err := memdisk.Unmount(mnt); err != nil {
		t.Fatal(err)
	}
	d.Insert(empty)
	if err := d.Mount(mnt, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(mnt, "f")); !os.IsNotExist(err) {
		t.Errorf("the new content is not seen: %v", err)
	}
	if err := memdisk.Unmount(mnt); err != nil {
		t.Fatal(err)
	}
}

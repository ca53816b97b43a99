// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fulmar/internal/disk"
)

// small mounts a file system of so many bytes in memory.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0755"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// bulk writes a program of so many bytes.
func bulk(t *testing.T, mib int) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), Agent)
	if err := os.WriteFile(path, []byte(strings.Repeat("x", mib<<20)), 0o755); err != nil {
		t.Fatal(err)
	}
	return map[string]string{Agent: path}
}

func TestNoSpace(t *testing.T) {
	t.Parallel()
	s := Open(small(t, "8m"))
	one, err := s.Write("1.0", FromDeb, bulk(t, 2))
	if err == nil {
		_, err = s.Switch(one.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Write("2.0", FromDeb, bulk(t, 3)) // 2 are used, 4 are kept free, so 1 MiB and a little is missing
	var no *NoSpaceError
	if !errors.As(err, &no) || no.Missing < 1<<20 || no.Missing > 1<<20+64<<10 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(err.Error(), "KiB more are needed") {
		t.Errorf("%v does not say what to do", err)
	}
	onlyWhole(t, s, one.ID)
}

// onlyWhole: this slot is the current one, and nothing else lies in the folder.
func onlyWhole(t *testing.T, s *Store, id string) {
	t.Helper()
	wantState(t, s, id, true, 0)
	if err := s.Verify(id); err != nil {
		t.Error(err)
	}
	ents, err := os.ReadDir(filepath.Join(s.dir, slotsDir))
	if err != nil || len(ents) != 1 {
		t.Errorf("left behind: %v, %v", ents, err)
	}
}

// fillsUp is a disk on which somebody else takes the space while a slot is written:
// after so many files and bytes there is none.
type fillsUp struct {
	disk.OS
	bytes int
}

type fillingFile struct {
	disk.File
	d *fillsUp
}

func (d *fillsUp) Create(path string, mode fs.FileMode) (disk.File, error) {
	f, err := d.OS.Create(path, mode)
	if err != nil {
		return nil, err
	}
	return &fillingFile{f, d}, nil
}

func (f *fillingFile) Write(b []byte) (int, error) {
	n := min(len(b), f.d.bytes)
	f.d.bytes -= n
	if n, err := f.File.Write(b[:n]); n < len(b) || err != nil {
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return n, nil
}

// TestFillsUp: whatever byte the space ends at, the old slot stays and nothing is left.
func TestFillsUp(t *testing.T) {
	t.Parallel()
	files := packageOf(t, t.TempDir(), "2.0")
	for room := 0; ; room += 53 {
		s := Open(memory(t))
		one := add(t, s, "1.0", FromDeb)
		s.disk = &fillsUp{bytes: room}
		_, err := s.Seed(files)
		s.disk = disk.OS{}
		st, _, serr := s.State()
		if serr != nil || s.Verify(st.Current) != nil || s.link() != st.Current {
			t.Fatalf("room for %d bytes: %+v, %v", room, st, serr)
		}
		if err == nil {
			if !strings.HasPrefix(st.Current, "2.0-") || room < 300 {
				t.Errorf("room for %d bytes: done, and %s runs", room, st.Current)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
		if st.Current != one {
			t.Errorf("room for %d bytes: %s runs after %v", room, st.Current, err)
		}
		if _, err := os.Stat(filepath.Join(s.dir, slotsDir, newDir)); err == nil {
			t.Errorf("room for %d bytes: half a slot is left", room)
		}
	}
}

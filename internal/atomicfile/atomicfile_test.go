// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package atomicfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"fulmar/internal/atomicfile"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	for _, want := range [][]byte{[]byte("first, and longer than the second"), []byte("second"), {}} {
		if err := atomicfile.WriteFile(path, want, 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != 0o640 {
			t.Fatalf("mode %v, %v; want 0640", fi.Mode(), err)
		}
	}
	wantOnly(t, filepath.Dir(path), "state")
}

func TestWriteFileFailureKeepsOldAndLeavesNoRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A folder that is not empty cannot be replaced by a rename.
	path := filepath.Join(dir, "state")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Fatal("a folder was replaced")
	}
	wantOnly(t, dir, "state")
	if err := atomicfile.WriteFile(filepath.Join(dir, "no", "such"), []byte("x"), 0o600); err == nil {
		t.Fatal("wrote into a folder that is not there")
	}
}

// Readers that open the file at any moment see one of the contents whole.
func TestReadersSeeOneContentWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	a, b := bytes.Repeat([]byte("a"), 64<<10), bytes.Repeat([]byte("b"), 32<<10)
	if err := atomicfile.WriteFile(path, a, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, a) && !bytes.Equal(got, b) {
				t.Errorf("a reader saw %d bytes, %v: neither the old nor the new content", len(got), err)
				return
			}
		}
	})
	for i := range 50 {
		if err := atomicfile.WriteFile(path, [][]byte{b, a}[i%2], 0o600); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func wantOnly(t *testing.T, dir, name string) {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		if e.Name() != name {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

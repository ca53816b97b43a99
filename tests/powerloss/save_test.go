// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/tests/powerloss/memdisk"
)

// saved is a point in a file, its disk beside it.
type saved struct {
	Profile string
	N       int
	At      int
	Again   bool
	Seed    uint64
	Notes   []string
}

// save keeps a point where results are kept, and gives the words that repeat it.
func (pt *point) save(t *testing.T) string {
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if dir == "" {
		return "set FULMAR_ARTIFACTS to a folder to keep such a disk"
	}
	path := filepath.Join(dir, fmt.Sprintf("powerloss-%s-%d.json", pt.p.name, pt.n))
	b, err := json.Marshal(saved{pt.p.name, pt.n, pt.at, pt.again, pt.seed, pt.notes})
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	var img *os.File
	if err == nil {
		img, err = os.Create(path + ".img")
	}
	if err != nil {
		t.Error(err)
		return ""
	}
	defer img.Close()
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < pt.img.Size(); off += int64(len(buf)) {
		n := pt.img.ReadAt(buf, off)
		if string(buf[:n]) == string(zero[:n]) {
			continue // sparse
		}
		if _, err := img.WriteAt(buf[:n], off); err != nil {
			t.Error(err)
			return ""
		}
	}
	return pointEnv + "=" + path + " repeats it"
}

// TestPoint looks again at a point that was kept.
func TestPoint(t *testing.T) {
	path := os.Getenv(pointEnv)
	if path == "" {
		t.Skip(pointEnv + " names no point to look at again")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var k saved
	if err := json.Unmarshal(b, &k); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(path + ".img")
	if err != nil {
		t.Fatal(err)
	}
	pt := &point{n: k.N, p: profileNamed(k.Profile), at: k.At, img: memdisk.NewImage(diskBytes), notes: k.Notes, again: k.Again, seed: k.Seed}
	pt.img.WriteAt(disk, 0)
	if pt.facts, err = gather(k.Notes); err != nil {
		t.Fatal(err)
	}
	l := newSite(t).lane(t, 0)
	defer l.stop()
	if wrong := l.point(pt); len(wrong) > 0 {
		t.Errorf("%s, %s:\n\t%s", pt, pt.facts, strings.Join(wrong, "\n\t"))
	}
}

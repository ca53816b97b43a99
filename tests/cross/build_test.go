// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cross

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSameBytes builds from two folders whose names differ in length, one with a space,
// by users whose settings differ, and compares what comes out, byte by byte.
//
// By itself it takes the static programs and the shared cache of the compiler (seconds,
// once make arm64 has filled it). With FULMAR_SAME_BYTES=all (make test-cross) it takes
// all that make cross makes for arm64; C code is compiled anew for each folder, since
// the cache knows it by the paths in its command. With FULMAR_SAME_BYTES=cold the second
// folder starts from an empty cache besides: four minutes of a processor.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	how := os.Getenv("FULMAR_SAME_BYTES")
	full := how == "all" || how == "cold"
	args := []string{"-static", "out/cross", "arm64"}
	if full {
		args = args[1:]
	}
	here := filepath.Join(t.TempDir(), "a")
	there := filepath.Join(t.TempDir(), "another place")
	files, err := sh(t, top, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		t.Fatalf("git ls-files: %v\n%s", err, files)
	}
	cache, err := filepath.Abs(filepath.Join(top, ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	var tracked []string
	for _, f := range strings.Split(strings.TrimSuffix(files, "\x00"), "\x00") {
		// A file that is removed but not yet committed is still listed.
		if info, err := os.Stat(filepath.Join(top, f)); err == nil && info.Mode().IsRegular() {
			tracked = append(tracked, f)
		}
	}
	for _, dir := range []string{here, there} {
		copyTo(t, dir, tracked...)
		if err := os.Symlink(cache, filepath.Join(dir, ".cache")); err != nil {
			t.Fatal(err)
		}
	}
	release := "RELEASE=1.2.3~rc1"
	if out, err := sh(t, here, []string{release}, "cross/build", args...); err != nil {
		t.Fatalf("cross/build in %s: %v\n%s", here, err, out)
	}
	env := []string{release, "GOFLAGS=-buildvcs=true -tags=x", "GOARM64=v8.2", "CGO_CFLAGS=-g -O0", "LC_ALL=C.UTF-8", "TZ=Asia/Tokyo", "SOURCE_DATE_EPOCH=1"}
	if how == "cold" {
		env = append(env, "GOCACHE="+t.TempDir())
	}
	if out, err := sh(t, there, env, "cross/build", args...); err != nil {
		t.Fatalf("cross/build in %s: %v\n%s", there, err, out)
	}
	one, two := digests(t, filepath.Join(here, "out/cross")), digests(t, filepath.Join(there, "out/cross"))
	// The static programs; or those, the worker and its library, a bill for each
	// program, the licences and the sums.
	if len(one) < 3 || full && len(one) < 11 {
		t.Errorf("only %d files came out: %v", len(one), one)
	}
	for name, sum := range one {
		if two[name] != sum {
			t.Errorf("%s differs between the two folders", name)
		}
	}
	if len(one) != len(two) {
		t.Errorf("%d files in one folder, %d in the other", len(one), len(two))
	}
	out, err := sh(t, filepath.Join(here, "out/cross"), nil, "grep", "-c", "1.2.3~rc1", "arm64/fulmard")
	if err != nil {
		t.Errorf("the version is not in fulmard: %v %s", err, out)
	}
}

// digests are the SHA-256 of all files in a folder, with their modes.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		sums[name] = fmt.Sprintf("%x %v", h.Sum(nil), info.Mode())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// TestBuildRefuses: what is wrong with the call is said before minutes are spent.
func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args    []string
		release string
		want    string
	}{
		{[]string{"out"}, "1.0.0", "usage: cross/build"},
		{[]string{"-static", "out", "riscv64"}, "1.0.0", "no such architecture here: riscv64"},
		{[]string{"-static", "out", "arm64"}, "1.0.0 -extldflags=x", "no Debian package allows"},
	} {
		dir := t.TempDir()
		copyTo(t, dir, "cross/build", "cross/version")
		out, err := sh(t, dir, []string{"RELEASE=" + c.release}, "cross/build", c.args...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("cross/build %v: %v\n%s\nwants %q", c.args, err, out, c.want)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/ota/delta"
)

// TestMain is the program itself where it is started as the child that makes patches.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == patchWord {
		os.Exit(Run(context.Background(), "test", os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestMakePatch: the child's patch makes the target of the base; a child that fails says
// why.
func TestMakePatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, b []byte) *os.File {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	old := make([]byte, 400_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(old)
	next := bytes.Clone(old)
	copy(next[100_000:], "another text in the middle of it")
	base, target, out := file("base", old), file("target", next), file("out", nil)
	codec, err := makePatch(t.Context(), base, target, out)
	if err != nil {
		t.Fatal(err)
	}
	st, err := out.Stat()
	if err != nil || st.Size() == 0 || st.Size() > 4000 {
		t.Fatalf("a patch of %d bytes, %v", st.Size(), err)
	}
	section := func(f *os.File, n int64) *io.SectionReader { return io.NewSectionReader(f, 0, n) }
	want, err := delta.Sum(t.Context(), section(target, int64(len(next))))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := delta.Apply(t.Context(), codec, section(base, int64(len(old))), section(out, st.Size()), want, delta.Limits{}, &got); err != nil || !bytes.Equal(got.Bytes(), next) {
		t.Errorf("codec %s: %v", codec, err)
	}
	empty := file("empty", nil)
	if _, err := makePatch(t.Context(), base, empty, file("none", nil)); err != nil && !strings.Contains(err.Error(), "fulmar-fleet") {
		t.Logf("an empty target: %v", err) // whatever it says, it is an error or a patch, and no crash
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := makePatch(over, base, target, file("late", nil)); err == nil {
		t.Error("made after it was cancelled")
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package devicetest builds fake trees of /proc and /sys for tests. A tree is one
// text, because git keeps no FIFO and no empty folder:
//
//	-- sys/class/thermal/thermal_zone0/temp --
//	48500
//	-- sys/class/thermal/thermal_zone2/temp fifo --
//	-- sys/class/thermal/thermal_zone3/temp dir --
//	-- sys/class/hwmon/hwmon1 -> ../../devices/platform/soctherm/hwmon/hwmon1 --
//	-- proc/device-tree/model nul --
//	NVIDIA Orin Nano Developer Kit
//
// A fifo is held open by the test and answers EAGAIN, as a zone that is powered
// down does; a plain open of it, or os.ReadFile, waits for ever. A dir answers
// EISDIR, which stands for EINVAL. "nul" ends the text with a NUL byte instead of
// a line end and makes NUL bytes of the line ends within.
package devicetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fulmar/device"
)

// Tree makes the tree in a temporary folder and gives its root. A text without
// entries, or with one that cannot be made, ends the test.
func Tree(t testing.TB, text string) device.Root {
	t.Helper()
	dir := t.TempDir()
	n := 0
	for _, part := range strings.Split("\n"+text, "\n-- ")[1:] {
		head, body, ok := strings.Cut(part, " --\n")
		if !ok {
			head, ok = strings.CutSuffix(part, " --")
		}
		if !ok {
			t.Fatalf("tree: %q has no end of its head", part)
		}
		make1(t, dir, head, body)
		n++
	}
	if n == 0 {
		t.Fatal("tree: no entries")
	}
	return device.NewRoot(dir)
}

// File reads a tree from a file.
func File(t testing.TB, name string) device.Root {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return Tree(t, string(b))
}

// Write replaces the content of an attribute, as the kernel does between reads:
// the file stays the same file.
func Write(t testing.TB, root device.Root, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(root.Path(path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root.Path(path), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Remove takes a file or a folder away.
func Remove(t testing.TB, root device.Root, path string) {
	t.Helper()
	if err := os.RemoveAll(root.Path(path)); err != nil {
		t.Fatal(err)
	}
}

func make1(t testing.TB, dir, head, body string) {
	t.Helper()
	name, target, isLink := strings.Cut(head, " -> ")
	kind := ""
	if !isLink {
		name, kind, _ = strings.Cut(head, " ")
	}
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	switch {
	case isLink:
		err = os.Symlink(target, p)
	case kind == "fifo":
		err = fifo(t, p)
	case kind == "dir":
		err = os.Mkdir(p, 0o755)
	case kind == "nul":
		err = os.WriteFile(p, []byte(strings.ReplaceAll(strings.TrimSuffix(body, "\n"), "\n", "\x00")+"\x00"), 0o644)
	case kind == "":
		if body != "" && !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		err = os.WriteFile(p, []byte(body), 0o644)
	default:
		t.Fatalf("tree: %s is a %q, wants fifo, dir or nul", name, kind)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func fifo(t testing.TB, p string) error {
	if err := unix.Mkfifo(p, 0o644); err != nil {
		return err
	}
	fd, err := unix.Open(p, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.Cleanup(func() { unix.Close(fd) })
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tool is another program that makes patches. In its arguments BASE, NEXT, PATCH and
// OUT stand for files.
type tool struct {
	name        string
	make, apply []string
}

var tools = []tool{
	{"zstd -19, whole", []string{"zstd", "-19", "-f", "-q", "NEXT", "-o", "PATCH"}, []string{"zstd", "-d", "-f", "-q", "PATCH", "-o", "OUT"}},
	{"zstd -19 --patch-from", []string{"zstd", "-19", "--long=27", "-f", "-q", "--patch-from=BASE", "NEXT", "-o", "PATCH"}, []string{"zstd", "-d", "--long=27", "-f", "-q", "--patch-from=BASE", "PATCH", "-o", "OUT"}},
	{"xdelta3 -9", []string{"xdelta3", "-9", "-f", "-e", "-s", "BASE", "NEXT", "PATCH"}, []string{"xdelta3", "-d", "-f", "-s", "BASE", "PATCH", "OUT"}},
	{"bsdiff 4.3", []string{"bsdiff", "BASE", "NEXT", "PATCH"}, []string{"bspatch", "BASE", "OUT", "PATCH"}},
}

func (t *tool) try(cache string, p pair) (size int, made, applied cost, err error) {
	patch, out := filepath.Join(cache, "patch"), filepath.Join(cache, "out")
	command := func(args []string) *exec.Cmd {
		with := make([]string, len(args))
		for i, a := range args {
			with[i] = strings.NewReplacer("BASE", p.base, "NEXT", p.next, "PATCH", patch, "OUT", out).Replace(a)
		}
		return exec.Command(with[0], with[1:]...)
	}
	if _, err := exec.LookPath(t.make[0]); err != nil {
		return 0, made, applied, errors.New(t.make[0] + " is not installed")
	}
	if made, err = measured(command(t.make)); err != nil {
		return 0, made, applied, err
	}
	st, err := os.Stat(patch)
	if err != nil {
		return 0, made, applied, err
	}
	if applied, err = measured(command(t.apply)); err != nil {
		return 0, made, applied, err
	}
	return int(st.Size()), made, applied, same(out, p.next)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
	maker "fulmar/ota/delta/make"
)

const (
	// patchWord is the command that makes a patch: not for people.
	patchWord = "make-patch"
	// maxPatchMemory bounds its address space, in bytes: sorting the suffixes of the largest
	// program takes 2.5 GB.
	maxPatchMemory = 4 << 30
	maxSaid        = 4 << 10 // bytes of its last words that are kept
)

// makePatch makes a patch in a child: one processor, lowest priority, bounded memory, first
// to go where memory ends; and the memory is given back when it ends.
func makePatch(ctx context.Context, base, target, out *os.File) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, self, patchWord)
	c.ExtraFiles = []*os.File{base, target, out}
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=50")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said, why bytes.Buffer
	c.Stdout, c.Stderr = &said, &why
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(tail(why.Bytes())))
	}
	return strings.TrimSpace(said.String()), nil
}

func tail(b []byte) string {
	if len(b) > maxSaid {
		b = b[len(b)-maxSaid:]
	}
	return string(b)
}

// patchCommand is the child: base, target and what comes out are its descriptors 3 to 5.
func (d *desk) patchCommand() *cobra.Command {
	return &cobra.Command{
		Use: patchWord, Hidden: true, Short: "make a patch between two files; the server starts it", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		RunE: func(c *cobra.Command, _ []string) error { return patch(c.Context(), c.OutOrStdout()) },
	}
}

func patch(ctx context.Context, say io.Writer) error {
	// What cannot be set is no reason to fail: the server is bounded too.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: maxPatchMemory, Max: maxPatchMemory})
	section := func(fd uintptr, name string) (*io.SectionReader, error) {
		f := os.NewFile(fd, name)
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("%s: %w; the server starts this command, nobody else", name, err)
		}
		return io.NewSectionReader(f, 0, st.Size()), nil
	}
	base, err := section(3, "base")
	if err != nil {
		return err
	}
	target, err := section(4, "target")
	if err != nil {
		return err
	}
	p, err := maker.Make(ctx, maker.Auto, base, target)
	if err != nil {
		return err
	}
	out := os.NewFile(5, "out")
	if _, err = out.Write(p.Bytes); err == nil {
		_, err = fmt.Fprintln(say, p.Codec)
	}
	return errors.Join(err, out.Close())
}

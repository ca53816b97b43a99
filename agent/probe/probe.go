// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe looks at a file of the spool from another process, which a damaged file
// may end in the board's place.
package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"

	"golang.org/x/sys/unix"

	"fulmar/storage"
)

const (
	// MaxData bounds the memory of the process that looks at a file, bytes. It was seen
	// to come back from a sound file with 40 MiB; from one without an end it never would.
	MaxData = 128 << 20
	// maxCPU bounds its time on a processor, s, should fulmard be killed meanwhile.
	maxCPU = 10
	// Looking is what it says before it opens the file.
	Looking = "looking\n"
)

// Look runs the program's command spool-probe on a file. An error says that the file
// ended that process; one that never came to the file says nothing about it.
func Look(ctx context.Context, program, path string, log *slog.Logger) error {
	cmd := exec.CommandContext(ctx, program, "spool-probe", path)
	cmd.Env = []string{} // it needs nothing
	said, err := cmd.Output()
	if err != nil && string(said) != Looking {
		log.Warn("spool segment could not be looked at beforehand", "path", path, "err", err)
		return nil
	}
	if ended := new(exec.ExitError); errors.As(err, &ended) {
		words, _, _ := bytes.Cut(ended.Stderr, []byte("\n"))
		return fmt.Errorf("look at %s: %w: %s", path, err, words)
	}
	return err
}

// Child is what that other process does. That it comes back is the answer.
func Child(path string, stdout io.Writer) error {
	for what, most := range map[int]uint64{unix.RLIMIT_DATA: MaxData, unix.RLIMIT_CPU: maxCPU} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("a look at %s wants a bound: %w", path, err)
		}
	}
	if _, err := io.WriteString(stdout, Looking); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	storage.ProbeFile(path)
	return nil
}

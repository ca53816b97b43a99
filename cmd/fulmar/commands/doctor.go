// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
)

// inferName is the program that knows of engines: it is linked with them, and this
// one is static and must not be.
const inferName = "fulmar-infer"

func doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor [OPTIONS]", Short: "what models can run on here, what is missing and what to do",
		Long:    "It runs fulmar-infer doctor with the same options, and ends as it does.",
		Example: "  fulmar doctor\n  fulmar doctor --json",
		// The worker knows its own options.
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, words []string) error {
			if len(words) > 0 && (words[0] == "-h" || words[0] == "--help") {
				return c.Help()
			}
			return doctor(words, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
}

// doctor runs fulmar-infer doctor and ends as it does.
func doctor(args []string, stdout, stderr io.Writer) error {
	path, err := findInfer()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, append([]string{"doctor"}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return &endedError{exit.ExitCode()} // it said what is wrong
	}
	return fault.New(fault.NoWorker, "run %s doctor: %w", path, err)
}

// findInfer looks beside this program, then in PATH.
func findInfer() (string, error) {
	dir := "the folder of this program"
	if self, err := os.Executable(); err == nil {
		dir = filepath.Dir(self)
		if path, err := exec.LookPath(filepath.Join(dir, inferName)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(inferName)
	if err != nil {
		return "", fault.New(fault.NoWorker, "%s is neither in %s nor in PATH: doctor needs it, install the inference worker", inferName, dir)
	}
	return path, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// inferName is the program that knows of engines: it is linked with them, and this
// one is static and must not be.
const inferName = "fulmar-infer"

// doctor runs fulmar-infer doctor and gives its exit code.
func doctor(args []string, stdout, stderr io.Writer) (int, error) {
	path, err := findInfer()
	if err != nil {
		return exitWrong, err
	}
	cmd := exec.Command(path, append([]string{"doctor"}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return exitGood, nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), nil // it said what is wrong
	}
	return exitWrong, fmt.Errorf("run %s doctor: %w", path, err)
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
		return "", fmt.Errorf("%s is neither in %s nor in PATH: doctor needs it, install the inference worker", inferName, dir)
	}
	return path, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ort

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	onnx "github.com/yalue/onnxruntime_go"
)

// Version is the release of ONNX Runtime that cross/ort/fetch pins and the tests
// run against.
const Version = "1.30.0"

// The oldest release accepted. Those up to 1.24 abort the process at load while a
// core is offline, as in the low-power modes of Jetson boards.
const minMinor = 30

// Errors that callers tell apart; each is wrapped with what happened to what.
var (
	// ErrLibrary says that the library is missing, is no ONNX Runtime for this
	// machine, or has another version than is accepted.
	ErrLibrary = errors.New("ONNX Runtime cannot be used")
	// ErrModel says that the network cannot be loaded.
	ErrModel = errors.New("network refused")
	// ErrClosed says that a session was used after Close.
	ErrClosed = errors.New("session is closed")
)

// Runtime is the opened library. It stays open until the process ends: ONNX Runtime
// does not come back after its environment was destroyed.
type Runtime struct {
	version string
}

// Open loads the library at path. A process may do this once.
func Open(path string) (*Runtime, error) {
	if onnx.IsInitialized() {
		return nil, fmt.Errorf("open %s: %w: this process has it open already", path, ErrLibrary)
	}
	if err := look(path); err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", path, ErrLibrary, err)
	}
	// Else the library keeps a device id and a database of what it ran in the home folder
	// and sends them to its makers: a board tells nobody but its fleet. It reads the
	// variable when it is loaded; its call to disable telemetry comes too late for that.
	if err := os.Setenv("ORT_DISABLE_TELEMETRY", "1"); err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", path, ErrLibrary, err)
	}
	onnx.SetSharedLibraryPath(path)
	if err := onnx.InitializeEnvironment(onnx.WithLogLevelError()); err != nil {
		return nil, fmt.Errorf("open %s: %w: %s; wants ONNX Runtime %s for %s, run cross/ort/fetch", path, ErrLibrary, reason(err), Version, runtime.GOARCH)
	}
	v := onnx.GetVersion()
	if !accepted(v) {
		onnx.DestroyEnvironment() // there is nothing to do about a failed unload
		return nil, fmt.Errorf("open %s: %w: it is version %s, wants %s or a later 1.x, run cross/ort/fetch", path, ErrLibrary, v, Version)
	}
	return &Runtime{version: v}, nil
}

// Version is what the library says of itself, "1.30.0".
func (r *Runtime) Version() string { return r.version }

// look says in words what dlopen would say in a riddle.
func look(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file; run cross/ort/fetch, or give the path of libonnxruntime.so.1")
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return errors.New("it is not a file; give the path of libonnxruntime.so.1")
	case !filepath.IsAbs(path) && !strings.Contains(path, "/"):
		return errors.New("without a slash the linker would search the system for it; give a path")
	}
	return nil
}

func accepted(v string) bool {
	major, rest, _ := strings.Cut(v, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	return err == nil && major == "1" && n >= minMinor
}

// reason is the innermost message of an error of the library, on one line.
func reason(err error) string {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	s := strings.Join(strings.Fields(err.Error()), " ")
	const limit = 300 // a line that can still be read
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return s
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"fulmar/inference/engines"
	"fulmar/inference/engines/build"
	"fulmar/inference/model"
	"fulmar/inference/ort"
	"fulmar/models/parcels"
)

// libraryName is the file name of ONNX Runtime on Linux.
const libraryName = "libonnxruntime.so.1"

// onnx opens ONNX Runtime when the first model is loaded.
type onnx struct {
	library string // "" looks in the usual places

	mu sync.Mutex
	rt *ort.Runtime
}

// runtime opens the library once; a failure is tried again with the next model.
func (e *onnx) runtime() (*ort.Runtime, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rt != nil {
		return e.rt, nil
	}
	path := e.library
	if path == "" {
		var err error
		if path, err = findLibrary(); err != nil {
			return nil, err
		}
	}
	rt, err := ort.Open(path)
	if err != nil {
		return nil, err
	}
	e.rt = rt
	return rt, nil
}

// libraryDirs are where ONNX Runtime is looked for: beside the program, then where
// packages put libraries.
func libraryDirs() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	dirs := []string{"/usr/lib/fulmar", "/usr/local/lib", filepath.Join("/usr/lib", triplet), "/usr/lib"}
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(self)}, dirs...)
	}
	return dirs
}

func findLibrary() (string, error) {
	dirs := libraryDirs()
	for _, d := range dirs {
		p := filepath.Join(d, libraryName)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is in none of %s: give its path with --ort or FULMAR_ORT", libraryName, strings.Join(dirs, ", "))
}

// files gives the files of a model package: a folder, or one inside the program.
func files(path string) (fs.FS, func() error, error) {
	name, builtin := strings.CutPrefix(path, "builtin:")
	if !builtin {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, nil, fmt.Errorf("open model package: %w", err)
		}
		return root.FS(), root.Close, nil
	}
	if name != "parcels" {
		return nil, nil, fmt.Errorf("there is no model %q inside this program, only builtin:parcels", path)
	}
	return parcels.Files(), func() error { return nil }, nil
}

// detector loads a package's network and checks it on the golden pictures.
func (e *onnx) detector(ctx context.Context, path, variant string, threads int) (_ *model.Detector, err error) {
	dir, closeDir, err := files(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeDir()) }()
	pkg, err := model.Open(dir)
	if err != nil {
		return nil, err
	}
	return pkg.Load(ctx, model.Config{
		Variant: variant, Engine: "onnxruntime-cpu",
		Open: func(network []byte) (model.Engine, error) { return e.session(network, threads) },
	})
}

// session loads a network into ONNX Runtime.
func (e *onnx) session(network []byte, threads int) (model.Engine, error) {
	rt, err := e.runtime()
	if err != nil {
		return nil, err
	}
	return rt.NewSession(network, ort.Options{Threads: threads})
}

// version names the library that is open.
func (e *onnx) version() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rt == nil {
		return ""
	}
	return "ONNX Runtime " + e.rt.Version()
}

// newChooser puts together what gives models their engines.
func newChooser(o options, log *slog.Logger) (*engines.Chooser, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	program := []string{self, "--log", o.level.String()}
	if o.tensorrt != "" {
		program = append(program, "--trt", o.tensorrt)
	}
	builds := build.NewChildren(program, log)
	builds.Socket = o.builds
	cpu := &onnx{library: o.library}
	return engines.NewChooser(engines.Config{
		Files: files, CPU: cpu.session, CPUVersion: cpu.version,
		GPU:  func() (engines.GPU, error) { return openGPU(o.tensorrt, log) },
		Root: "/", Builds: builds, Log: log,
	}), nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Names of one TensorRT's files.
type names struct {
	infer, parser string
}

// known are the libraries looked for, the newest first. A board has one of them;
// where a desktop has several, the full TensorRT goes before the one for RTX.
var known = []names{
	{"libnvinfer.so.11", "libnvonnxparser.so.11"},
	{"libnvinfer.so.10", "libnvonnxparser.so.10"},
	{"libnvinfer.so.8", "libnvonnxparser.so.8"},
	{"libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"},
}

const driverName = "libcuda.so.1"

// Dirs are where JetPack, Debian packages and containers put the libraries.
func Dirs() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	lib := filepath.Join("/usr/lib", triplet)
	return []string{
		lib,
		filepath.Join(lib, "nvidia"),                       // JetPack 6 and 7: the driver
		filepath.Join(lib, "tegra"),                        // JetPack 5: the driver
		"/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", // containers
		"/usr/local/tensorrt/lib", "/usr/local/lib", "/usr/local/cuda/lib64", "/usr/lib64", "/usr/lib",
	}
}

// Found are the libraries that a search gave; "" for what is not there.
type Found struct {
	Infer, Parser, Driver string
	// DLACompiler is what TensorRT needs to build for DLA; JetPack brings it for boards
	// that have DLA cores.
	DLACompiler string
	// Dirs are the folders looked into.
	Dirs []string
	// Others are further libnvinfer that are there and not chosen.
	Others []string
}

// Find looks for the libraries in dirs, or in [Dirs] where there are none given, and
// opens nothing.
func Find(dirs ...string) Found {
	if len(dirs) == 0 {
		dirs = Dirs()
	}
	f := Found{Dirs: dirs, Driver: first(dirs, driverName), DLACompiler: first(dirs, "libnvdla_compiler.so")}
	for _, n := range known {
		p := first(dirs, n.infer)
		switch {
		case p == "":
		case f.Infer == "":
			f.Infer = p
			f.Parser = first(append([]string{filepath.Dir(p)}, dirs...), n.parser)
		default:
			f.Others = append(f.Others, p)
		}
	}
	if f.Infer == "" {
		f.Infer = unknown(dirs)
	}
	return f
}

// unknown gives a libnvinfer of a major that is not in the list: opening it says so.
func unknown(dirs []string) string {
	for _, d := range dirs {
		all, _ := filepath.Glob(filepath.Join(d, "libnvinfer.so.*")) // the pattern is sound
		for _, p := range all {
			if strings.Count(filepath.Base(p), ".") == 2 {
				return p
			}
		}
	}
	return ""
}

func first(dirs []string, name string) string {
	for _, d := range dirs {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p
		}
	}
	return ""
}

// missing says in words what the search did not find.
func (f *Found) missing() error {
	return fmt.Errorf("%w: no libnvinfer.so.8, .10 or .11 in %s; on a Jetson it comes with JetPack (nvidia-jetpack or tensorrt packages)", ErrLibrary, strings.Join(f.Dirs, ", "))
}

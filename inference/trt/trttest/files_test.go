// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trttest_test

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fulmar/inference/trt/trttest"
)

// What each library has to export, by the names that programs look for.
const (
	inferSymbols  = "getInferLibVersion getInferLibMajorVersion getInferLibMinorVersion getInferLibPatchVersion getInferLibBuildVersion createInferRuntime_INTERNAL createInferBuilder_INTERNAL"
	parserSymbols = "createNvOnnxParser_INTERNAL getNvOnnxParserVersion"
	driverSymbols = `cuInit cuDriverGetVersion cuDeviceGetCount cuDeviceGet cuDeviceGetName cuDeviceGetAttribute cuDeviceTotalMem_v2
		cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease_v2 cuCtxSetCurrent cuMemAlloc_v2 cuMemFree_v2 cuMemHostAlloc cuMemFreeHost
		cuMemHostGetDevicePointer_v2 cuMemcpyHtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuMemGetInfo_v2 cuStreamCreate cuStreamDestroy_v2
		cuStreamSynchronize cuStreamBeginCapture_v2 cuStreamEndCapture cuGraphInstantiateWithFlags cuGraphInstantiate_v2 cuGraphLaunch
		cuGraphExecDestroy cuGraphDestroy cuEventCreate cuEventRecord cuEventSynchronize cuEventElapsedTime cuEventDestroy_v2
		cuModuleLoadData cuModuleGetFunction cuModuleUnload cuLaunchKernel cuGetErrorName cuGetErrorString`
	ownSymbols = "fl_double_live fl_double_leaks"
)

func TestFiles(t *testing.T) {
	all := strings.Fields(inferSymbols + " " + parserSymbols + " " + driverSymbols + " " + ownSymbols)
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(names, s) })
	}
	of8 := without("getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion", "getInferLibBuildVersion")
	for _, c := range []struct {
		name    string
		major   int
		options []trttest.Option
		files   string
		symbols []string
	}{
		{"8", 8, nil, "libcuda.so.1 libnvinfer.so.8 libnvonnxparser.so.8", of8},
		{"10", 10, nil, "libcuda.so.1 libnvinfer.so.10 libnvonnxparser.so.10", all},
		{"RTX", 11, []trttest.Option{trttest.RTX()}, "libcuda.so.1 libtensorrt_onnxparser_rtx.so.1 libtensorrt_rtx.so.1", all},
		{"unknown", 11, []trttest.Option{trttest.UnknownMajor(12)}, "libcuda.so.1 libnvinfer.so.12 libnvonnxparser.so.12", all},
		{"no parser", 10, []trttest.Option{trttest.WithoutParser()}, "libcuda.so.1 libnvinfer.so.10", all},
		{"no driver", 10, []trttest.Option{trttest.WithoutDriver()}, "libnvinfer.so.10 libnvonnxparser.so.10", all},
		{"old driver", 8, []trttest.Option{trttest.OldDriver()}, "libcuda.so.1 libnvinfer.so.8 libnvonnxparser.so.8", slices.DeleteFunc(slices.Clone(of8), func(s string) bool { return s == "cuGraphInstantiateWithFlags" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := trttest.Double(t, c.major, c.options...)
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if got := strings.Join(names, " "); got != c.files {
				t.Errorf("files %s, want %s", got, c.files)
			}
			for _, n := range names {
				if got := exported(t, filepath.Join(dir, n)); !slices.Equal(got, slices.Sorted(slices.Values(c.symbols))) {
					t.Errorf("%s exports %v", n, got)
				}
			}
		})
	}
}

func exported(t *testing.T, path string) []string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestMethods: the names are there, so that a test over all of them tests something.
func TestMethods(t *testing.T) {
	for major, most := range map[int]int{8: 63, 10: 73, 11: 65} {
		m := trttest.Methods(major)
		if len(m) < most-5 || len(m) > most+20 || !slices.Contains(m, "ExecutionContext::enqueueV3") || !slices.Contains(m, "Logger::log") {
			t.Errorf("%d methods of %d: %v", len(m), major, m)
		}
		if slices.Contains(m, "Int8Calibrator::getBatch") == (major == 11) {
			t.Errorf("methods of major %d: %v", major, m)
		}
	}
}

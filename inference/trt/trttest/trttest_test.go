// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trttest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/trt/trttest"
)

// A bench is a double and the compiled driver that uses it.
type bench struct {
	driver, dir, network string
	major                int
}

func driver(t *testing.T) string {
	t.Helper()
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	out := filepath.Join(t.TempDir(), "driver")
	sources, err := filepath.Glob("testdata/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatal("no driver", err)
	}
	args := append(append(cc[1:], "-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-o", out), append(sources, "-ldl", "-lpthread")...)
	if text, err := exec.CommandContext(t.Context(), cc[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cc, err, text)
	}
	return out
}

func newBench(t *testing.T, driver string, major int, options ...trttest.Option) *bench {
	t.Helper()
	b := &bench{driver: driver, dir: trttest.Double(t, major, options...), major: major, network: filepath.Join(t.TempDir(), "affine.onnx")}
	if err := os.WriteFile(b.network, enginetest.Affine(enginetest.Dims{-1, 3, 4, 5}), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs the driver in a mode and gives what it printed, errors too; ok is false if it
// failed or was killed.
func (b *bench) run(t *testing.T, mode string, env ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), b.driver, b.dir, fmt.Sprint(b.major), mode, b.network)
	cmd.Env = append(os.Environ(), "FULMAR_DOUBLE_DLA=2")
	for _, e := range env {
		cmd.Env = append(cmd.Env, "FULMAR_DOUBLE_"+e)
	}
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	return text.String(), err == nil
}

var majors = []int{8, 10, 11}

func each(t *testing.T, f func(t *testing.T, b *bench)) {
	d := driver(t)
	for _, m := range majors {
		t.Run(fmt.Sprintf("TensorRT %d", m), func(t *testing.T) { f(t, newBench(t, d, m)) })
	}
}

// wants checks that each line is there, in any order.
func wants(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(out, l) {
			t.Errorf("it does not say %q", l)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestLife goes through the life of a plan on each release: everything is called,
// answers, computes, and is freed.
func TestLife(t *testing.T) {
	d := driver(t)
	for _, c := range []struct {
		major   int
		option  trttest.Option
		version string
	}{
		{8, trttest.Version("8.5.2"), "8.5.2"},
		{8, trttest.Version("8.6.1"), "8.6.1"},
		{10, trttest.Version("10.0.0"), "10.0.0"},
		{10, trttest.Version("10.16.1"), "10.16.1"},
		{11, trttest.Version("11.0.0"), "11.0.0"},
		{11, trttest.RTX(), "1.7.1"},
	} {
		t.Run(c.version, func(t *testing.T) {
			b := newBench(t, d, c.major, c.option)
			left := filepath.Join(t.TempDir(), "live")
			out, ok := b.run(t, "life", "LIVE_AT_EXIT="+left)
			if !ok {
				t.Error("it failed")
			}
			wants(t, out, "log 3 double runtime "+c.version, "log 3 double builder "+c.version, "log 3 double parser: 2 nodes, opset 13",
				"node -1: not an ONNX model", "1 errors", "input -1x3x4x5", "log 3 double: built 2 layers", "log 3 double: timing cache hit\n",
				"layer (Unnamed Layer* 0) [Mul] on DLA 0", "log 3 double: DLA core 1", "log 3 double runtime: DLA core 1", "tensor x type 0 mode 1", "tensor y type 0 mode 2", "most 4x3x4x5",
				`{"Layers":[{"Name":"(Unnamed Layer* 0) [Mul]","LayerType":"Mul"}`, `"Bindings":["x","y"]}`, "output before -1x3x4x5", "output 1x3x4x5", "output 4x3x4x5",
				"over the profile: 0", "no address: 0", "NULL as address: 0", "log 1 double: enqueueV3: tensor x has no address",
				"first 3 last 121\n", "first -13 last 105\n", "first 201 last 319\n", "first 3 last 481\n", "first 201 last 679\n", "lived", "live 0 \n")
			if c.major >= 10 {
				wants(t, out, "phase Building of none, 2 steps", "phase Timing of Building, 1 steps", "step Building 0", "finished Building")
			}
			if c.major < 11 {
				wants(t, out, "batch of x, 1 inputs", "calibration written: TRT-double-EntropyCalibration2", "log 3 double: calibration cache of 17 bytes, TRT-test")
			}
			if text, err := os.ReadFile(left); err != nil || string(text) != "live 0: \n" {
				t.Errorf("at exit: %q, %v", text, err)
			}
			// A stream that works late gives the same, if nothing is read too early.
			late, ok := b.run(t, "life", "LAZY=1")
			if !ok || late != out {
				t.Errorf("with lazy streams: %s", late)
			}
		})
	}
}

// TestThreads: lives on several threads at once do not disturb each other.
func TestThreads(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		for _, env := range []string{"LAZY=0", "LAZY=1"} {
			out, ok := b.run(t, "threads", env)
			if n := strings.Count(out, "first 201 last 679\n"); !ok || n != 20 || !strings.Contains(out, "live 0 \n") {
				t.Errorf("%s: %d of 20 lives: %s", env, n, out)
			}
		}
	})
}

// TestShift: whatever method lies elsewhere, the life is another one.
func TestShift(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		good, ok := b.run(t, "life")
		if !ok {
			t.Fatal(good)
		}
		var wg sync.WaitGroup
		room := make(chan struct{}, runtime.GOMAXPROCS(0))
		var named atomic.Int32
		methods := trttest.Methods(b.major)
		for _, m := range methods {
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				out, ok := b.run(t, "life", "SHIFT="+m)
				if ok && out == good {
					t.Errorf("%s lies elsewhere and nothing is seen", m)
				}
				class, _, _ := strings.Cut(m, "::")
				if regexp.MustCompile(`double: ` + class + ` slot \d+ is not implemented`).MatchString(out) {
					named.Add(1)
				}
			})
		}
		wg.Wait()
		// Not with methods of ours, nor where the slot after it is called first.
		if n := int(named.Load()); n < len(methods)/2 {
			t.Errorf("%d of %d methods are named by their slot", n, len(methods))
		}
	})
}

// TestMemory: whichever block cannot be had, the life ends in order and leaks nothing.
func TestMemory(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		refused := 0
		for n := 1; n < 30; n++ {
			out, ok := b.run(t, "life", fmt.Sprintf("OOM=%d", n))
			if ok {
				break
			}
			refused++
			if !strings.Contains(out, "live 0 \n") || !strings.Contains(out, "CUDA_ERROR_OUT_OF_MEMORY") && !strings.Contains(out, "log 1 double: out of memory for") {
				t.Errorf("block %d: %s", n, out)
			}
		}
		if refused < 8 {
			t.Errorf("%d blocks were refused", refused)
		}
	})
}

// TestLost: once the device is lost, everything fails, and nothing crashes.
func TestLost(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		for n := 1; ; n++ {
			out, ok := b.run(t, "life", fmt.Sprintf("STICKY=%d", n))
			if ok {
				if n < 10 {
					t.Errorf("a life has %d runs and waits", n-1)
				}
				return
			}
			if !strings.Contains(out, "700 CUDA_ERROR_ILLEGAL_ADDRESS") || strings.Contains(out, "live 0") || !strings.Contains(out, "cuStreamDestroy_v2: 700") {
				t.Errorf("run %d: %s", n, out)
			}
		}
	})
}

func TestSettings(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		for _, c := range []struct {
			mode, env, want string
			ok              bool
		}{
			{"life", "NODRIVER=1", "cuInit: 100 CUDA_ERROR_NO_DEVICE", false},
			{"life", "DRIVER=10020", "log 1 CUDA initialization failure with error: 35", false},
			{"life", "DRIVER=10020", "builder 0", false},
			{"life", "FAILBUILD=1", "log 1 double: the build fails as asked", false},
			{"life", "DLA=1", "runtime with 1 DLA cores", true},
			{"life", "INTEGRATED=1", "lived", true},
			{"cuda", "INTEGRATED=1", "compute capability 8.7, integrated 1", true},
			{"cuda", "CC=72", "compute capability 7.2, integrated 0", true},
			{"cuda", "LAZY=1", "copied before the wait: 0\ncopied after it: 1", true},
			{"no profile", "", "Network has dynamic or shape inputs, but no optimization profile has been defined", true},
		} {
			out, ok := b.run(t, c.mode, c.env)
			if ok != c.ok || !strings.Contains(out, c.want) {
				t.Errorf("%s %s: %v, want %q; it says %s", c.mode, c.env, ok, c.want, out)
			}
		}
		if b.major > 8 {
			if out, ok := b.run(t, "cancelled", "BUILDMS=100"); !ok || !strings.Contains(out, "log 1 double: build cancelled") {
				t.Error(out)
			}
		}
	})
}

// TestMisuse: what would crash the real libraries ends the process with its name.
func TestMisuse(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		for mode, want := range map[string]string{
			"null this":                  "double: Builder::getNbDLACores: this is NULL",
			"public this":                "double: Builder::getNbDLACores: this is no implementation",
			"other this":                 "double: Builder::getNbDLACores: this is a BuilderConfig",
			"other argument":             "double: Builder::buildSerializedNetwork: a BuilderConfig is given for a NetworkDefinition",
			"twice":                      "double: delete of BuilderConfig, which was deleted before",
			"after delete":               "double: BuilderConfig::setFlag: this was deleted before",
			"order":                      "double: delete of CudaEngine while 1 objects made from it live",
			"owned":                      "double: delete of OptimizationProfile, which belongs to its Builder",
			"flag":                       "double: BuilderConfig::setFlag: flag ",
			"slot":                       "double: Builder slot ",
			"early parser":               "double: Builder::buildSerializedNetwork: the parser, which holds the weights, was deleted before",
			"graph of a deleted context": "double: a run of an ExecutionContext that was deleted",
			"graph of other shapes":      "double: a graph is replayed after its ExecutionContext got other shapes",
			"freed twice":                "double: cuMemFree: device memory (100 bytes) was freed before",
			"freed elsewhere":            "is no address that was given out",
			"freed as page-locked":       "double: cuMemFreeHost: this is device memory",
			"written past its end":       "double: device memory (100 bytes) was written to 2 bytes past its end",
			"stream twice":               "double: cuStreamDestroy: this stream (flags 1) was freed before",
			"stream for an event":        "double: cuEventRecord: a stream is given for a event",
			"no cuInit":                  "double: createInferRuntime_INTERNAL before cuInit succeeded",
		} {
			if out, ok := b.run(t, mode); ok || !strings.Contains(out, want) {
				t.Errorf("%s: want %q; it says %s", mode, want, out)
			}
		}
		for mode, want := range map[string]string{
			"cut plan":                "engine 0",
			"damaged plan":            "log 1 double: plan is corrupted",
			"another GPU":             "log 1 double: plan is of another GPU: compute capability 8.7, this is 7.2",
			"plan of another version": "log 1 double: plan is of another version",
			"no plan":                 "log 1 double: plan has no magic",
			"too little for a tensor": "cuStreamSynchronize: 700 CUDA_ERROR_ILLEGAL_ADDRESS",
		} {
			if out, ok := b.run(t, mode); !ok || !strings.Contains(out, want) {
				t.Errorf("%s: want %q; it says %s", mode, want, out)
			}
		}
	})
}

const driverCalls = `before cuInit:
cuMemAlloc_v2: 3 CUDA_ERROR_NOT_INITIALIZED
without a context:
cuMemAlloc_v2: 201 CUDA_ERROR_INVALID_CONTEXT
compute capability 8.7, integrated 0
out of range:
cuMemcpyHtoDAsync_v2: 1 CUDA_ERROR_INVALID_VALUE
cuMemcpyDtoHAsync_v2: 1 CUDA_ERROR_INVALID_VALUE
cuMemHostGetDevicePointer_v2: 1 CUDA_ERROR_INVALID_VALUE
events:
cuEventElapsedTime: 400 CUDA_ERROR_INVALID_HANDLE
copied before the wait: 1
copied after it: 1
elapsed 1
capture spoiled by an allocation:
cuMemAlloc_v2: 900 CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
cuMemcpyHtoDAsync_v2: 901 CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
cuStreamEndCapture: 901 CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
capture spoiled by a wait:
cuStreamSynchronize: 900 CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
cuStreamEndCapture: 901 CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
capture and the stream NULL:
cuMemcpyHtoDAsync_v2: 906 CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
cuStreamEndCapture: 901 CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
capture twice, and none:
cuStreamEndCapture: 903 CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
cuStreamBeginCapture_v2: 1 CUDA_ERROR_INVALID_VALUE
another thread:
cuMemAlloc_v2: 201 CUDA_ERROR_INVALID_CONTEXT
cuStreamEndCapture: 908 CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
live 2
modules:
cuModuleLoadData: 200 CUDA_ERROR_INVALID_IMAGE
cuModuleLoadData: 222 CUDA_ERROR_UNSUPPORTED_PTX_VERSION
cuModuleLoadData: 209 CUDA_ERROR_NO_BINARY_FOR_GPU
cuModuleGetFunction: 500 CUDA_ERROR_NOT_FOUND
cuLaunchKernel: 1 CUDA_ERROR_INVALID_VALUE
a kernel that faults:
cuStreamSynchronize: 700 CUDA_ERROR_ILLEGAL_ADDRESS
cuModuleUnload: 700 CUDA_ERROR_ILLEGAL_ADDRESS
cuStreamDestroy_v2: 700 CUDA_ERROR_ILLEGAL_ADDRESS
`

func TestDriverCalls(t *testing.T) {
	b := newBench(t, driver(t), 10)
	out, ok := b.run(t, "cuda")
	out = strings.Replace(out, "double: the device faults in cuLaunchKernel\n", "", 1)
	if !ok || !strings.HasPrefix(out, driverCalls) {
		t.Errorf("it says\n%s\nwant\n%s", out, driverCalls)
	}
}

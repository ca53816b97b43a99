// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gpu_test runs what wants an NVIDIA GPU. `make test-cuda` runs the tests that
// need its driver alone, `make test-trt` those that need TensorRT too. They are no
// part of `make test`, whose machines have no GPU; the double of package trttest stands
// in there.
package gpu_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/onnxfile"
	"fulmar/inference/trt"
)

// dirs gives the folders with the libraries, or leaves the test out. FULMAR_TRT_DIRS
// names folders that go before the usual ones.
func dirs(t testing.TB, what string) []string {
	t.Helper()
	if is := os.Getenv("FULMAR_GPU"); is != what && is != "trt" {
		t.Skipf("wants a GPU: make test-%s", what)
	}
	return append(filepath.SplitList(os.Getenv("FULMAR_TRT_DIRS")), trt.Dirs()...)
}

func open(t testing.TB, o trt.Options) *trt.Library {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	l, err := trt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func engine(t testing.TB, l *trt.Library, network []byte, b trt.BuildOptions, o trt.EngineOptions) (*trt.Engine, error) {
	b.INT8, b.Level = onnxfile.Quantized(network), -1
	built, err := l.Build(t.Context(), network, b, nil)
	if err != nil {
		return nil, err
	}
	return l.Load(built.Plan, o)
}

func TestMain(m *testing.M) {
	if os.Getenv("FULMAR_GPU_CHILD") != "" {
		fault()
		return
	}
	os.Exit(m.Run())
}

// fault is a process that loses its device.
func fault() {
	l, err := trt.Open(trt.Options{Dirs: append(filepath.SplitList(os.Getenv("FULMAR_TRT_DIRS")), trt.Dirs()...), DriverOnly: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	fmt.Println("first:", l.Fault())
	fmt.Println("again:", l.Fault())
	fmt.Println("lost:", l.Lost(), "close:", l.Close())
}

func TestCUDAPreprocess(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "cuda"), DriverOnly: true})
	i := l.Info()
	t.Logf("%s, compute capability %s, %d SMs, %d MiB, driver %s, integrated %v", i.Device, i.ComputeCapability, i.SMs, i.Memory>>20, i.Driver, i.Integrated)
	enginetest.Preprocess(t, l.Preprocess)
}

// TestCUDAFault: a kernel that faults gives an error that says so, every call after it
// does too, nothing hangs, and a new process works.
func TestCUDAFault(t *testing.T) {
	d := dirs(t, "cuda")
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "FULMAR_GPU_CHILD=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !strings.Contains(string(out), "first: "+trt.ErrDevice.Error()) || !strings.Contains(string(out), "again: "+trt.ErrDevice.Error()) || !strings.Contains(string(out), "lost: true close: <nil>") {
			t.Errorf("%v", err)
		}
	}
	l := open(t, trt.Options{Dirs: d, DriverOnly: true})
	if _, err := l.Preprocess(enginetest.Specs()[0], enginetest.Noise(64, 48), false); err != nil {
		t.Errorf("after the fault of another process: %v", err)
	}
}

func TestTRTEngine(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "trt")})
	t.Logf("%+v", l.Info())
	for _, graphs := range []bool{false, true} {
		t.Run(fmt.Sprintf("graphs %v", graphs), func(t *testing.T) {
			enginetest.Run(t, func(network []byte) (model.Engine, error) {
				return engine(t, l, network, trt.BuildOptions{}, trt.EngineOptions{Graphs: graphs})
			})
		})
	}
}

func TestTRTPlans(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "trt")})
	built, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 3, 4, 5}), trt.BuildOptions{Level: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, plan := range map[string][]byte{"text": []byte("this is no plan at all"), "cut": built.Plan[:len(built.Plan)/2]} {
		_, err := l.Load(plan, trt.EngineOptions{})
		if !errors.Is(err, trt.ErrPlan) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	e, err := l.Load(built.Plan, trt.EngineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := e.Inspect(); !strings.Contains(s, "{") {
		t.Errorf("the inspector says %q", s)
	}
	if err := l.Close(); err == nil {
		t.Error("the library closed under an open engine")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/onnxfile"
	"fulmar/inference/trt"
)

// The tests of this file open real libraries of NVIDIA on a machine without a GPU:
// cross/trt/fetch puts those that come in registry packages into .cache/tensorrt. What
// they prove: opening, versions, the logger's place, parser, network, config, progress,
// profiles, timing cache, a whole build and all frees with the tables of 11. What they
// cannot: a runtime, an engine, a run (TestTRT*, on a GPU), and majors 8 and 10, whose
// libraries no package brings.

// realDir is a folder of the cache, or the end of the test where it is not filled.
func realDir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join("..", "..", ".cache", "tensorrt", name)
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("FULMAR_TRT_REAL") != "" {
			t.Fatalf("%v; run cross/trt/fetch", err)
		}
		t.Skip("the real libraries are not in .cache/tensorrt; make test-trt-libs fetches them")
	}
	return dir
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRealRTX(t *testing.T) {
	var log lines
	l, err := trt.Open(trt.Options{Dirs: []string{realDir(t, "rtx")}, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	if i := l.Info(); i.Flavour != "TensorRT for RTX" || i.Major != 11 || !strings.HasPrefix(i.Version, "1.") || !i.Parser {
		t.Fatalf("%+v", i)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "..", "models", "parcels", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	batched := func(network []byte) []byte {
		b, err := onnxfile.OpenBatch(network)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var timing []byte
	for name, c := range map[string]struct {
		network []byte
		o       trt.BuildOptions
	}{
		"affine":                         {enginetest.Affine(enginetest.Dims{1, 3, 4, 5}), trt.BuildOptions{Level: -1}},
		"batch of 1 to 8":                {enginetest.Affine(enginetest.Dims{-1, 3, 4, 5}), trt.BuildOptions{Level: -1, MaxBatch: 8}},
		"Q/DQ":                           {enginetest.Quantized(), trt.BuildOptions{Level: 3, INT8: true, Workspace: 64 << 20, Threads: 1}},
		"parcels FP32":                   {read("parcels_fp32.onnx"), trt.BuildOptions{Level: -1}},
		"parcels INT8":                   {read("parcels_int8.onnx"), trt.BuildOptions{Level: -1, INT8: true}},
		"parcels FP32, batch of 1 to 16": {batched(read("parcels_fp32.onnx")), trt.BuildOptions{Level: -1, MaxBatch: 16}},
		"parcels INT8, batch of 1 to 16": {batched(read("parcels_int8.onnx")), trt.BuildOptions{Level: -1, MaxBatch: 16, INT8: true}},
	} {
		built, err := l.Build(t.Context(), c.network, c.o, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(built.Plan) < 1000 || built.Layers == 0 {
			t.Errorf("%s: a plan of %d bytes of %d layers", name, len(built.Plan), built.Layers)
		}
		timing = built.TimingCache
		t.Logf("%s: %d layers, plan of %d bytes, timing cache of %d", name, built.Layers, len(built.Plan), len(timing))
	}
	if _, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{Level: -1, TimingCache: timing}, nil); err != nil {
		t.Errorf("with a timing cache: %v", err)
	}
	for name, network := range map[string][]byte{"text": []byte("this is no network"), "an open width": enginetest.Affine(enginetest.Dims{1, 3, 4, -1})} {
		_, err := l.Build(t.Context(), network, trt.BuildOptions{Level: -1}, nil)
		if !errors.Is(err, trt.ErrNetwork) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	// The library's own words came through the logger's place.
	if !strings.Contains(log.String(), "from=tensorrt") || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log has %d bytes and no error line of the library", len(log.String()))
	}
	if _, err := l.Load([]byte("plan"), trt.EngineOptions{}); !errors.Is(err, trt.ErrDriver) {
		t.Errorf("a plan without a GPU: %v", err)
	}
}

// TestRealProgress: the library calls our monitor in its places, and stops when asked.
func TestRealProgress(t *testing.T) {
	l, err := trt.Open(trt.Options{Dirs: []string{realDir(t, "rtx")}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	network, err := os.ReadFile(enginetest.Shared(t, "models", "yolox_nano.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	var seen []trt.Progress
	if _, err := l.Build(t.Context(), network, trt.BuildOptions{Level: -1}, func(p trt.Progress) { seen = append(seen, p) }); err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 || seen[0].Phase == "" || seen[0].Of < 1 {
		t.Errorf("progress %v", seen)
	}
	t.Logf("progress %v", seen)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Build(ctx, network, trt.BuildOptions{Level: -1}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled build: %v", err)
	}
}

func TestRealLean(t *testing.T) {
	l, err := trt.Open(trt.Options{Dirs: []string{realDir(t, "lean")}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if i := l.Info(); i.Flavour != "TensorRT" || i.Major != 11 {
		t.Errorf("%+v", i)
	}
	if _, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{Level: -1}, nil); !errors.Is(err, trt.ErrLibrary) || !strings.Contains(err.Error(), "lean") {
		t.Error(err)
	}
	// This library's createInferRuntime gives a pointer that is none where there is no
	// driver; the bridge must not get so far.
	if _, err := l.Load([]byte("plan"), trt.EngineOptions{}); !errors.Is(err, trt.ErrDriver) {
		t.Error(err)
	}
}

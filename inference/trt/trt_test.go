// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/trt"
	"fulmar/inference/trt/trttest"
)

var majors = []int{8, 10, 11}

// each runs a test for each major of the library.
func each(t *testing.T, f func(t *testing.T, major int)) {
	for _, m := range majors {
		t.Run(fmt.Sprintf("TensorRT %d", m), func(t *testing.T) { f(t, m) })
	}
}

// opened opens a double and closes it with the test, when nothing may use it any more.
func opened(t testing.TB, major int, opts ...trttest.Option) *trt.Library {
	t.Helper()
	l, err := trt.Open(trt.Options{Dirs: []string{trttest.Double(t, major, opts...)}, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
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

// engine builds and loads a network.
func engine(ctx context.Context, l *trt.Library, network []byte, b trt.BuildOptions, o trt.EngineOptions) (*trt.Engine, error) {
	b.INT8 = bytes.Contains(network, []byte("QuantizeLinear"))
	b.Level = -1
	built, err := l.Build(ctx, network, b, nil)
	if err != nil {
		return nil, err
	}
	return l.Load(built.Plan, o)
}

func TestEngine(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		l := opened(t, major)
		for _, graphs := range []bool{false, true} {
			t.Run(fmt.Sprintf("graphs %v", graphs), func(t *testing.T) {
				enginetest.Run(t, func(network []byte) (model.Engine, error) {
					return engine(t.Context(), l, network, trt.BuildOptions{}, trt.EngineOptions{Graphs: graphs})
				})
			})
		}
	})
}

// TestInfo: what was opened is told, and what the library logs reaches the log in its
// own words: a wrong place of the logger's method would be silent.
func TestInfo(t *testing.T) {
	for _, c := range []struct {
		major            int
		version, flavour string
		opts             []trttest.Option
	}{
		{8, "8.5.2", "TensorRT", []trttest.Option{trttest.Version("8.5.2")}},
		{8, "8.6.2", "TensorRT", []trttest.Option{trttest.Version("8.6.2")}},
		{10, "10.3.0", "TensorRT", []trttest.Option{trttest.Version("10.3.0")}},
		{11, "11.1.0", "TensorRT", []trttest.Option{trttest.Version("11.1.0")}},
		{11, "1.7.1", "TensorRT for RTX", []trttest.Option{trttest.RTX()}},
	} {
		t.Run(c.flavour+" "+c.version, func(t *testing.T) {
			var log bytes.Buffer
			dir := trttest.Double(t, c.major, c.opts...)
			l, err := trt.Open(trt.Options{Dirs: []string{dir}, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			i := l.Info()
			if i.Version != c.version || i.Flavour != c.flavour || i.Major != c.major || !i.Parser {
				t.Errorf("%+v", i)
			}
			if i.Device == "" || i.ComputeCapability == "" || i.SMs == 0 || i.Memory == 0 || i.Driver == "" {
				t.Errorf("the device is not described: %+v", i)
			}
			if want := "double runtime " + c.version; !strings.Contains(log.String(), want) {
				t.Errorf("the log has no line %q; it has\n%s", want, log.String())
			}
		})
	}
}

// TestRefusals: each thing that can be wrong with the libraries is one line that says
// what to do.
func TestRefusals(t *testing.T) {
	empty := t.TempDir()
	text := t.TempDir()
	if err := os.WriteFile(filepath.Join(text, "libnvinfer.so.10"), []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dir  string
		err  error
		want string
	}{
		{"nothing there", empty, trt.ErrLibrary, "it comes with JetPack"},
		{"text", text, trt.ErrLibrary, "libnvinfer.so.10"},
		{"unknown major", trttest.Double(t, 11, trttest.UnknownMajor(12)), trt.ErrLibrary, "TensorRT 12"},
		{"too old", trttest.Double(t, 8, trttest.Version("8.4.1")), trt.ErrLibrary, "too old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := trt.Open(trt.Options{Dirs: []string{c.dir}})
			if err == nil {
				l.Close()
				t.Fatal("it was opened")
			}
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want one line with %q", err, c.want)
			}
		})
	}
	t.Run("no parser", func(t *testing.T) {
		l := opened(t, 10, trttest.WithoutParser())
		if _, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{}, nil); !errors.Is(err, trt.ErrLibrary) || !strings.Contains(err.Error(), "libnvonnxparser") {
			t.Error(err)
		}
	})
	t.Run("no driver", func(t *testing.T) {
		l := opened(t, 10, trttest.WithoutDriver())
		if _, err := l.Load([]byte("plan"), trt.EngineOptions{}); !errors.Is(err, trt.ErrDriver) || !strings.Contains(err.Error(), "no CUDA driver") {
			t.Error(err)
		}
	})
	for _, c := range []struct{ env, want string }{
		{"NODRIVER=1", "cuInit"},
		{"DRIVER=11040", "the driver is for CUDA 11.4"},
	} {
		t.Run(c.env, func(t *testing.T) {
			out := child(t, "open", trttest.Double(t, 11), c.env)
			if !strings.Contains(out, trt.ErrDriver.Error()) || !strings.Contains(out, c.want) {
				t.Errorf("it says %q, want %q", out, c.want)
			}
		})
	}
}

// TestPlans: a plan that does not belong here is refused, and the library lives on.
func TestPlans(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		l := opened(t, major)
		built, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 3, 4, 5}), trt.BuildOptions{Level: -1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(built.Plan)
		flipped[len(flipped)/2] ^= 1
		for name, plan := range map[string][]byte{"empty": nil, "text": []byte("no plan at all"), "cut": built.Plan[:len(built.Plan)-9], "a flipped bit": flipped} {
			if e, err := l.Load(plan, trt.EngineOptions{}); !errors.Is(err, trt.ErrPlan) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, %v", name, e, err)
			}
		}
		e, err := l.Load(built.Plan, trt.EngineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err == nil {
			t.Error("the library closed under an open engine")
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestOtherVersion: what one release built another refuses, with its own words.
func TestOtherVersion(t *testing.T) {
	old, now := opened(t, 10, trttest.Version("10.3.0")), opened(t, 10, trttest.Version("10.8.0"))
	built, err := old.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{Level: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := now.Load(built.Plan, trt.EngineOptions{}); !errors.Is(err, trt.ErrPlan) || !strings.Contains(err.Error(), "version") {
		t.Error(err)
	}
}

// TestBuild: options reach the library, a build is watched, its timing cache is taken
// up by the next one, and it can be cancelled where the library lets it.
func TestBuild(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		t.Setenv("FULMAR_DOUBLE_BUILDMS", "400")
		l := opened(t, major)
		network := enginetest.Quantized()
		if _, err := l.Build(t.Context(), network, trt.BuildOptions{Level: -1}, nil); major < 11 && err == nil {
			t.Error("a network with Q/DQ was built without the INT8 flag")
		}
		var seen []trt.Progress
		first, err := l.Build(t.Context(), network, trt.BuildOptions{INT8: true, FP16: true, Level: 3, Workspace: 64 << 20, Threads: 2}, func(p trt.Progress) { seen = append(seen, p) })
		if err != nil {
			t.Fatal(err)
		}
		if len(first.TimingCache) == 0 || first.Layers == 0 {
			t.Errorf("%d bytes of timing cache, %d layers", len(first.TimingCache), first.Layers)
		}
		if _, err := l.Build(t.Context(), network, trt.BuildOptions{INT8: true, Level: -1, TimingCache: first.TimingCache}, nil); err != nil {
			t.Error(err)
		}
		if _, err := l.Build(t.Context(), network, trt.BuildOptions{INT8: true, Level: -1, TimingCache: []byte("of another world")}, nil); err != nil {
			t.Errorf("a foreign timing cache spoils the build: %v", err)
		}
		if major == 8 {
			return // 8 has no progress and no cancelling
		}
		if len(seen) == 0 || seen[0].Phase == "" {
			t.Errorf("progress %v", seen)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := l.Build(ctx, network, trt.BuildOptions{INT8: true, Level: -1}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v after %v", err, time.Since(start))
		}
	})
}

func TestRefusedNetworks(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		l := opened(t, major)
		for name, network := range map[string][]byte{"text": []byte("this is no network"), "an open width": enginetest.Affine(enginetest.Dims{1, 3, 4, -1})} {
			_, err := l.Build(t.Context(), network, trt.BuildOptions{Level: -1}, nil)
			if !errors.Is(err, trt.ErrNetwork) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, o := range []trt.BuildOptions{{MaxBatch: trt.MaxBatch + 1}, {Level: 6}, {Workspace: -1}, {DLA: true, DLACore: -1}, {DLA: true, DLACore: 5, Level: -1}} {
			if _, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1, 4}), o, nil); err == nil {
				t.Errorf("options %+v were taken", o)
			}
		}
	})
}

// TestClosed: nothing works after Close, and nothing crashes.
func TestClosed(t *testing.T) {
	l := opened(t, 10)
	e, err := engine(t.Context(), l, enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{}, trt.EngineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	l.Close()
	if err := e.Run(t.Context()); !errors.Is(err, trt.ErrClosed) {
		t.Error(err)
	}
	if e.Inspect() != "" || e.Graphs() != 0 || e.Scratch() != 0 {
		t.Error("a closed engine tells something")
	}
	if _, err := l.Build(t.Context(), enginetest.Affine(enginetest.Dims{1}), trt.BuildOptions{}, nil); !errors.Is(err, trt.ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Load([]byte("x"), trt.EngineOptions{}); !errors.Is(err, trt.ErrClosed) {
		t.Error(err)
	}
}

// child runs this test binary anew in a role of childMain and gives what it prints.
func child(t *testing.T, role, dir string, env ...string) string {
	t.Helper()
	// Under an emulator a program of the other machine is started through it too.
	args := append(strings.Fields(os.Getenv("FULMAR_TEST_RUNNER")), os.Args[0], "-test.run=^$")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "FULMAR_TRT_ROLE="+role, "FULMAR_TRT_DIR="+dir)
	for _, e := range env {
		cmd.Env = append(cmd.Env, "FULMAR_DOUBLE_"+e)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s(%v)", out, err)
	}
	return string(out)
}

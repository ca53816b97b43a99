// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/tensor"
	"fulmar/inference/trt"
	"fulmar/inference/trt/trttest"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("FULMAR_TRT_ROLE"); role != "" {
		if err := childMain(role, filepath.SplitList(os.Getenv("FULMAR_TRT_DIR"))); err != nil {
			fmt.Println("failed:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func childMain(role string, dirs []string) error {
	var log bytes.Buffer
	h := slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})
	l, err := trt.Open(trt.Options{Dirs: dirs, Log: slog.New(h), DriverOnly: role == "fault"})
	if role == "open" || err != nil {
		fmt.Println(err)
		return err
	}
	switch role {
	case "fault":
		err := l.Fault()
		fmt.Println("lost:", l.Lost(), err)
		fmt.Println("again:", l.Fault())
		fmt.Println("close:", l.Close())
		return nil
	case "life":
		err = life(l)
	case "sticky":
		return sticky(l)
	case "memory":
		return memory(l)
	}
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	fmt.Print(log.String())
	fmt.Println("lived")
	return nil
}

// life calls each method of the library that the bridge knows.
func life(l *trt.Library) error {
	ctx := context.Background()
	if _, err := l.Build(ctx, []byte("junk"), trt.BuildOptions{Level: -1}, nil); !errors.Is(err, trt.ErrNetwork) || !strings.Contains(err.Error(), "node") {
		return fmt.Errorf("junk: %w", err)
	}
	open := enginetest.Affine(enginetest.Dims{-1, 3, 4, 5})
	var seen []trt.Progress
	built, err := l.Build(ctx, open, trt.BuildOptions{MaxBatch: 4, FP16: true, INT8: true, Level: 2, Threads: 2, Workspace: 1 << 20}, func(p trt.Progress) { seen = append(seen, p) })
	if err != nil {
		return err
	}
	if i := l.Info(); i.Major >= 10 && !slices.ContainsFunc(seen, func(p trt.Progress) bool { return p.Done > 0 && p.Of > 1 }) {
		return fmt.Errorf("progress is %v", seen)
	} else if i.DLACores != 2 {
		return fmt.Errorf("%d DLA cores", i.DLACores)
	}
	if err := runs(l, built.Plan, trt.EngineOptions{Graphs: true}); err != nil {
		return err
	}
	if l.Info().Major >= 10 {
		over, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := l.Build(over, open, trt.BuildOptions{Level: -1, FP16: true, INT8: true}, nil); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a cancelled build: %w", err)
		}
	}
	dla := trt.BuildOptions{DLA: true, DLACore: 1, Level: -1, INT8: true}
	if l.Info().Major < 11 {
		dla.Calibration = []byte("TRT-8600-EntropyCalibration2\nx: 3c010a14\n")
	}
	built, err = l.Build(ctx, enginetest.Affine(enginetest.Dims{1, 3, 4, 5}), dla, nil)
	if err != nil {
		return err
	}
	if len(built.OnGPU) == 0 {
		return errors.New("no layer was left to the GPU: canRunOnDLA is not asked")
	}
	return runs(l, built.Plan, trt.EngineOptions{DLA: true, DLACore: 1})
}

// runs computes with a plan of 2x + 1 over [n, 3, 4, 5] in all its batch sizes.
func runs(l *trt.Library, plan []byte, o trt.EngineOptions) error {
	e, err := l.Load(plan, o)
	if err != nil {
		return err
	}
	x, y := e.Inputs()[0].Float32(), e.Outputs()[0].Float32()
	for round := range 3 {
		for n := 1; n <= e.MaxBatch(); n++ {
			for i := range x {
				x[i] = float32(i + 100*n + round)
			}
			if err := e.RunBatch(context.Background(), n); err != nil {
				return err
			}
			for i := range 60 * n {
				if y[i] != 2*x[i]+1 {
					return fmt.Errorf("batch %d: value %d is %v, wants %v", n, i, y[i], 2*x[i]+1)
				}
			}
		}
	}
	if e.RunBatch(context.Background(), 0) == nil || e.RunBatch(context.Background(), e.MaxBatch()+1) == nil {
		return errors.New("a batch out of range was taken")
	}
	if o.Graphs && e.Graphs() == 0 {
		return errors.New("no graph was captured")
	}
	if s := e.Inspect(); !strings.Contains(s, "{") {
		return fmt.Errorf("the inspector says %q", s)
	}
	return e.Close()
}

// sticky runs until the device is lost and then tries everything: nothing may hang or
// crash, and all says the same.
func sticky(l *trt.Library) error {
	ctx := context.Background()
	built, err := l.Build(ctx, enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{Level: -1}, nil)
	if err != nil {
		return err
	}
	e, err := l.Load(built.Plan, trt.EngineOptions{Graphs: true})
	if err != nil {
		return err
	}
	n := 0
	for ; n < 100 && err == nil; n++ {
		err = e.Run(ctx)
	}
	fmt.Printf("run %d: %v\n", n, err)
	var call *trt.CallError
	if !errors.Is(err, trt.ErrDevice) || !errors.As(err, &call) || !call.Sticky() || call.Code != 700 || !l.Lost() {
		return fmt.Errorf("not told as a lost device: %w", err)
	}
	if err := e.Run(ctx); !errors.Is(err, trt.ErrDevice) {
		return fmt.Errorf("the run after: %w", err)
	}
	if _, err := l.Load(built.Plan, trt.EngineOptions{}); !errors.Is(err, trt.ErrDevice) {
		return fmt.Errorf("a load after: %w", err)
	}
	return errors.Join(e.Close(), l.Close())
}

// memory loads with a device that has no room for the OOM-th block.
func memory(l *trt.Library) error {
	built, err := l.Build(context.Background(), enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{Level: -1}, nil)
	if err != nil {
		return err
	}
	e, err := l.Load(built.Plan, trt.EngineOptions{})
	if err == nil {
		fmt.Println("enough")
		return errors.Join(e.Close(), l.Close())
	}
	if !errors.Is(err, trt.ErrMemory) {
		return err
	}
	fmt.Println("refused:", err)
	// The device is as good as before.
	if e, err = l.Load(built.Plan, trt.EngineOptions{}); err != nil {
		return err
	}
	return errors.Join(e.Close(), l.Close())
}

// living runs a child and wants it to live, with no object of the library left.
func living(t *testing.T, role, dir string, env ...string) string {
	t.Helper()
	left := filepath.Join(t.TempDir(), "left")
	out := child(t, role, dir, append(env, "LIVE_AT_EXIT="+left)...)
	b, err := os.ReadFile(left)
	if err != nil || !strings.HasPrefix(string(b), "live 0:") {
		t.Errorf("objects left: %s, %v\n%s", b, err, out)
	}
	return out
}

func TestLife(t *testing.T) {
	for _, c := range []struct {
		major   int
		version string
	}{{8, "8.5.2"}, {8, "8.6.1"}, {10, "10.0.0"}, {10, "10.3.0"}, {10, "10.16.0"}, {11, "11.0.0"}, {11, "11.1.0"}} {
		t.Run(c.version, func(t *testing.T) {
			t.Parallel()
			dir := trttest.Double(t, c.major, trttest.Version(c.version))
			for _, integrated := range []string{"0", "1"} {
				out := living(t, "life", dir, "DLA=2", "INTEGRATED="+integrated, "BUILDMS=250")
				if !strings.Contains(out, "lived") || !strings.Contains(out, "double runtime "+c.version) {
					t.Error(out)
				}
			}
		})
	}
}

func TestLostDevice(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		dir := trttest.Double(t, major)
		for _, n := range []string{"1", "2", "3", "7"} {
			out := child(t, "sticky", dir, "STICKY="+n)
			if !strings.Contains(out, "CUDA_ERROR_ILLEGAL_ADDRESS (700)") || strings.Contains(out, "failed") {
				t.Errorf("at %s: %s", n, out)
			}
		}
	})
}

func TestMemory(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		dir := trttest.Double(t, major)
		refused := 0
		for n := 1; ; n++ {
			out := living(t, "memory", dir, fmt.Sprintf("OOM=%d", n))
			switch {
			case strings.Contains(out, "enough") && refused >= 3:
				return
			case strings.Contains(out, "refused: ") && strings.Contains(strings.ToLower(out), "memory"):
				refused++
			default:
				t.Fatalf("block %d: %s", n, out)
			}
		}
	})
}

// TestShifted is the negative control of the tables: with any one method of the
// library at another place than the table says, the life above does not succeed.
func TestShifted(t *testing.T) {
	// Those that a life does not call, or whose effect nobody sees.
	blind := map[string]string{
		"Int8Calibrator::getBatch":              "never called where there is a cache",
		"Int8Calibrator::writeCalibrationCache": "never called where there is a cache",
		"ProgressMonitor::phaseFinish":          "says nothing that the last step has not said",
	}
	if major10 := trttest.Methods(10); !slices.Contains(major10, "ProgressMonitor::phaseFinish") {
		t.Fatal("the list above does not fit the table")
	}
	each(t, func(t *testing.T, major int) {
		dir := trttest.Double(t, major)
		switch major { // what the newest minor version has a better one for
		case 8:
			blind["CudaEngine::createExecutionContext"] = "8 takes the one without device memory"
		case 10:
			delete(blind, "CudaEngine::createExecutionContext")
			blind["CudaEngine::createExecutionContextWithoutDeviceMemory"] = "an argument of createExecutionContext since 10"
			blind["CudaEngine::getDeviceMemorySize"] = "V2 from 10.1 on; TestLife runs 10.0 too"
			blind["ExecutionContext::setDeviceMemory"] = "V2 from 10.1 on; TestLife runs 10.0 too"
		}
		var wg sync.WaitGroup
		room := make(chan struct{}, runtime.GOMAXPROCS(0))
		for _, m := range trttest.Methods(major) {
			if blind[m] != "" {
				continue
			}
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				out := child(t, "life", dir, "SHIFT="+m, "DLA=2", "BUILDMS=250")
				if strings.Contains(out, "lived") && strings.Contains(out, "double runtime") {
					t.Errorf("%s may lie elsewhere and nothing is seen:\n%s", m, out)
				}
			})
		}
		wg.Wait()
	})
}

// TestPreprocess: the kernel through the double, which runs its source as C.
func TestPreprocess(t *testing.T) {
	for _, integrated := range []string{"0", "1"} {
		t.Setenv("FULMAR_DOUBLE_INTEGRATED", integrated)
		l := opened(t, 10)
		enginetest.Preprocess(t, l.Preprocess)
		e, err := engine(t.Context(), l, enginetest.Affine(enginetest.Dims{-1, 3, 24, 32}), trt.BuildOptions{MaxBatch: 3}, trt.EngineOptions{Graphs: true})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		s := tensor.Spec{Width: 32, Height: 24, Pad: 114, Scale: 1.0 / 255, Std: [3]float32{1, 1, 1}}
		preps := make([]model.Prep, 3)
		for i := range preps {
			if preps[i], err = e.NewPrep(s, i); err != nil {
				t.Fatal(err)
			}
		}
		want := make([]float32, 3*32*24)
		cpu, err := tensor.NewPrep(s, want)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 4 {
			imgs := []image.Image{enginetest.Noise(64, 48), enginetest.Noise(100+round, 31), image.NewGray(image.Rect(3, 4, 40, 33))}
			var ms [3]tensor.Mapping
			for i, img := range imgs {
				if ms[i], err = preps[i].Run(img); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.RunBatch(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			for i, img := range imgs {
				m, err := cpu.Run(img)
				if err != nil {
					t.Fatal(err)
				}
				if m != ms[i] {
					t.Errorf("the way back is %+v, wants %+v", ms[i], m)
				}
				got := e.Outputs()[0].Float32()[i*len(want):]
				for k, v := range want {
					if got[k] != 2*v+1 {
						t.Fatalf("picture %d, value %d: %v, wants %v", i, k, got[k], 2*v+1)
					}
				}
			}
		}
		if n := testing.AllocsPerRun(50, func() {
			_, _ = preps[0].Run(noiseFrame)
			_ = e.RunBatch(t.Context(), 1)
		}); n != 0 {
			t.Errorf("a picture allocates %v times", n)
		}
		if _, err := preps[0].Run(image.NewRGBA(image.Rect(0, 0, 0, 4))); !errors.Is(err, tensor.ErrImage) {
			t.Error(err)
		}
	}
}

var noiseFrame = enginetest.Noise(64, 48)

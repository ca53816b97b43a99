// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gpu_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/inference/enginetest"
	"fulmar/inference/tensor"
	"fulmar/inference/trt"
)

// row measures one batch size: a bare enqueue, a bare loop with copies, our run without
// and with a graph.
func row(t *testing.T, l *trt.Library, plan []byte, batch int) string {
	t.Helper()
	var engines [2]*trt.Engine
	for i, graphs := range []bool{false, true} {
		e, err := l.Load(plan, trt.EngineOptions{Graphs: graphs})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		for k := range e.Inputs()[0].Float32() {
			e.Inputs()[0].Float32()[k] = float32(k % 255)
		}
		for range 20 { // the first runs load kernels and capture
			if err := e.RunBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		engines[i] = e
	}
	const runs, rounds = 100, 5
	ours := func(e *trt.Engine) time.Duration {
		start := time.Now()
		for range runs {
			if err := e.RunBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(start)
	}
	raw := func(copies bool) time.Duration {
		d, err := engines[0].Raw(batch, runs, copies)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	var enqueue, bare, run, graph, r1, r2 []float64
	for range rounds {
		b := raw(true).Seconds()
		o, g := ours(engines[0]).Seconds(), ours(engines[1]).Seconds()
		enqueue, bare, run, graph = append(enqueue, raw(false).Seconds()), append(bare, b), append(run, o), append(graph, g)
		r1, r2 = append(r1, b/o), append(r2, b/g)
	}
	ms := func(v []float64) float64 { return 1000 * median(v) / runs }
	if engines[1].Graphs() == 0 {
		t.Errorf("batch %d: no graph was captured", batch)
	}
	return fmt.Sprintf("%.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.0f", ms(enqueue), ms(bare), ms(run), ms(graph), median(r1), median(r2), float64(batch)*1000/ms(graph))
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// TestCUDATable prints how long preprocessing takes on the device and on one core of
// the CPU, for docs/benchmarks.md.
func TestCUDATable(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "cuda"), DriverOnly: true})
	var b strings.Builder
	fmt.Fprintln(&b, "| picture | input | on the GPU with its copy us | the kernel alone us | one CPU core us | ratio |")
	for _, size := range [][2]int{{640, 384}, {1280, 720}, {1920, 1080}, {3840, 2160}} {
		for _, side := range []int{416, 640} {
			s := tensor.Spec{Width: side, Height: side, Pad: 114, Scale: 1, Std: [3]float32{1, 1, 1}}
			img := enginetest.Noise(size[0], size[1])
			var copied, alone, cpu []float64
			p, err := tensor.NewPrep(s, make([]float32, 3*side*side))
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				c, a, err := l.TimePreprocess(s, img, 50)
				if err != nil {
					t.Fatal(err)
				}
				const runs = 10
				start := time.Now()
				for range runs {
					if _, err := p.Run(img); err != nil {
						t.Fatal(err)
					}
				}
				copied, alone, cpu = append(copied, c.Seconds()), append(alone, a.Seconds()), append(cpu, time.Since(start).Seconds()/runs)
			}
			us := func(v []float64) float64 { return 1e6 * median(v) }
			fmt.Fprintf(&b, "| %dx%d | %d | %.0f | %.1f | %.0f | %.1f |\n", size[0], size[1], side, us(copied), us(alone), us(cpu), us(cpu)/us(copied))
		}
	}
	t.Logf("\n%s", b.String())
}

// TestTRTRuntime: a runtime is made on a device, by any flavour of the library, and
// refuses what is no plan in its own words.
func TestTRTRuntime(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "trt")})
	t.Logf("%+v", l.Info())
	_, err := l.Load([]byte("this is no plan at all, and it is long enough to look like the beginning of one"), trt.EngineOptions{})
	if !errors.Is(err, trt.ErrPlan) {
		t.Error(err)
	}
	t.Log(err)
}

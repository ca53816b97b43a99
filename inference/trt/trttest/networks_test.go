// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trttest_test

import (
	"encoding/binary"
	"fmt"
	"image"
	_ "image/jpeg" // golden pictures
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/ort"
	"fulmar/inference/tensor"
	"fulmar/models/parcels"
)

// open opens ONNX Runtime once for this test process.
var open = sync.OnceValues(func() (*ort.Runtime, error) { return ort.Open(os.Getenv("FULMAR_TEST_LIBRARY")) })

func reference(t *testing.T) *ort.Runtime {
	t.Helper()
	t.Setenv("FULMAR_TEST_LIBRARY", enginetest.Library(t))
	r, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNetworks holds what the double computes to ONNX Runtime: its numbers are what
// tests of the bridge believe in.
func TestNetworks(t *testing.T) {
	r := reference(t)
	bench := newBench(t, driver(t), 10)
	file := func(name string) []byte {
		b, err := fs.ReadFile(parcels.Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	golden, err := fs.Glob(parcels.Files(), "golden/*.jpg")
	if err != nil || len(golden) == 0 {
		t.Fatal("no golden pictures", err)
	}
	// both gives what the double and what ONNX Runtime compute.
	both := func(t *testing.T, network []byte, fill func(*testing.T, *tensor.Tensor)) (got, want []float32) {
		s, err := r.NewSession(network, ort.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		fill(t, s.Inputs()[0])
		if err := s.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		return bench.compute(t, network, s.Inputs()[0].Float32(), 1), slices.Clone(s.Outputs()[0].Float32())
	}
	for name, network := range map[string][]byte{
		"affine": enginetest.Affine(enginetest.Dims{1, 3, 4, 5}), "quantized": enginetest.Quantized(),
		"constant": enginetest.Constant(enginetest.Dims{1, 3, 4, 4}, enginetest.Dims{2, 3}, []float32{1, -2, 3, 4.5, 5, 6e6}),
	} {
		t.Run(name, func(t *testing.T) {
			got, want := both(t, network, noise)
			near(t, got, want)
		})
	}
	for _, g := range golden[:2] {
		t.Run("parcels "+filepath.Base(g), func(t *testing.T) {
			fill := func(t *testing.T, in *tensor.Tensor) { picture(t, g, in, 1.0/255) }
			got, full := both(t, file("parcels_fp32.onnx"), fill)
			near(t, got, full)
			// ONNX Runtime sums INT8 in integers and fuses layers; what then lies on the other
			// side of a step moves everything after it. TestOperators holds single layers.
			got, want := both(t, file("parcels_int8.onnx"), fill)
			d, step := distance(got, want), distance(full, want)
			t.Logf("INT8: the mean difference is %.3g, that to FP32 %.3g", d, step)
			if d > step*0.6 || d > 0.008 {
				t.Errorf("INT8 values differ by %.3g in the mean; FP32 differs by %.3g", d, step)
			}
		})
	}
	t.Run("yolox_nano.onnx", func(t *testing.T) {
		b, err := os.ReadFile(enginetest.Shared(t, "models", "yolox_nano.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		got, want := both(t, b, func(t *testing.T, in *tensor.Tensor) { picture(t, golden[0], in, 1) })
		near(t, got, want)
	})
}

// TestBatch: each picture of a batch is computed, and for itself.
func TestBatch(t *testing.T) {
	b := newBench(t, driver(t), 8)
	in := make([]float32, 3*60)
	for i := range in {
		in[i] = float32(i)
	}
	out := b.compute(t, enginetest.Affine(enginetest.Dims{-1, 3, 4, 5}), in, 3)
	for i := range in {
		if out[i] != 2*in[i]+1 {
			t.Fatalf("value %d is %v", i, out[i])
		}
	}
}

// compute runs a network in the driver.
func (b *bench) compute(t *testing.T, network []byte, in []float32, n int) []float32 {
	t.Helper()
	dir := t.TempDir()
	model, from, to := filepath.Join(dir, "network.onnx"), filepath.Join(dir, "in"), filepath.Join(dir, "out")
	raw := make([]byte, 0, 4*len(in))
	for _, v := range in {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	for name, b := range map[string][]byte{model: network, from: raw} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), b.driver, b.dir, fmt.Sprint(b.major), "run", model, fmt.Sprint(n), from, to)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	raw, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

// distance is the mean absolute difference.
func distance(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += math.Abs(float64(a[i] - b[i]))
	}
	return sum / float64(len(a))
}

// near allows a difference of 1e-3 of the value, and of the largest one's 1e-4 for what
// is near zero.
func near(t *testing.T, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	var most, worst float64
	for _, v := range want {
		most = max(most, math.Abs(float64(v)))
	}
	wrong := 0
	for i, v := range want {
		d := math.Abs(float64(got[i] - v))
		if !(d <= 1e-3*math.Abs(float64(v))+1e-4*min(most, 1)) {
			if wrong++; wrong < 5 {
				t.Errorf("value %d is %v, want %v", i, got[i], v)
			}
		}
		worst = max(worst, d/(math.Abs(float64(v))+1e-2))
	}
	t.Logf("%d values up to %.4g, %d differ, the worst relative difference is %.2g", len(want), most, wrong, worst)
}

func noise(_ *testing.T, in *tensor.Tensor) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range in.Float32() {
		in.Float32()[i] = r.Float32()*4 - 2
	}
}

// picture fills a network's input from a golden picture, by the nearest pixel.
func picture(t *testing.T, name string, in *tensor.Tensor, scale float32) {
	t.Helper()
	f, err := parcels.Files().Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	h, w, b := in.Shape()[2], in.Shape()[3], img.Bounds()
	for y := range h {
		for x := range w {
			r, g, bl, _ := img.At(b.Min.X+x*b.Dx()/w, b.Min.Y+y*b.Dy()/h).RGBA()
			for c, v := range []uint32{r, g, bl} {
				in.Float32()[(c*h+y)*w+x] = float32(v>>8) * scale
			}
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package enginetest is the suite that each model.Engine passes, and what tests of
// engines need: small networks written here, and the places of the library and of
// the public data. It is for tests only.
package enginetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"fulmar/inference/model"
	"fulmar/inference/tensor"
)

// Run checks that the engines that open makes keep the contract of model.Engine.
func Run(t *testing.T, open func(network []byte) (model.Engine, error)) {
	start := func(t *testing.T) model.Engine {
		t.Helper()
		e, err := open(Affine(Dims{1, 3, 4, 5}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	t.Run("shapes", func(t *testing.T) { shapes(t, start(t)) })
	t.Run("computes", func(t *testing.T) { computes(t, start(t)) })
	t.Run("allocates nothing", func(t *testing.T) { allocates(t, start(t)) })
	t.Run("ended context", func(t *testing.T) { ended(t, start(t)) })
	t.Run("close", func(t *testing.T) { closes(t, start(t)) })
	t.Run("side by side", func(t *testing.T) { sideBySide(t, start(t), start(t)) })
	t.Run("open batch is one", func(t *testing.T) {
		e, err := open(Affine(Dims{-1, 3, 4, 5}))
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		computes(t, e)
	})
	t.Run("quantized", func(t *testing.T) {
		e, err := open(Quantized())
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		quantized(t, e)
	})
	t.Run("refuses", func(t *testing.T) { refuses(t, open) })
}

func shapes(t *testing.T, e model.Engine) {
	in, out := e.Inputs(), e.Outputs()
	if len(in) != 1 || len(out) != 1 {
		t.Fatalf("%d inputs and %d outputs, want 1 and 1", len(in), len(out))
	}
	if in[0].Name() != "x" || out[0].Name() != "y" {
		t.Errorf("named %s and %s, want x and y", in[0].Name(), out[0].Name())
	}
	for _, v := range []*tensor.Tensor{in[0], out[0]} {
		if v.Type() != tensor.Float32 || !slices.Equal(v.Shape(), []int{1, 3, 4, 5}) {
			t.Errorf("%v, want float32 [1 3 4 5]", v)
		}
	}
	if &e.Inputs()[0].Float32()[0] != &in[0].Float32()[0] {
		t.Error("the input's memory moved")
	}
}

// computes runs twice with other numbers, so that a stale output is seen.
func computes(t *testing.T, e model.Engine) {
	for _, first := range []float32{1, -7} {
		x, y := e.Inputs()[0].Float32(), e.Outputs()[0].Float32()
		for i := range x {
			x[i] = first + float32(i)
		}
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range y {
			if want := 2*(first+float32(i)) + 1; math.Abs(float64(y[i]-want)) > 1e-3 {
				t.Fatalf("value %d is %v, want %v", i, y[i], want)
			}
		}
		if x[0] != first {
			t.Error("a run changed its input")
		}
	}
}

func quantized(t *testing.T, e model.Engine) {
	x, y := e.Inputs()[0].Float32(), e.Outputs()[0].Float32()
	for i := range x {
		x[i] = 1
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range y {
		if math.Abs(float64(v)-64) > 0.64 {
			t.Fatalf("value %d is %v, want 64: INT8 sums are not exact", i, v)
		}
	}
}

func allocates(t *testing.T, e model.Engine) {
	ctx := t.Context()
	if n := testing.AllocsPerRun(200, func() {
		if err := e.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a run allocates %v times, want 0", n)
	}
}

func ended(t *testing.T, e model.Engine) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("run with an ended context: %v, want %v", err, context.Canceled)
	}
	computes(t, e)
}

func closes(t *testing.T, e model.Engine) {
	for range 2 {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := e.Run(t.Context()); err == nil {
		t.Error("a closed engine ran")
	}
}

func sideBySide(t *testing.T, a, b model.Engine) {
	var wg sync.WaitGroup
	for i, e := range []model.Engine{a, b} {
		wg.Go(func() {
			x, y := e.Inputs()[0].Float32(), e.Outputs()[0].Float32()
			for n := range 200 {
				x[0] = float32(1000*i + n)
				if err := e.Run(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if want := 2*x[0] + 1; y[0] != want {
					t.Errorf("engine %d: %v, want %v", i, y[0], want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func refuses(t *testing.T, open func([]byte) (model.Engine, error)) {
	good := Affine(Dims{1, 3, 4, 5})
	for name, network := range map[string][]byte{
		"empty":            nil,
		"text":             []byte("this is no network"),
		"cut":              good[:len(good)/2],
		"an open width":    Affine(Dims{1, 3, 4, -1}),
		"a huge dimension": Affine(Dims{1, 3, 1 << 20, 1 << 20}),
		"doubles":          Cast(Dims{1, 4}),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := open(network)
			if err == nil {
				e.Close()
				t.Fatal("it was taken")
			}
			oneLine(t, err)
		})
	}
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	for _, r := range err.Error() {
		if r == '\n' {
			t.Errorf("the error has more than one line: %q", err)
			return
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"fulmar/inference/model"
	"fulmar/inference/tensor"
)

// RunBatch checks that the engines that open makes of networks with an open batch keep
// the contract of model.Batcher, each for at least two pictures. What they are as a
// model.Engine, [Run] checks.
func RunBatch(t *testing.T, open func(network []byte) (model.Engine, error)) {
	start := func(t *testing.T) batcher {
		t.Helper()
		e, err := open(Affine(Dims{-1, 3, 4, 5}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		b, ok := e.(batcher)
		if !ok || b.MaxBatch() < 2 {
			t.Fatalf("%T takes no batches of at least 2", e)
		}
		return b
	}
	t.Run("shapes", func(t *testing.T) { batchShapes(t, start(t)) })
	t.Run("each size", func(t *testing.T) { eachSize(t, start(t)) })
	t.Run("run is all", func(t *testing.T) {
		b := start(t)
		batch(t, b, b.MaxBatch(), 5, b.Run)
	})
	t.Run("allocates nothing", func(t *testing.T) { batchAllocates(t, start(t)) })
	t.Run("ended context", func(t *testing.T) {
		b := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.RunBatch(ctx, 2); !errors.Is(err, context.Canceled) {
			t.Errorf("run with an ended context: %v, want %v", err, context.Canceled)
		}
		runBatch(t, b, 2, 1)
	})
	t.Run("refuses sizes", func(t *testing.T) { refusesSizes(t, start(t)) })
	t.Run("close", func(t *testing.T) {
		b := start(t)
		for range 2 {
			if err := b.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if err := b.RunBatch(t.Context(), 1); err == nil {
			t.Error("a closed engine ran")
		}
	})
	t.Run("side by side", func(t *testing.T) {
		var wg sync.WaitGroup
		for i, b := range []batcher{start(t), start(t)} {
			wg.Go(func() {
				for k := range 100 {
					runBatch(t, b, 1+k%b.MaxBatch(), float32(100*i+k))
				}
			})
		}
		wg.Wait()
	})
}

// batcher is an engine for several pictures.
type batcher interface {
	model.Engine
	model.Batcher
}

func batchShapes(t *testing.T, b batcher) {
	in, out := b.Inputs(), b.Outputs()
	if len(in) != 1 || len(out) != 1 || in[0].Name() != "x" || out[0].Name() != "y" {
		t.Fatalf("inputs %v and outputs %v, want x and y", in, out)
	}
	for _, v := range []*tensor.Tensor{in[0], out[0]} {
		if v.Type() != tensor.Float32 || !slices.Equal(v.Shape(), []int{b.MaxBatch(), 3, 4, 5}) {
			t.Errorf("%v, want float32 [%d 3 4 5]", v, b.MaxBatch())
		}
	}
	if &b.Inputs()[0].Float32()[0] != &in[0].Float32()[0] {
		t.Error("the input's memory moved")
	}
}

func batchAllocates(t *testing.T, b batcher) {
	ctx := t.Context()
	for _, n := range []int{1, b.MaxBatch()} {
		if a := testing.AllocsPerRun(100, func() {
			if err := b.RunBatch(ctx, n); err != nil {
				t.Fatal(err)
			}
		}); a != 0 {
			t.Errorf("a run of %d allocates %v times, want 0", n, a)
		}
	}
}

func refusesSizes(t *testing.T, b batcher) {
	for _, n := range []int{0, -1, b.MaxBatch() + 1, math.MaxInt} {
		err := b.RunBatch(t.Context(), n)
		if err == nil {
			t.Errorf("a run of %d of %d pictures was taken", n, b.MaxBatch())
			continue
		}
		oneLine(t, err)
	}
	runBatch(t, b, 1, 3)
}

// eachSize goes up and down, so that what a run of another size left behind is seen.
func eachSize(t *testing.T, b batcher) {
	for n := 1; n <= b.MaxBatch(); n++ {
		runBatch(t, b, n, float32(n))
	}
	for n := b.MaxBatch(); n >= 1; n-- {
		runBatch(t, b, n, float32(-20*n))
	}
}

func runBatch(t *testing.T, b batcher, n int, first float32) {
	t.Helper()
	batch(t, b, n, first, func(ctx context.Context) error { return b.RunBatch(ctx, n) })
}

// batch runs n pictures that all differ and compares each with what it is alone.
func batch(t *testing.T, b batcher, n int, first float32, run func(context.Context) error) {
	t.Helper()
	x, y := b.Inputs()[0].Float32(), b.Outputs()[0].Float32()
	// Small whole numbers, exact in any precision; no two pictures of 60 are alike.
	number := func(i int) float32 { return float32(i % 97) }
	for i := range x {
		x[i] = first + number(i)
	}
	for i := range y {
		y[i] = -1e6 // a picture that is left out is seen
	}
	if err := run(t.Context()); err != nil {
		t.Error(err)
		return
	}
	size := len(x) / b.MaxBatch()
	for i := range n * size {
		if want := 2*(first+number(i)) + 1; math.Abs(float64(y[i]-want)) > 1e-3 {
			t.Errorf("%d pictures: value %d of picture %d is %v, want %v", n, i%size, i/size, y[i], want)
			return
		}
		if x[i] != first+number(i) {
			t.Errorf("%d pictures: a run changed picture %d", n, i/size)
			return
		}
	}
}

// Batched makes of an engine for one picture one for n, which computes them one after
// the other: for tests of what stands on a model.Batcher, with real results.
func Batched(e model.Engine, n int) (model.Engine, error) {
	b := &batched{one: e, most: n}
	for i, list := range [][]*tensor.Tensor{e.Inputs(), e.Outputs()} {
		for _, t := range list {
			shape := t.Shape()
			shape[0] = n
			all, err := tensor.New(t.Name(), t.Type(), shape...)
			if err != nil {
				return nil, errors.Join(err, b.Close())
			}
			c := carried{one: t, all: all}
			for k := range n {
				c.parts = append(c.parts, all.Part(k))
			}
			b.tensors[i], b.carry[i] = append(b.tensors[i], all), append(b.carry[i], c)
		}
	}
	return b, nil
}

type batched struct {
	one     model.Engine
	most    int
	tensors [2][]*tensor.Tensor // inputs, outputs
	carry   [2][]carried
}

// carried is a tensor of the one engine and its like for all pictures.
type carried struct {
	one, all *tensor.Tensor
	parts    []*tensor.Tensor
}

func (b *batched) Inputs() []*tensor.Tensor      { return b.tensors[0] }
func (b *batched) Outputs() []*tensor.Tensor     { return b.tensors[1] }
func (b *batched) MaxBatch() int                 { return b.most }
func (b *batched) Run(ctx context.Context) error { return b.RunBatch(ctx, b.most) }

func (b *batched) RunBatch(ctx context.Context, n int) error {
	if n < 1 || n > b.most {
		return fmt.Errorf("a run of %d pictures, wants 1 to %d", n, b.most)
	}
	for i := range n {
		for _, c := range b.carry[0] {
			move(c.one, c.parts[i])
		}
		if err := b.one.Run(ctx); err != nil {
			return err
		}
		for _, c := range b.carry[1] {
			move(c.parts[i], c.one)
		}
	}
	return nil
}

func move(to, from *tensor.Tensor) {
	copy(to.Float32(), from.Float32())
	copy(to.Int64(), from.Int64())
}

func (b *batched) Close() error {
	errs := []error{b.one.Close()}
	for i := range b.tensors {
		for _, t := range b.tensors[i] {
			errs = append(errs, t.Free())
		}
		b.tensors[i], b.carry[i] = nil, nil
	}
	return errors.Join(errs...)
}

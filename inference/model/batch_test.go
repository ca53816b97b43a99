// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"context"
	"errors"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/tensor"
	"fulmar/models/parcels"
	"fulmar/schema"
)

// several is a configuration whose engines take n pictures at once; see, if there is
// one, may put something around each.
func several(tb testing.TB, n int, see func(model.Engine) model.Engine) model.Config {
	cfg := config(tb)
	open := cfg.Open
	cfg.Open = func(network []byte) (model.Engine, error) {
		e, err := open(network)
		if err != nil {
			return nil, err
		}
		if e, err = enginetest.Batched(e, n); err != nil {
			return nil, err
		}
		if see != nil {
			e = see(e)
		}
		return e, nil
	}
	return cfg
}

// counted notes the sizes of an engine's runs.
type counted struct {
	model.Engine
	model.Batcher
	sizes []int
	fail  error
}

func (c *counted) RunBatch(ctx context.Context, n int) error {
	c.sizes = append(c.sizes, n)
	if c.fail != nil {
		return c.fail
	}
	return c.Batcher.RunBatch(ctx, n)
}

func shipped(tb testing.TB, cfg model.Config) *model.Detector {
	tb.Helper()
	p, err := model.Open(parcels.Files())
	if err != nil {
		tb.Fatal(err)
	}
	d, err := p.Load(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Close() })
	return d
}

// wild is a picture whose code panics.
type wild struct{ image.Image }

func (wild) At(int, int) color.Color { panic("no such row") }

// TestBatchIsOneByOne looks at pictures of the model we ship in batches of all sizes,
// bad ones among them, and one by one: the boxes are the same, bit by bit.
func TestBatchIsOneByOne(t *testing.T) {
	var c *counted
	d := shipped(t, several(t, 4, func(e model.Engine) model.Engine {
		c = &counted{Engine: e, Batcher: e.(model.Batcher)}
		return c
	}))
	one := shipped(t, config(t))
	if d.MaxBatch() != 4 || one.MaxBatch() != 1 || d.Info().Golden != one.Info().Golden {
		t.Fatalf("batches of %d and %d, %d and %d golden pictures", d.MaxBatch(), one.MaxBatch(), d.Info().Golden, one.Info().Golden)
	}
	if !slices.Contains(c.sizes, 4) {
		t.Errorf("golden pictures were not looked at from each place: runs of %v", c.sizes)
	}
	var belt line
	var imgs []image.Image
	for i := range 6 {
		img, _ := belt.picture(t, 4*i) // of different sizes
		imgs = append(imgs, img)
	}
	imgs = slices.Insert(imgs, 1, []image.Image{nil, wild{image.NewGray(image.Rect(0, 0, 64, 64))}}...)
	for n := 1; n <= len(imgs); n++ {
		c.sizes = nil
		before := schema.Box{Class: 99}
		dst, errs := make([][]schema.Box, n), make([]error, n)
		for i := range dst {
			dst[i] = []schema.Box{before}
		}
		d.DetectBatch(t.Context(), imgs[:n], dst, errs)
		for i, img := range imgs[:n] {
			if i == 1 || i == 2 {
				if !errors.Is(errs[i], tensor.ErrImage) || len(dst[i]) != 1 || (i == 2) != strings.Contains(errs[i].Error(), "no such row") {
					t.Errorf("%d of %d: %v, %d boxes", i, n, errs[i], len(dst[i]))
				}
				continue
			}
			want, err := one.Detect(t.Context(), img, []schema.Box{before})
			if err != nil || len(want) < 2 {
				t.Fatalf("alone: %v, %d boxes", err, len(want))
			}
			if errs[i] != nil || !slices.Equal(dst[i], want) {
				t.Errorf("%d of %d: %v, boxes %v, alone %v", i, n, errs[i], dst[i], want)
			}
		}
		good := map[int][]int{1: {1}, 2: {1}, 3: {1}, 4: {2}, 5: {2, 1}, 6: {2, 2}, 7: {2, 3}, 8: {2, 4}}[n]
		if !slices.Equal(c.sizes, good) {
			t.Errorf("%d pictures went in runs of %v, want %v", n, c.sizes, good)
		}
	}
	c.sizes = nil
	if got, err := d.Detect(t.Context(), imgs[0], nil); err != nil || len(got) == 0 || !slices.Equal(c.sizes, []int{1}) {
		t.Errorf("one picture: %d boxes, %v, runs of %v", len(got), err, c.sizes)
	}
	c.fail = errors.New("the device says no")
	dst, errs := make([][]schema.Box, 3), make([]error, 3)
	d.DetectBatch(t.Context(), []image.Image{imgs[0], nil, imgs[3]}, dst, errs)
	if !errors.Is(errs[0], c.fail) || errors.Is(errs[1], c.fail) || !errors.Is(errs[2], c.fail) || len(dst[0])+len(dst[2]) != 0 {
		t.Errorf("a run that fails: %v, boxes %v", errs, dst)
	}
}

func TestDetectBatchAllocatesNothing(t *testing.T) {
	d := shipped(t, several(t, 3, nil))
	var belt line
	imgs, dst, errs := make([]image.Image, 3), make([][]schema.Box, 3), make([]error, 3)
	for i := range imgs {
		imgs[i], _ = belt.picture(t, i)
		dst[i] = make([]schema.Box, 0, schema.MaxDetections)
	}
	ctx := t.Context()
	for n := 1; n <= 3; n++ {
		if a := testing.AllocsPerRun(10, func() {
			for i := range dst {
				dst[i] = dst[i][:0]
			}
			d.DetectBatch(ctx, imgs[:n], dst[:n], errs[:n])
			if errs[0] != nil {
				t.Fatal(errs[0])
			}
		}); a != 0 {
			t.Errorf("%d frames allocate %v times, want 0", n, a)
		}
	}
}

// device prepares pictures itself, but for one place of the batch.
type device struct {
	counted
	used  map[int]int
	cpu   int // the place that it refuses
	fault int // of this place the picture is spoiled; -1 none
}

type devicePrep struct {
	*tensor.Prep
	d     *device
	index int
	part  []float32
}

func (d *device) NewPrep(spec tensor.Spec, index int) (model.Prep, error) {
	if index == d.cpu {
		return nil, errors.New("not this one")
	}
	part := d.Inputs()[0].Part(index).Float32()
	p, err := tensor.NewPrep(spec, part)
	return devicePrep{p, d, index, part}, err
}

func (p devicePrep) Run(img image.Image) (tensor.Mapping, error) {
	p.d.used[p.index]++
	m, err := p.Prep.Run(img)
	if p.index == p.d.fault {
		clear(p.part)
	}
	return m, err
}

// TestPreparer has an engine that prepares pictures itself: in all places, or in none
// if it cannot in the first. One that fails in a later place is refused, because what
// the device fills it does not take from the host any more; one that does it wrongly in
// any place is refused by the golden pictures.
func TestPreparer(t *testing.T) {
	dev := &device{used: map[int]int{}, fault: -1}
	cfg := several(t, 3, func(e model.Engine) model.Engine {
		dev.Engine, dev.Batcher = e, e.(model.Batcher)
		return dev
	})
	var belt line
	img, _ := belt.picture(t, 0)
	for _, c := range []struct{ cpu, used int }{{-1, 1}, {0, 0}} {
		dev.cpu = c.cpu
		d := shipped(t, cfg)
		clear(dev.used)
		dst, errs := make([][]schema.Box, 3), make([]error, 3)
		d.DetectBatch(t.Context(), []image.Image{img, img, img}, dst, errs)
		for place := range 3 {
			if dev.used[place] != c.used {
				t.Errorf("with place %d refused, prepared by the device: %v", c.cpu, dev.used)
			}
		}
		if len(dst[0]) == 0 || !slices.Equal(dst[0], dst[1]) || !slices.Equal(dst[0], dst[2]) {
			t.Errorf("boxes %v, errors %v", dst, errs)
		}
	}
	p, err := model.Open(parcels.Files())
	if err != nil {
		t.Fatal(err)
	}
	dev.cpu = 1
	if _, err := p.Load(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "place 1 of 3: not this one") {
		t.Errorf("a later place that cannot be prepared: %v", err)
	}
	dev.cpu, dev.fault = -1, 2
	if _, err := p.Load(t.Context(), cfg); !errors.Is(err, model.ErrGolden) || !strings.Contains(err.Error(), "in place 3 of 3") {
		t.Errorf("a place that is prepared wrongly: %v, want %v", err, model.ErrGolden)
	}
}

// oddOutputs gives outputs that are not of the batch.
type oddOutputs struct{ counted }

func (o *oddOutputs) Outputs() []*tensor.Tensor {
	return []*tensor.Tensor{o.counted.Outputs()[0].Part(0)}
}

func TestOutputsOfAnotherBatch(t *testing.T) {
	p, err := model.Open(pack(sees()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Load(t.Context(), several(t, 3, func(e model.Engine) model.Engine {
		return &oddOutputs{counted{Engine: e, Batcher: e.(model.Batcher)}}
	}))
	if !errors.Is(err, model.ErrNetwork) || !strings.Contains(err.Error(), "3 pictures") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, want %v", err, model.ErrNetwork)
	}
}

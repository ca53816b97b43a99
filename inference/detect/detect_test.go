// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detect_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"fulmar/inference/detect"
	"fulmar/inference/ref"
	"fulmar/inference/tensor"
	"fulmar/schema"
)

func block(tb testing.TB, name string, typ tensor.Type, shape ...int) *tensor.Tensor {
	tb.Helper()
	t, err := tensor.New(name, typ, shape...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Free() })
	return t
}

var (
	yolox = detect.Config{Family: detect.YOLOX, Width: 64, Height: 96, Strides: []int{8, 16, 32}, Classes: 3, Score: 0.3, IoU: 0.45, Max: 100}
	faces = detect.Config{Family: detect.UltraFace, Width: 320, Height: 240, Classes: 1, LabelOffset: 1, Score: 0.5, IoU: 0.3, Max: 200}
	whole = tensor.Mapping{ScaleX: 1, ScaleY: 1, Width: 64, Height: 96}
)

const cells = 8*12 + 4*6 + 2*3

// scene fills an output of YOLOX with n things, each seen by several cells.
func scene(v []float32, r *rand.Rand, n int) {
	for i := range v {
		v[i] = float32(r.NormFloat64() * 0.4)
		if i%8 > 3 {
			v[i] = float32(r.Float64() * 0.2)
		}
	}
	for range n {
		row := v[8*r.IntN(cells):]
		row[4] = float32(0.5 + r.Float64()/2)
		row[5+r.IntN(3)] = float32(0.5 + r.Float64()/2)
		row[2], row[3] = float32(1+r.NormFloat64()/2), float32(1+r.NormFloat64()/2)
	}
}

func TestYOLOXLikeReference(t *testing.T) {
	out := block(t, "out", tensor.Float32, 1, cells, 8)
	d, err := detect.New(yolox, []*tensor.Tensor{out})
	if err != nil {
		t.Fatal(err)
	}
	spec := tensor.Spec{Width: 64, Height: 96, Mode: tensor.Stretch}
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for n := range 60 {
		scene(out.Float32(), r, n)
		same(t, d.Decode(&whole, nil), ref.YOLOX(&spec, &yolox, out.Float32(), 64, 96))
		found += len(d.Decode(&whole, nil))
	}
	if found < 500 {
		t.Errorf("%d boxes in all, too few to say anything", found)
	}
}

func TestUltraFaceLikeReference(t *testing.T) {
	offsets, scores := block(t, "b", tensor.Float32, 1, 4420, 4), block(t, "s", tensor.Float32, 1, 4420, 2)
	d, err := detect.New(faces, []*tensor.Tensor{offsets, scores})
	if err != nil {
		t.Fatal(err)
	}
	spec := tensor.Spec{Width: 320, Height: 240, Mode: tensor.Stretch}
	m := tensor.Mapping{ScaleX: 2, ScaleY: 2, Width: 640, Height: 480}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		for i := range offsets.Float32() {
			offsets.Float32()[i] = float32(r.NormFloat64())
		}
		for i := range 4420 {
			p := float32(math.Pow(r.Float64(), 20))
			scores.Float32()[2*i], scores.Float32()[2*i+1] = 1-p, p
		}
		same(t, d.Decode(&m, nil), ref.UltraFace(&spec, &faces, scores.Float32(), offsets.Float32(), 640, 480))
	}
}

// same compares boxes one by one, in order.
func same(t *testing.T, got, want []schema.Box) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d boxes, the reference has %d", len(got), len(want))
	}
	for i := range want {
		g, w := &got[i], &want[i]
		if g.Class != w.Class || math.Abs(float64(g.Score-w.Score)) > 1e-5 || detect.IoU(g, w) < 0.999 {
			t.Fatalf("box %d is %+v, the reference has %+v", i, *g, *w)
		}
	}
}

func TestBoxes(t *testing.T) {
	c := yolox
	c.Family, c.LabelOffset, c.Max = detect.Boxes, 1, 3
	class, at, score := block(t, "l", tensor.Int64, 1, 5), block(t, "b", tensor.Float32, 1, 5, 4), block(t, "s", tensor.Float32, 1, 5)
	d, err := detect.New(c, []*tensor.Tensor{class, at, score})
	if err != nil {
		t.Fatal(err)
	}
	copy(class.Int64(), []int64{1, 3, 0, math.MaxInt64, 1})
	copy(score.Float32(), []float32{0.5, 0.9, 0.95, 0.99, 0.29})
	for i := range 5 { // all in one place: finished boxes are not suppressed
		copy(at.Float32()[4*i:], []float32{10, 20, 30, 40})
	}
	got := d.Decode(&whole, nil)
	if len(got) != 2 || got[0].Class != 2 || got[1].Class != 0 || got[0].X1 != 30 || got[0].Y0 != 20 {
		t.Errorf("boxes are %+v, want classes 2 and 0: background, unknown classes and weak ones are none", got)
	}
}

func TestCorners(t *testing.T) {
	c := yolox
	c.Family, c.LabelOffset = detect.Corners, 3 // rows of 6 scores
	at, score := block(t, "b", tensor.Float32, 1, 2, 4), block(t, "s", tensor.Float32, 1, 2, 6)
	d, err := detect.New(c, []*tensor.Tensor{score, at})
	if err != nil {
		t.Fatal(err)
	}
	copy(at.Float32(), []float32{0.25, 0.25, 0.5, 0.5, 0, 0, 1, 1})
	score.Float32()[4], score.Float32()[6] = 0.8, 1
	got := d.Decode(&whole, nil)
	if len(got) != 1 || got[0].Class != 1 || got[0].X0 != 16 || got[0].Y0 != 24 || got[0].X1 != 32 || got[0].Y1 != 48 {
		t.Errorf("boxes are %+v, want one of class 1 at 16 24 32 48", got)
	}
}

func TestNewRefuses(t *testing.T) {
	f := func(shape ...int) *tensor.Tensor { return block(t, "f", tensor.Float32, shape...) }
	four := faces
	four.Classes = 3
	unknown, strides, low := yolox, yolox, yolox
	unknown.Family, strides.Strides, low.Score = "yolo99", []int{7}, 0
	for name, c := range map[string]struct {
		cfg detect.Config
		out []*tensor.Tensor
	}{
		"no output":       {yolox, nil},
		"other classes":   {yolox, []*tensor.Tensor{f(1, cells, 9)}},
		"other grid":      {yolox, []*tensor.Tensor{f(1, cells+1, 8)}},
		"channels first":  {yolox, []*tensor.Tensor{f(1, 8, cells)}},
		"integers":        {yolox, []*tensor.Tensor{block(t, "i", tensor.Int64, 1, cells, 8)}},
		"two alike":       {yolox, []*tensor.Tensor{f(1, cells, 8), f(1, cells, 8)}},
		"other priors":    {faces, []*tensor.Tensor{f(1, 4419, 2), f(1, 4419, 4)}},
		"scores like box": {four, []*tensor.Tensor{f(1, 4420, 4), f(1, 4420, 4)}},
	} {
		if _, err := detect.New(c.cfg, c.out); !errors.Is(err, detect.ErrOutputs) {
			t.Errorf("%s: %v, want %v", name, err, detect.ErrOutputs)
		}
	}
	for _, c := range []detect.Config{unknown, strides, low} {
		if _, err := detect.New(c, []*tensor.Tensor{f(1, cells, 8)}); err == nil {
			t.Errorf("taken: %+v", c)
		}
	}
}

// FuzzDecode gives the heads any bits: what comes out is always sane.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0, 0, 192, 127, 0, 0, 128, 127, 0, 0, 128, 63}, uint64(1))
	f.Add([]byte{255, 255, 127, 127, 0, 0, 128, 255}, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 5))
		for _, c := range []detect.Config{yolox, faces, {Family: detect.Boxes, Width: 64, Height: 96, Classes: 3, Score: 0.1, IoU: 0.5, Max: 20}} {
			var out []*tensor.Tensor
			switch c.Family {
			case detect.YOLOX:
				out = []*tensor.Tensor{block(t, "o", tensor.Float32, 1, cells, 8)}
			case detect.UltraFace:
				out = []*tensor.Tensor{block(t, "s", tensor.Float32, 1, 4420, 2), block(t, "b", tensor.Float32, 1, 4420, 4)}
			default:
				out = []*tensor.Tensor{block(t, "s", tensor.Float32, 1, 50), block(t, "b", tensor.Float32, 1, 50, 4), block(t, "l", tensor.Int64, 1, 50)}
			}
			for _, o := range out {
				for i := range o.Float32() {
					o.Float32()[i] = any32(b, r)
				}
				for i := range o.Int64() {
					o.Int64()[i] = int64(r.Uint64()) >> r.IntN(64)
				}
			}
			d, err := detect.New(c, out)
			if err != nil {
				t.Fatal(err)
			}
			m := tensor.Mapping{OffX: 3, OffY: 1, ScaleX: 1.5, ScaleY: 0.7, Width: 80, Height: 60}
			got := d.Decode(&m, nil)
			if len(got) > c.Max {
				t.Fatalf("%d boxes, at most %d", len(got), c.Max)
			}
			for i, g := range got {
				if int(g.Class) >= c.Classes || !(g.Score >= c.Score && g.Score <= 1) || !(g.X0 >= 0 && g.X0 < g.X1 && g.X1 <= 80 && g.Y0 >= 0 && g.Y0 < g.Y1 && g.Y1 <= 60) {
					t.Fatalf("%s: box %+v is not sane", c.Family, g)
				}
				if i > 0 && got[i-1].Score < g.Score {
					t.Fatalf("box %d is better than the one before it", i)
				}
			}
		}
	})
}

// any32 takes four bytes of the input as a float, or a likely one.
func any32(b []byte, r *rand.Rand) float32 {
	if len(b) >= 4 && r.IntN(2) == 0 {
		i := r.IntN(len(b) - 3)
		return math.Float32frombits(uint32(b[i]) | uint32(b[i+1])<<8 | uint32(b[i+2])<<16 | uint32(b[i+3])<<24)
	}
	return r.Float32()
}

// TestMany checks that the number of boxes, and the time for them, have a bound.
func TestMany(t *testing.T) {
	c := yolox
	c.Width, c.Height, c.Score = 1024, 1024, 0.001
	n := 128*128 + 64*64 + 32*32
	out := block(t, "o", tensor.Float32, 1, n, 8)
	for i := range out.Float32() {
		out.Float32()[i] = 1
		if i%8 == 2 || i%8 == 3 {
			out.Float32()[i] = -5 // tiny boxes: none hides another
		}
	}
	d, err := detect.New(c, []*tensor.Tensor{out})
	if err != nil {
		t.Fatal(err)
	}
	m := tensor.Mapping{ScaleX: 1, ScaleY: 1, Width: 1024, Height: 1024}
	if got := d.Decode(&m, nil); len(got) != c.Max {
		t.Errorf("%d boxes, want %d", len(got), c.Max)
	}
	dst := make([]schema.Box, 0, c.Max)
	if a := testing.AllocsPerRun(5, func() { dst = d.Decode(&m, dst[:0]) }); a != 0 {
		t.Errorf("a frame allocates %v times, want 0", a)
	}
}

// TestEvaluate has answers worked out by hand.
func TestEvaluate(t *testing.T) {
	at := func(class uint16, score, x float32) schema.Box {
		return schema.Box{Class: class, Score: score, X0: x, Y0: 0, X1: x + 10, Y1: 10}
	}
	near := func(v, want float64) bool { return math.Abs(v-want) < 1e-9 }
	for name, c := range map[string]struct {
		pairs      []detect.Pair
		map50, mAP float64
	}{
		"all right":    {[]detect.Pair{{Found: []schema.Box{at(0, .9, 0), at(1, .8, 50)}, Truth: []schema.Box{at(0, 1, 0), at(1, 1, 50)}}}, 1, 1},
		"nothing":      {[]detect.Pair{{Truth: []schema.Box{at(0, 1, 0)}}}, 0, 0},
		"no truth":     {[]detect.Pair{{Found: []schema.Box{at(0, 1, 0)}}}, 0, 0},
		"other class":  {[]detect.Pair{{Found: []schema.Box{at(1, .9, 0)}, Truth: []schema.Box{at(0, 1, 0)}}}, 0, 0},
		"other frame":  {[]detect.Pair{{Found: []schema.Box{at(0, .9, 0)}}, {Truth: []schema.Box{at(0, 1, 0)}}}, 0, 0},
		"false before": {[]detect.Pair{{Found: []schema.Box{at(0, .9, 90), at(0, .8, 0)}, Truth: []schema.Box{at(0, 1, 0)}}}, 0.5, 0.5},
		// One of two: precision 1 up to recall 0.5, that is 51 of 101 points.
		"half":  {[]detect.Pair{{Found: []schema.Box{at(0, .9, 0)}, Truth: []schema.Box{at(0, 1, 0), at(0, 1, 50)}}}, 51.0 / 101, 51.0 / 101},
		"twice": {[]detect.Pair{{Found: []schema.Box{at(0, .9, 0), at(0, .8, 0)}, Truth: []schema.Box{at(0, 1, 0), at(0, 1, 50)}}}, 51.0 / 101, 51.0 / 101},
		// Overlap 8/12 = 0.667: right at 0.50, 0.55, 0.60 and 0.65.
		"shifted": {[]detect.Pair{{Found: []schema.Box{at(0, .9, 2)}, Truth: []schema.Box{at(0, 1, 0)}}}, 1, 0.4},
	} {
		if a := detect.Evaluate(c.pairs); !near(a.MAP50, c.map50) || !near(a.MAP, c.mAP) {
			t.Errorf("%s: mAP50 %.4f and mAP %.4f, want %.4f and %.4f", name, a.MAP50, a.MAP, c.map50, c.mAP)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, v := range []struct {
		name   string
		things int
	}{{"quiet", 0}, {"busy", 40}} {
		b.Run(v.name, func(b *testing.B) {
			out := block(b, "o", tensor.Float32, 1, 3549, 85)
			c := yolox
			c.Width, c.Height, c.Classes = 416, 416, 80
			r := rand.New(rand.NewPCG(1, 1))
			for i := range out.Float32() {
				out.Float32()[i] = float32(r.Float64() * 0.2)
			}
			for range v.things {
				row := out.Float32()[85*r.IntN(3549):]
				row[4], row[5+r.IntN(80)] = 0.9, 0.9
			}
			d, err := detect.New(c, []*tensor.Tensor{out})
			if err != nil {
				b.Fatal(err)
			}
			m := tensor.Mapping{ScaleX: 1, ScaleY: 1, Width: 416, Height: 416}
			dst := make([]schema.Box, 0, 300)
			b.ReportAllocs()
			for b.Loop() {
				dst = d.Decode(&m, dst[:0])
			}
		})
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onnxfile_test

import (
	"image"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	onnx "github.com/yalue/onnxruntime_go"

	"fulmar/inference/enginetest"
	"fulmar/inference/onnxfile"
	"fulmar/inference/ort"
	"fulmar/models/parcels"
	"fulmar/models/parcels/scene"
)

var library = sync.OnceValues(func() (*ort.Runtime, error) { return ort.Open(os.Getenv("FULMAR_TEST_LIBRARY")) })

// array is a tensor's values with their shape.
type array struct {
	shape  onnx.Shape
	values []float32
}

// run gives what a network makes of inputs with as many pictures as they have.
func run(tb testing.TB, network []byte, in map[string]array) map[string]array {
	tb.Helper()
	tb.Setenv("FULMAR_TEST_LIBRARY", enginetest.Library(tb))
	if _, err := library(); err != nil {
		tb.Fatal(err)
	}
	ins, outs, err := onnx.GetInputOutputInfoWithONNXData(network)
	if err != nil {
		tb.Fatal(err)
	}
	o, err := onnx.NewSessionOptions()
	if err != nil {
		tb.Fatal(err)
	}
	defer o.Destroy()
	if err := o.AddSessionConfigEntry("session.x64quantprecision", "1"); err != nil {
		tb.Fatal(err)
	}
	var inNames, outNames []string
	var inValues []onnx.Value
	for _, i := range ins {
		a, ok := in[i.Name]
		if !ok {
			tb.Fatalf("the network wants an input %s", i.Name)
		}
		v, err := onnx.NewTensor(a.shape, a.values)
		if err != nil {
			tb.Fatal(err)
		}
		defer v.Destroy()
		inNames, inValues = append(inNames, i.Name), append(inValues, v)
	}
	for _, i := range outs {
		outNames = append(outNames, i.Name)
	}
	s, err := onnx.NewDynamicAdvancedSessionWithONNXData(network, inNames, outNames, o)
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Destroy()
	outValues := make([]onnx.Value, len(outNames))
	if err := s.Run(inValues, outValues); err != nil {
		tb.Fatal(err)
	}
	out := map[string]array{}
	for i, v := range outValues {
		t, ok := v.(*onnx.Tensor[float32])
		if !ok {
			tb.Fatalf("output %s is %T", outNames[i], v)
		}
		out[outNames[i]] = array{t.GetShape().Clone(), append([]float32(nil), t.GetData()...)}
		v.Destroy()
	}
	return out
}

// fill makes pictures for the first input of a network: what a seed gives.
func fill(m *onnxfile.Model, pictures int, from, to float32) map[string]array {
	in := map[string]array{}
	for _, v := range m.Inputs {
		shape := onnx.Shape{int64(pictures)}
		shape = append(shape, v.Dims[1:]...)
		a := array{shape, make([]float32, shape.FlattenedSize())}
		each := len(a.values) / pictures
		for p := range pictures {
			r := rand.New(rand.NewPCG(uint64(p), 7))
			for i := range each {
				a.values[p*each+i] = from + (to-from)*r.Float32()
			}
		}
		in[v.Name] = a
	}
	return in
}

// one cuts a picture out of inputs.
func one(in map[string]array, p, pictures int) map[string]array {
	out := map[string]array{}
	for name, a := range in {
		each := len(a.values) / pictures
		shape := append(onnx.Shape{1}, a.shape[1:]...)
		out[name] = array{shape, a.values[p*each : (p+1)*each]}
	}
	return out
}

// alike is the largest difference between a batch of four and the four pictures run
// one by one through the file as it was.
func alike(tb testing.TB, file, opened []byte, in map[string]array, pictures int) (worst float64) {
	tb.Helper()
	got := run(tb, opened, in)
	for p := range pictures {
		want := run(tb, file, one(in, p, pictures))
		if len(want) != len(got) {
			tb.Fatalf("%d outputs, want %d", len(got), len(want))
		}
		for name, w := range want {
			g := got[name]
			each := len(w.values)
			if g.shape[0] != int64(pictures) || len(g.values) != pictures*each {
				tb.Fatalf("output %s is %v for %d pictures, for one %v", name, g.shape, pictures, w.shape)
			}
			for i, v := range w.values {
				worst = max(worst, math.Abs(float64(v-g.values[p*each+i])))
			}
		}
	}
	return worst
}

// shipped is a network of the model we ship.
func shipped(tb testing.TB, variant string) []byte {
	tb.Helper()
	b, err := fs.ReadFile(parcels.Files(), "parcels_"+variant+".onnx")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// drawn is pictures of the test split as the shipped model takes them.
func drawn(tb testing.TB, pictures int) map[string]array {
	tb.Helper()
	const w, h = 320, 192
	a := array{shape: onnx.Shape{int64(pictures), 3, h, w}}
	for p := range pictures {
		set, frame, err := scene.SplitTest.Sample(4 * p)
		if err != nil {
			tb.Fatal(err)
		}
		sc, err := scene.New(set)
		if err != nil {
			tb.Fatal(err)
		}
		img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
		if _, err := sc.Frame(frame, img); err != nil {
			tb.Fatal(err)
		}
		for c := range 3 {
			for y := range h {
				for x := range w {
					at := img.Pix[img.PixOffset(2*x, 2*y)+c:]
					under := img.Pix[img.PixOffset(2*x, 2*y+1)+c:]
					a.values = append(a.values, float32(int(at[0])+int(at[4])+int(under[0])+int(under[4]))/(4*255))
				}
			}
		}
	}
	return map[string]array{"images": a}
}

func TestOpenBatch(t *testing.T) {
	const pictures = 4
	for _, v := range []string{"fp32", "int8"} {
		t.Run("parcels "+v, func(t *testing.T) { opens(t, shipped(t, v), drawn(t, pictures), pictures) })
	}
	for _, c := range []struct {
		name     string
		from, to float32
	}{
		{"yolox_nano", 0, 255}, {"ultraface_rfb320", -1, 1}, {"yunet_s_640", 0, 255}, {"fastestdet", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(enginetest.Shared(t, "models"), c.name+".onnx"))
			if err != nil {
				t.Fatal(err)
			}
			m, err := onnxfile.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			opens(t, b, fill(m, pictures, c.from, c.to), pictures)
		})
	}
}

func opens(t *testing.T, file []byte, in map[string]array, pictures int) {
	before := string(file)
	opened, err := onnxfile.OpenBatch(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(file) != before {
		t.Error("the bytes given were changed")
	}
	worst := alike(t, file, opened, in, pictures)
	// The control: these pictures do not all give the same.
	for name, a := range run(t, opened, in) {
		if each := len(a.values) / pictures; slices.Equal(a.values[:each], a.values[each:2*each]) {
			t.Errorf("two pictures give the same %s: this test is blind", name)
		}
	}
	t.Logf("%d pictures at once and one by one differ by %.2g at most; %d bytes more", pictures, worst, len(opened)-len(file))
	if worst > 1e-4 {
		t.Errorf("outputs differ by %g", worst)
	}
}

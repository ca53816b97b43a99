// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onnxfile_test

import (
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/onnxfile"
	"fulmar/inference/ort"
	"fulmar/models/parcels"
)

// scales reads a cache as TensorRT does: the first line, then tensors in order.
func scales(tb testing.TB, cache []byte) (first string, names []string, by map[string]float32) {
	tb.Helper()
	by = map[string]float32{}
	lines := strings.Split(string(cache), "\n")
	if lines[len(lines)-1] != "" {
		tb.Error("the last line does not end")
	}
	for _, l := range lines[1 : len(lines)-1] {
		at := strings.LastIndex(l, ": ")
		raw, err := hex.DecodeString(l[at+2:])
		if at < 1 || err != nil || len(raw) != 4 {
			tb.Fatalf("line %q is no tensor and scale", l)
		}
		names = append(names, l[:at])
		by[l[:at]] = math.Float32frombits(uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3]))
	}
	if len(by) != len(names) {
		tb.Error("a tensor has two lines")
	}
	return lines[0], names, by
}

// TestCalibrationOfParcels holds the pair made of the model we ship against the file
// with its Q/DQ nodes.
func TestCalibrationOfParcels(t *testing.T) {
	file := shipped(t, "int8")
	before := string(file)
	stripped, cache, err := onnxfile.Calibration(file, 100300)
	if err != nil {
		t.Fatal(err)
	}
	if string(file) != before {
		t.Error("the bytes given were changed")
	}
	if onnxfile.Quantized(stripped) {
		t.Error("the stripped network has Q/DQ nodes")
	}
	first, names, by := scales(t, cache)
	if first != "TRT-100300-EntropyCalibration2" {
		t.Errorf("the first line is %q", first)
	}
	m, err := onnxfile.Parse(stripped)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{m.Inputs[0].Name: true}
	for _, n := range m.Nodes {
		there[n.Outputs[0]] = true
	}
	for _, n := range names {
		if !there[n] {
			t.Errorf("the cache has a line for %q, which the stripped network does not have", n)
		}
	}
	// Each activation that the file quantizes, looked up here on its own.
	q, err := onnxfile.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]*onnxfile.Tensor{}
	for i := range q.Initializers {
		constants[q.Initializers[i].Name] = &q.Initializers[i]
	}
	quantized := 0
	for _, n := range q.Nodes {
		if n.Op != "QuantizeLinear" || constants[n.Inputs[0]] != nil {
			continue
		}
		quantized++
		want, err := constants[n.Inputs[1]].Floats()
		if err != nil {
			t.Fatal(err)
		}
		if by[n.Inputs[0]] != want[0] {
			t.Errorf("%s has scale %g in the cache, %g in the file", n.Inputs[0], by[n.Inputs[0]], want[0])
		}
	}
	if quantized < 15 {
		t.Errorf("the file quantizes %d activations, this test expects 15 at least", quantized)
	}
	t.Logf("%d activations quantized, %d lines, %d bytes without Q/DQ nodes of %d", quantized, len(names), len(stripped), len(file))
	near(t, file, stripped, drawn(t, 1))
}

// near runs a file and its stripped form; they differ by what rounding to INT8 costs.
func near(t *testing.T, file, stripped []byte, in map[string]array) {
	t.Helper()
	got, want := run(t, stripped, in), run(t, file, in)
	for name, w := range want {
		g := got[name]
		if !slices.Equal(g.shape, w.shape) {
			t.Fatalf("%s is %v, was %v", name, g.shape, w.shape)
		}
		diff, size := 0.0, 0.0
		for i, v := range w.values {
			diff += float64(v-g.values[i]) * float64(v-g.values[i])
			size += float64(v) * float64(v)
		}
		part := math.Sqrt(diff / size)
		t.Logf("%s differs by %.3f of its size", name, part)
		if part > 0.05 {
			t.Errorf("%s differs by %.3f of its size from the network with Q/DQ nodes", name, part)
		}
		if diff == 0 && name == "output" {
			t.Error("nothing was rounded: this test is blind")
		}
	}
}

// TestAccuracyIsKept holds what is made of the shipped INT8 file to the accuracy of
// that file, on the labelled pictures of its package.
func TestAccuracyIsKept(t *testing.T) {
	stripped, _, err := onnxfile.Calibration(shipped(t, "int8"), 8602)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := onnxfile.OpenBatch(shipped(t, "int8"))
	if err != nil {
		t.Fatal(err)
	}
	both, err := onnxfile.OpenBatch(stripped)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FULMAR_TEST_LIBRARY", enginetest.Library(t))
	r, err := library()
	if err != nil {
		t.Fatal(err)
	}
	for name, network := range map[string][]byte{"stripped": stripped, "opened": opened, "stripped and opened": both} {
		p, err := model.Open(parcels.Files())
		if err != nil {
			t.Fatal(err)
		}
		d, err := p.Load(t.Context(), model.Config{Variant: "int8", Engine: "onnxruntime-cpu", Open: func([]byte) (model.Engine, error) {
			return r.NewSession(network, ort.Options{Threads: 2})
		}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		g, err := d.Gate(t.Context(), p)
		t.Logf("%s: mAP50 %.4f, the card says %.4f", name, g.Measured, g.Card)
		if err != nil || math.Abs(g.Measured-g.Card) > 0.01 {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func int8s(name string, shape dims, values ...int8) []byte {
	raw := make([]byte, len(values))
	for i, v := range values {
		raw[i] = byte(v)
	}
	return tensor(name, 3, shape, raw)
}

func TestCalibrationEdges(t *testing.T) {
	// INT8 weights behind a lonely DequantizeLinear, an output behind a pair.
	stripped, cache, err := onnxfile.Calibration(enginetest.Quantized(), 8602)
	if err != nil {
		t.Fatal(err)
	}
	if want := "TRT-8602-EntropyCalibration2\nx: 3c010204\nc: 3f23d70a\ny: 3f23d70a\n"; string(cache) != want {
		t.Errorf("the cache is %q, want %q", cache, want)
	}
	m, err := onnxfile.Parse(enginetest.Quantized())
	if err != nil {
		t.Fatal(err)
	}
	near(t, enginetest.Quantized(), stripped, fill(m, 1, 0, 1))
	if m, err = onnxfile.Parse(stripped); err != nil || len(m.Initializers) != 1 || len(m.Nodes) != 2 {
		t.Errorf("stripped, %d initializers and %d nodes are left, want the weights, Conv and Identity: %v", len(m.Initializers), len(m.Nodes), err)
	}

	// Weights of several channels, one of them out of reach of its scale, an INT32 bias
	// and neighbours that hold the same numbers.
	b := network(13, dims{1, 2, 4, 4}, dims{1, 2, 2, 2}, [][]byte{
		floats("s", nil, 0.5), int8s("z", nil, 0), floats("w", dims{2, 2, 1, 1}, 1.26, -3.3, 0.06, -99), floats("ws", dims{2}, 0.1, 0.02), int8s("wz", dims{2}, 0, 0),
		tensor("b", 6, dims{2}, []byte{4, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff}), floats("bs", dims{2}, 0.05, 0.01), tensor("bz", 6, dims{2}, make([]byte, 8)),
		floats("rs", nil, 0.25), floats("unused", nil, 1),
	},
		node("QuantizeLinear", "x s z", "xq"), node("DequantizeLinear", "xq s z", "xd"),
		node("QuantizeLinear", "w ws wz", "wq", attr{"axis", 0}), node("DequantizeLinear", "wq ws wz", "wd", attr{"axis", 0}),
		node("DequantizeLinear", "b bs bz", "bd", attr{"axis", 0}), node("Conv", "xd wd bd", "c"), node("Relu", "c", "r"),
		node("QuantizeLinear", "r rs z", "rq"), node("DequantizeLinear", "rq rs z", "rd"), node("QuantizeLinear", "r rs z", "rq2"), node("DequantizeLinear", "rq2 rs z", "rd2"),
		node("Add", "rd rd2", "sum"), node("MaxPool", "rd", "p", attr{"kernel_shape", dims{2, 2}}, attr{"strides", dims{2, 2}}),
		node("MaxPool", "sum", "t", attr{"kernel_shape", dims{2, 2}}, attr{"strides", dims{2, 2}}), node("Add", "p t", "y"))
	if stripped, cache, err = onnxfile.Calibration(b, 8502); err != nil {
		t.Fatal(err)
	}
	if _, names, by := scales(t, cache); !slices.Equal(names, []string{"x", "c", "r", "p"}) || by["x"] != 0.5 || by["c"] != 0.25 || by["r"] != 0.25 || by["p"] != 0.25 {
		t.Errorf("the cache is %q", cache)
	}
	if m, err = onnxfile.Parse(stripped); err != nil {
		t.Fatal(err)
	}
	left := map[string][]float32{}
	for i := range m.Initializers {
		if left[m.Initializers[i].Name], err = m.Initializers[i].Floats(); err != nil {
			t.Error(err)
		}
	}
	if len(left) != 3 || left["unused"] == nil || !slices.Equal(left["wd"], []float32{13 * float32(0.1), -33 * float32(0.1), 3 * float32(0.02), -128 * float32(0.02)}) ||
		!slices.Equal(left["bd"], []float32{4 * float32(0.05), -2 * float32(0.01)}) {
		t.Errorf("the constants left are %v", left)
	}
	if m, err = onnxfile.Parse(b); err != nil {
		t.Fatal(err)
	}
	near(t, b, stripped, fill(m, 1, -4, 4))
}

// TestCalibrationSpreads: a tensor beside a quantized one gets its scale only where it
// cannot lose by it.
func TestCalibrationSpreads(t *testing.T) {
	const tiny = 1e-30 // its first hexadecimal digit is 0
	b := network(13, dims{1, 2, 4, 4}, dims{1, 2, 4, 4}, [][]byte{floats("s", nil, tiny), int8s("z", nil, 0)},
		node("Neg", "x", "both"), node("Relu", "both", "r"), // read before and behind Relu
		node("QuantizeLinear", "r s z", "rq"), node("DequantizeLinear", "rq s z", "rd"),
		node("Neg", "x", "wide"), node("MaxPool", "wide", "p", attr{"kernel_shape", dims{1, 1}}), // may hold more than what comes out
		node("QuantizeLinear", "p s z", "pq"), node("DequantizeLinear", "pq s z", "pd"),
		node("Neg", "x", "n"), node("Transpose", "n", "m"), node("Transpose", "m", "o"),
		node("QuantizeLinear", "o s z", "oq"), node("DequantizeLinear", "oq s z", "od"),
		node("Sum", "rd pd od both", "y"))
	_, cache, err := onnxfile.Calibration(b, 8602)
	if err != nil {
		t.Fatal(err)
	}
	if _, names, by := scales(t, cache); !slices.Equal(names, []string{"r", "p", "n", "m", "o"}) || by["n"] != tiny {
		t.Errorf("the cache is %q", cache)
	}
}

func TestCalibrationRefused(t *testing.T) {
	s, z := floats("s", nil, 0.5), int8s("z", nil, 0)
	pair := [][]byte{node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")}
	for _, c := range []struct {
		name, says string
		constants  [][]byte
		nodes      [][]byte
	}{
		{"nothing quantized", "quantizes no tensor", nil, [][]byte{node("Relu", "x", "y")}},
		{"zero point", "zero point is not 0", [][]byte{s, int8s("z", nil, 3)}, pair},
		{"unsigned", "makes no INT8", [][]byte{s, tensor("z", 2, nil, []byte{0})}, pair},
		{"unsigned by default", "makes no INT8", [][]byte{s}, [][]byte{node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y")}},
		{"scale of 0", "not positive", [][]byte{floats("s", nil, 0), z}, pair},
		{"scale computed", "not one list of numbers in the file", [][]byte{floats("s0", nil, 1), z}, append([][]byte{node("Relu", "s0", "s")}, pair...)},
		{"channels", "a scale for each channel", [][]byte{floats("s", dims{2}, 1, 2), int8s("z", dims{2}, 0, 0)}, pair},
		{
			"two scales", "a calibration cache holds one",
			[][]byte{s, z, floats("s2", nil, 0.25)},
			[][]byte{node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "a"), node("QuantizeLinear", "x s2 z", "q2"), node("DequantizeLinear", "q2 s2 z", "b"), node("Add", "a b", "y")},
		},
		{"another scale behind", "another than that of", [][]byte{s, z, floats("s2", nil, 0.25)}, [][]byte{node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s2 z", "y")}},
		{"torn pair", "comes from no QuantizeLinear", [][]byte{s, z}, [][]byte{node("QuantizeLinear", "x s z", "q"), node("MaxPool", "q", "p"), node("DequantizeLinear", "p s z", "y")}},
		{"out of order", "comes from no QuantizeLinear", [][]byte{s, z}, [][]byte{pair[1], pair[0]}},
		{"lonely", "put Q/DQ nodes in pairs", [][]byte{s, z}, [][]byte{node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "a"), node("QLinearOp", "q", "b"), node("Add", "a b", "y")}},
		{"an INT8 output", "an output of the network", [][]byte{s, z}, [][]byte{node("QuantizeLinear", "x s z", "y")}},
		{"a name no line holds", "no line of a cache", [][]byte{s, z}, [][]byte{node("Relu", "x", "@@"), node("QuantizeLinear", "@@ s z", "q"), node("DequantizeLinear", "q s z", "y")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := network(13, dims{1, 2}, dims{1, 2}, c.constants, c.nodes...)
			if c.name == "a name no line holds" {
				b = []byte(strings.ReplaceAll(string(b), "@@", "@\n"))
			}
			_, _, err := onnxfile.Calibration(b, 8602)
			if !errors.Is(err, onnxfile.ErrQuantized) {
				t.Fatalf("%v, want %v", err, onnxfile.ErrQuantized)
			}
			if s := err.Error(); !strings.Contains(s, c.says) || strings.Contains(s, "\n") {
				t.Errorf("it says %q, want one line with %q", s, c.says)
			}
		})
	}
	if _, _, err := onnxfile.Calibration([]byte("no network"), 8602); !errors.Is(err, onnxfile.ErrFile) {
		t.Errorf("no network: %v, want %v", err, onnxfile.ErrFile)
	}
}

// FuzzCalibration checks that no bytes take it down, and that what it writes is read
// and has no Q/DQ node.
func FuzzCalibration(f *testing.F) {
	f.Add(enginetest.Quantized())
	f.Add(network(13, dims{1, 2}, dims{1, 2}, [][]byte{floats("s", nil, 0.5), int8s("z", nil, 0), floats("w", dims{2}, 1, 2)},
		node("QuantizeLinear", "w s z", "wq"), node("DequantizeLinear", "wq s z", "wd"), node("Add", "x wd", "a"),
		node("QuantizeLinear", "a s z", "q"), node("DequantizeLinear", "q s z", "b"), node("Relu", "b", "y")))
	f.Fuzz(func(t *testing.T, b []byte) {
		stripped, cache, err := onnxfile.Calibration(b, 8602)
		if err != nil {
			if !errors.Is(err, onnxfile.ErrQuantized) && !errors.Is(err, onnxfile.ErrFile) {
				t.Fatal(err)
			}
			return
		}
		if _, err := onnxfile.Parse(stripped); err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if onnxfile.Quantized(stripped) {
			t.Fatal("the stripped network has Q/DQ nodes")
		}
		scales(t, cache)
	})
}

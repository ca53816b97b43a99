// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trttest_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"fulmar/inference/enginetest"
	"fulmar/inference/ort"
)

// What ONNX files are made of.

func bytesField(b []byte, n protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), m)
}

func varint(b []byte, n protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
}

func textField(b []byte, n protowire.Number, s string) []byte { return bytesField(b, n, []byte(s)) }

func ints(name string, v ...int64) []byte {
	b := textField(nil, 1, name)
	for _, k := range v {
		b = varint(b, 8, k)
	}
	return varint(b, 20, 7)
}

func number(name string, v int64) []byte { return varint(varint(textField(nil, 1, name), 3, v), 20, 2) }

func word(name, v string) []byte { return varint(textField(textField(nil, 1, name), 4, v), 20, 3) }

func op(kind, out string, in []string, attributes ...[]byte) []byte {
	var n []byte
	for _, i := range in {
		n = textField(n, 1, i)
	}
	n = textField(textField(n, 2, out), 4, kind)
	for _, a := range attributes {
		n = bytesField(n, 5, a)
	}
	return n
}

// constant is an initializer of elements of kind (1 float, 3 int8, 7 int64).
func constant(name string, kind int64, shape []int64, raw []byte) []byte {
	var t []byte
	for _, d := range shape {
		t = varint(t, 1, d)
	}
	return bytesField(textField(varint(t, 2, kind), 8, name), 9, raw)
}

func floats(name string, shape []int64, seed uint64) []byte {
	n, r := int64(1), rand.New(rand.NewPCG(seed, 7))
	for _, d := range shape {
		n *= d
	}
	var raw []byte
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(r.Float32()*2-1))
	}
	return constant(name, 1, shape, raw)
}

func exact(name string, v ...float32) []byte {
	var raw []byte
	for _, k := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(k))
	}
	return constant(name, 1, []int64{int64(len(v))}, raw)
}

func whole(name string, v ...int64) []byte {
	var raw []byte
	for _, k := range v {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(k))
	}
	return constant(name, 7, []int64{int64(len(v))}, raw)
}

func small(name string, shape []int64, n int) []byte {
	raw := make([]byte, n)
	for i := range raw {
		raw[i] = byte(37*i%255 - 127)
	}
	return constant(name, 3, shape, raw)
}

// port describes an input or output; without a shape the reader works it out.
func port(name string, shape []int64) []byte {
	var dims []byte
	for _, d := range shape {
		dims = bytesField(dims, 1, varint(nil, 1, d))
	}
	kind := varint(nil, 1, 1)
	if shape != nil {
		kind = bytesField(kind, 2, dims)
	}
	return bytesField(textField(nil, 1, name), 2, bytesField(nil, 1, kind))
}

// model is a network from x to y, of opset 11 or 13.
func model(opset int64, in []int64, out []int64, nodes, constants [][]byte) []byte {
	var g []byte
	for _, n := range nodes {
		g = bytesField(g, 1, n)
	}
	g = textField(g, 2, "test")
	for _, c := range constants {
		g = bytesField(g, 5, c)
	}
	g = bytesField(bytesField(g, 11, port("x", in)), 12, port("y", out))
	return bytesField(bytesField(varint(nil, 1, 7), 7, g), 8, varint(nil, 2, opset))
}

type list = [][]byte

// TestOperators holds each operator, with what our networks do not use of it too, to
// ONNX Runtime.
func TestOperators(t *testing.T) {
	x := []int64{2, 6, 7, 9}
	one := func(kind string, constants list, in []string, attributes ...[]byte) (nodes, initializers list) {
		return list{op(kind, "y", append([]string{"x"}, in...), attributes...)}, constants
	}
	type network struct {
		out              []int64
		nodes, constants list
	}
	cases := map[string]network{}
	add := func(name string, out []int64, nodes, constants list) {
		cases[name] = network{out, nodes, constants}
	}
	case1 := func(name string, out []int64, kind string, constants list, in []string, attributes ...[]byte) {
		n, c := one(kind, constants, in, attributes...)
		add(name, out, n, c)
	}
	case1("Sub of a row", x, "Sub", list{floats("c", []int64{9}, 1)}, []string{"c"})
	case1("Mul by channel", x, "Mul", list{floats("c", []int64{6, 1, 1}, 2)}, []string{"c"})
	case1("Add that grows", []int64{3, 2, 6, 7, 9}, "Add", list{floats("c", []int64{3, 1, 1, 1, 1}, 3)}, []string{"c"})
	case1("Relu", x, "Relu", nil, nil)
	case1("Sigmoid", x, "Sigmoid", nil, nil)
	case1("Conv", []int64{2, 4, 5, 7}, "Conv", list{floats("w", []int64{4, 6, 3, 3}, 4), floats("b", []int64{4}, 5)}, []string{"w", "b"})
	case1("Conv of groups and strides", []int64{2, 4, 4, 3}, "Conv", list{floats("w", []int64{4, 3, 3, 2}, 6)}, []string{"w"}, number("group", 2), ints("strides", 2, 3), ints("pads", 1, 0, 2, 1))
	case1("Conv by channel, dilated", []int64{2, 6, 7, 5}, "Conv", list{floats("w", []int64{6, 1, 3, 3}, 7)}, []string{"w"}, number("group", 6), ints("dilations", 2, 3), ints("pads", 2, 1, 2, 1))
	case1("MaxPool", []int64{2, 6, 7, 9}, "MaxPool", nil, nil, ints("kernel_shape", 5, 5), ints("pads", 2, 2, 2, 2), ints("strides", 1, 1))
	case1("MaxPool of strides", []int64{2, 6, 3, 4}, "MaxPool", nil, nil, ints("kernel_shape", 2, 3), ints("strides", 2, 2))
	case1("Slice", []int64{2, 3, 7, 4}, "Slice", list{whole("s", -3, 1), whole("e", 99, -1), whole("a", 1, -1), whole("k", 1, 2)}, []string{"s", "e", "a", "k"})
	case1("Transpose", []int64{9, 2, 7, 6}, "Transpose", nil, nil, ints("perm", 3, 0, 2, 1))
	case1("Reshape", []int64{2, 21, 18}, "Reshape", list{whole("s", 0, 21, -1)}, []string{"s"})
	case1("ReduceMax over all", []int64{1, 1, 1, 1}, "ReduceMax", nil, nil)
	case1("ReduceMax of axes", []int64{2, 1, 7, 1}, "ReduceMax", nil, nil, ints("axes", 1, -1))
	resize := list{word("mode", "nearest"), word("coordinate_transformation_mode", "asymmetric"), word("nearest_mode", "floor")}
	case1("Resize by scales", []int64{2, 6, 14, 22}, "Resize", list{exact("s", 1, 1, 2, 2.5)}, []string{"", "s"}, resize...)
	case1("Resize to sizes", []int64{2, 6, 10, 5}, "Resize", list{whole("s", 2, 6, 10, 5)}, []string{"", "", "s"}, resize...)
	add("Concat", []int64{2, 12, 7, 9}, list{op("Relu", "r", []string{"x"}), op("Concat", "y", []string{"x", "r"}, number("axis", -3))}, nil)
	add("Shape, Slice, Concat, Mul, Reshape", []int64{2, 6, 63}, list{
		op("Shape", "s", []string{"x"}), op("Slice", "front", []string{"s", "zero", "two"}),
		op("Concat", "want", []string{"front", "rest"}, number("axis", 0)), op("Mul", "same", []string{"want", "ones"}), op("Reshape", "y", []string{"x", "same"}),
	}, list{whole("zero", 0), whole("two", 2), whole("rest", -1), whole("ones", 1, 1, 1)})
	add("Q/DQ by channel", []int64{2, 4, 7, 9}, list{
		op("QuantizeLinear", "q", []string{"x", "a", "z"}), op("DequantizeLinear", "d", []string{"q", "a", "z"}),
		op("DequantizeLinear", "wd", []string{"w", "ws", "wz"}, number("axis", 0)), op("Conv", "y", []string{"d", "wd", "b"}),
	}, list{
		constant("a", 1, nil, binary.LittleEndian.AppendUint32(nil, math.Float32bits(0.017))), constant("z", 3, nil, []byte{3}),
		small("w", []int64{4, 6, 1, 1}, 24), exact("ws", 0.01, 0.002, 0.03, 0.004), constant("wz", 3, []int64{4}, make([]byte, 4)), floats("b", []int64{4}, 8),
	})
	r := reference(t)
	b := newBench(t, driver(t), 11)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			opset := int64(13)
			if name == "Slice" || name == "ReduceMax of axes" {
				opset = 11
			}
			n := model(opset, x, c.out, c.nodes, c.constants)
			s, err := r.NewSession(n, ort.Options{Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			noise(t, s.Inputs()[0])
			if err := s.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			near(t, b.compute(t, n, s.Inputs()[0].Float32(), 1), s.Outputs()[0].Float32())
		})
	}
}

// TestRefused: a network that the double cannot take is refused with its node.
func TestRefused(t *testing.T) {
	b := newBench(t, driver(t), 10)
	x := []int64{1, 2, 3, 4}
	for want, n := range map[string][]byte{
		"error at node 1: operator Neg of node 1 (Unnamed Layer* 1) [Neg] is not supported":       model(13, x, x, list{op("Relu", "r", []string{"x"}), op("Neg", "y", []string{"r"})}, nil),
		"error at node 0: node 0 (Unnamed Layer* 0) [Relu] wants z, which nothing makes":          model(13, x, x, list{op("Relu", "y", []string{"z"})}, nil),
		"error at node -1: nothing makes output y":                                                model(13, x, x, list{op("Relu", "z", []string{"x"})}, nil),
		"error at node -1: initializer c has raw data of another size than its shape says":        model(13, x, x, list{op("Add", "y", []string{"x", "c"})}, list{constant("c", 1, []int64{4}, make([]byte, 15))}),
		"error at node 0: Add node 0 (Unnamed Layer* 0) [Add]: the inputs' shapes do not fit":     model(13, x, x, list{op("Add", "y", []string{"x", "c"})}, list{exact("c", 1, 2, 3)}),
		"error at node -1: input x has elements of type 11, float is supported":                   enginetest.Cast(enginetest.Dims{1, 4}),
		"error at node -1: not an ONNX model":                                                     model(13, x, x, list{op("Relu", "y", []string{"x"})}, nil)[:60],
		"error at node -1: opset 6 is not supported":                                              model(6, x, x, list{op("Relu", "y", []string{"x"})}, nil),
		"error at node -1: x: the volume of its dimensions exceeds 2147483647 elements":           enginetest.Affine(enginetest.Dims{1, 3, 1 << 20, 1 << 20}),
		"error at node 0: Reshape node 0 (Unnamed Layer* 0) [Reshape]: the shape has to be known": model(13, x, x, list{op("Reshape", "y", []string{"x", "x"})}, nil),
	} {
		if err := os.WriteFile(b.network, n, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, ok := b.run(t, "no profile"); !ok || !strings.Contains(out, want) {
			t.Errorf("it says %s\nwant %s", out, want)
		}
	}
}

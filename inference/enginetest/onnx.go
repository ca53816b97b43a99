// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"bytes"
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Dims are a tensor's dimensions; -1 leaves one open.
type Dims []int64

// Element types of ONNX files.
const (
	onnxFloat  = 1
	onnxInt8   = 3
	onnxDouble = 11
)

// Affine is a network with one input x of float32 and one output y = 2x + 1.
func Affine(shape Dims) []byte {
	return network(
		[][]byte{
			node("Mul", []string{"x", "two"}, "z"),
			node("Add", []string{"z", "one"}, "y"),
		},
		[][]byte{scalar("two", 2), scalar("one", 1)},
		value("x", onnxFloat, shape), value("y", onnxFloat, shape))
}

// Constant is a network whose output y, of the given shape and row-major values,
// does not depend on its input x, except that x times 0 is added: it gives a
// decoder known numbers through an engine.
func Constant(in, out Dims, values []float32) []byte {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return network(
		[][]byte{
			attributed(node("ReduceMax", []string{"x"}, "m"), "keepdims", 0),
			node("Mul", []string{"m", "zero"}, "n"),
			node("Add", []string{"c", "n"}, "y"),
		},
		[][]byte{scalar("zero", 0), initializer("c", out, raw)},
		value("x", onnxFloat, in), value("y", onnxFloat, out))
}

// Quantized is an INT8 Q/DQ convolution of 1x1 over [1,64,4,4] with weights of
// 127/127 throughout: for an input of ones each output is 64, exactly. Its sums are
// the largest there are, and an engine that adds INT8 products in 16 bits loses them.
func Quantized() []byte {
	const channels, filters = 64, 8
	weights := bytes.Repeat([]byte{127}, channels*filters)
	in, out := Dims{1, channels, 4, 4}, Dims{1, filters, 4, 4}
	return network(
		[][]byte{
			node("QuantizeLinear", []string{"x", "unit", "zero"}, "xq"),
			node("DequantizeLinear", []string{"xq", "unit", "zero"}, "xd"),
			node("DequantizeLinear", []string{"w", "unit", "zero"}, "wd"),
			node("Conv", []string{"xd", "wd"}, "c"),
			node("QuantizeLinear", []string{"c", "step", "zero"}, "cq"),
			node("DequantizeLinear", []string{"cq", "step", "zero"}, "y"),
		},
		[][]byte{
			scalar("unit", 1.0/127), scalar("step", 0.64),
			typed("zero", onnxInt8, nil, []byte{0}),
			typed("w", onnxInt8, Dims{filters, channels, 1, 1}, weights),
		},
		value("x", onnxFloat, in), value("y", onnxFloat, out))
}

// Cast is a network whose input x has elements of double, which no engine here
// takes.
func Cast(shape Dims) []byte {
	return network([][]byte{node("Neg", []string{"x"}, "y")}, nil,
		value("x", onnxDouble, shape), value("y", onnxDouble, shape))
}

func network(nodes, initializers [][]byte, in, out []byte) []byte {
	var g []byte
	for _, n := range nodes {
		g = message(g, 1, n)
	}
	g = text(g, 2, "test")
	for _, i := range initializers {
		g = message(g, 5, i)
	}
	g = message(message(g, 11, in), 12, out)
	const irVersion, opset = 8, 13
	m := number(nil, 1, irVersion)
	m = message(m, 7, g)
	return message(m, 8, number(nil, 2, opset))
}

func node(op string, in []string, out string) []byte {
	var n []byte
	for _, i := range in {
		n = text(n, 1, i)
	}
	return text(text(n, 2, out), 4, op)
}

func attributed(n []byte, name string, v uint64) []byte {
	const kindInt = 2
	return message(n, 5, number(number(text(nil, 1, name), 3, v), 20, kindInt))
}

func scalar(name string, v float32) []byte {
	return initializer(name, nil, binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
}

func initializer(name string, shape Dims, raw []byte) []byte {
	return typed(name, onnxFloat, shape, raw)
}

func typed(name string, elem uint64, shape Dims, raw []byte) []byte {
	var t []byte
	for _, d := range shape {
		t = number(t, 1, uint64(d))
	}
	t = text(number(t, 2, elem), 8, name)
	return message(t, 9, raw)
}

func value(name string, elem uint64, shape Dims) []byte {
	var dims []byte
	for _, d := range shape {
		if d < 0 {
			dims = message(dims, 1, text(nil, 2, "open"))
			continue
		}
		dims = message(dims, 1, number(nil, 1, uint64(d)))
	}
	tensorType := message(number(nil, 1, elem), 2, dims)
	return message(text(nil, 1, name), 2, message(nil, 1, tensorType))
}

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func text(b []byte, field protowire.Number, s string) []byte { return message(b, field, []byte(s)) }

func number(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

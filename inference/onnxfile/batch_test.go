// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onnxfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"fulmar/inference/enginetest"
	"fulmar/inference/onnxfile"
)

// The tests write their networks here, by hand: the package that is tested has no
// say in them.

type dims []int64

func msg(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func num(b []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
}

type attr struct {
	name  string
	value any
}

// node is a node called as what it makes, of inputs between spaces ("_" for none).
func node(op, in, out string, attrs ...attr) []byte {
	var n []byte
	for _, i := range strings.Fields(in) {
		n = msg(n, 1, []byte(strings.TrimPrefix(i, "_")))
	}
	for _, o := range strings.Fields(out) {
		n = msg(n, 2, []byte(o))
	}
	n = msg(msg(n, 3, []byte("n_"+strings.Fields(out)[0])), 4, []byte(op))
	for _, a := range attrs {
		b := msg(nil, 1, []byte(a.name))
		switch v := a.value.(type) {
		case int:
			b = num(num(b, 3, int64(v)), 20, 2)
		case string:
			b = num(msg(b, 4, []byte(v)), 20, 3)
		case dims:
			for _, d := range v {
				b = num(b, 8, d)
			}
			b = num(b, 20, 7)
		case []byte:
			b = num(msg(b, 6, v), 20, 5)
		}
		n = msg(n, 5, b)
	}
	return n
}

func floats(name string, shape dims, values ...float32) []byte {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return tensor(name, 1, shape, raw)
}

func ints(name string, values ...int64) []byte {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return tensor(name, 7, dims{int64(len(values))}, raw)
}

func tensor(name string, typ int64, shape dims, raw []byte) []byte {
	var t []byte
	for _, d := range shape {
		t = num(t, 1, d)
	}
	return msg(msg(num(t, 2, typ), 8, []byte(name)), 9, raw)
}

func value(name string, shape dims) []byte {
	var s []byte
	for _, d := range shape {
		if d < 0 {
			s = msg(s, 1, msg(nil, 2, []byte("any")))
		} else {
			s = msg(s, 1, num(nil, 1, d))
		}
	}
	return msg(msg(nil, 1, []byte(name)), 2, msg(nil, 1, msg(num(nil, 1, 1), 2, s)))
}

// network has an input x and an output y.
func network(opset int64, in, out dims, initializers [][]byte, nodes ...[]byte) []byte {
	var g []byte
	for _, n := range nodes {
		g = msg(g, 1, n)
	}
	g = msg(g, 2, []byte("test"))
	for _, i := range initializers {
		g = msg(g, 5, i)
	}
	g = msg(msg(g, 11, value("x", in)), 12, value("y", out))
	return msg(msg(num(nil, 1, 8), 7, g), 8, num(nil, 2, opset))
}

func TestOpensEdges(t *testing.T) {
	const pictures = 4
	for name, b := range map[string][]byte{
		"reshape to one row": network(13, dims{1, 6, 4}, dims{1, 24}, [][]byte{ints("s", 1, 24)}, node("Reshape", "x s", "y")),
		"reshape with an open end": network(13, dims{1, 6, 4}, dims{1, 8, 3}, [][]byte{ints("s", 1, 8, -1)},
			node("Reshape", "x s", "y")),
		"reshape whose zero is no copy": network(14, dims{1, 6, 4}, dims{1, 8, 3}, [][]byte{ints("s", 1, 8, 3)},
			node("Reshape", "x s", "y", attr{"allowzero", 1})),
		"shape from a constant node": network(13, dims{1, 6}, dims{1, 2, 3}, nil,
			node("Constant", "", "s", attr{"value_ints", dims{1, 2, 3}}), node("Reshape", "x s", "y")),
		"one shape for two": network(13, dims{1, 6}, dims{1, 6}, [][]byte{ints("s", 1, 2, 3), ints("r", 1, 6)},
			node("Reshape", "x s", "a"), node("Relu", "x", "r1"), node("Reshape", "r1 s", "b"), node("Add", "a b", "c"), node("Reshape", "c r", "y")),
		"channels shuffled": network(13, dims{1, 4, 2, 3}, dims{1, 2, 2, 3},
			[][]byte{ints("s", 2, 2, -1), ints("r", 2, -1, 2, 2, 3), tensor("i", 7, nil, make([]byte, 8))},
			node("Reshape", "x s", "a"), node("Transpose", "a", "b", attr{"perm", dims{1, 0, 2}}), node("Reshape", "b r", "c"),
			node("Gather", "c i", "y", attr{"axis", 0})),
		"resize to sizes": network(13, dims{1, 2, 3, 5}, dims{1, 2, 6, 15}, [][]byte{ints("s", 1, 2, 6, 15)},
			node("Resize", "x _ _ s", "y", attr{"mode", "nearest"}, attr{"nearest_mode", "floor"}, attr{"coordinate_transformation_mode", "asymmetric"})),
		"resize to odd sizes": network(13, dims{1, 2, 6, 7}, dims{1, 2, 10, 3}, [][]byte{ints("s", 1, 2, 10, 3)},
			node("Resize", "x _ _ s", "y", attr{"mode", "linear"})),
		"expand": network(13, dims{1, 1, 4}, dims{1, 3, 4}, [][]byte{ints("s", 1, 3, 4)}, node("Expand", "x s", "y")),
		"a shape computed": network(13, dims{1, 2, 3}, dims{1, 6}, [][]byte{ints("i", 0), ints("m", -1)},
			node("Shape", "x", "s"), node("Gather", "s i", "n"), node("Concat", "n m", "r", attr{"axis", 0}), node("Reshape", "x r", "y")),
		"a constant for each picture": network(13, dims{1, 2}, dims{1, 4}, [][]byte{ints("i", 0), ints("two", 2), floats("c", dims{1, 2}, 5, 7)},
			node("Shape", "x", "s"), node("Gather", "s i", "n"), node("Concat", "n two", "r", attr{"axis", 0}), node("Expand", "c r", "e"),
			node("Concat", "x e", "y", attr{"axis", 1})),
		"rows and columns": network(13, dims{1, 3, 4}, dims{1, 2}, [][]byte{floats("w", dims{4, 2}, 1, 2, 3, 4, 5, 6, 7, 8), ints("a", 1)},
			node("MatMul", "x w", "m"), node("Softmax", "m", "p", attr{"axis", 2}), node("ReduceMax", "p", "q", attr{"axes", dims{1}}), node("Squeeze", "q a", "y")),
		"sums over rows": network(13, dims{1, 4}, dims{1, 2}, [][]byte{floats("w", dims{4, 2}, 1, 2, 3, 4, 5, 6, 7, 8), floats("b", dims{2}, 1, 2)},
			node("Gemm", "x w b", "y")),
		"open already": network(13, dims{-1, 3}, dims{-1, 3}, nil, node("Relu", "x", "y")),
	} {
		t.Run(name, func(t *testing.T) {
			opened, err := onnxfile.OpenBatch(b)
			if err != nil {
				t.Fatal(err)
			}
			m, err := onnxfile.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if worst := alike(t, b, opened, fill(m, pictures, -1, 1), pictures); worst > 1e-6 {
				t.Errorf("outputs differ by %g", worst)
			}
			after, err := onnxfile.Parse(opened)
			if err != nil {
				t.Fatal(err)
			}
			if i, o := after.Inputs[0].Dims, after.Outputs[0].Dims; i[0] != -1 || o[0] != -1 || slices.Min(i[1:]) < 1 || slices.Min(o[1:]) < 1 {
				t.Errorf("opened it has %v to %v; only the first dimension wants to be open", i, o)
			}
			again, err := onnxfile.OpenBatch(opened)
			if err != nil || !bytes.Equal(again, opened) {
				t.Errorf("opened again it is another file: %v", err)
			}
		})
	}
}

// TestBatchRefused has networks that would mix pictures, or that nobody can tell of.
func TestBatchRefused(t *testing.T) {
	nine := make([]float32, 9)
	for _, c := range []struct {
		name, says string
		b          []byte
	}{
		{"batch of two", `input "x" has shape [2 3]`, network(13, dims{2, 3}, dims{2, 3}, nil, node("Relu", "x", "y"))},
		{"open width", "export it with fixed sizes", network(13, dims{1, -1}, dims{1, -1}, nil, node("Relu", "x", "y"))},
		{"old opset", "opset 6", network(6, dims{1, 3}, dims{1, 3}, nil, node("Relu", "x", "y"))},
		{"unknown", `node "n_y" (NonMaxSuppression): what NonMaxSuppression does`, network(13, dims{1, 3}, dims{1, 3}, nil, node("NonMaxSuppression", "x", "y"))},
		{"softmax over pictures", "across the pictures", network(13, dims{1, 3}, dims{1, 3}, nil, node("Softmax", "x", "y", attr{"axis", 0}))},
		{"old softmax", "across the pictures", network(11, dims{1, 3}, dims{1, 3}, nil, node("Softmax", "x", "y", attr{"axis", 0}))},
		{"old softmax before the batch", "across the pictures", network(11, dims{1, 3}, dims{3, 1}, nil, node("Transpose", "x", "a"), node("Softmax", "a", "y", attr{"axis", 0}))},
		{"mean of all", "across the pictures", network(13, dims{1, 3}, dims{1, 1}, nil, node("ReduceMean", "x", "y"))},
		{"pictures joined", "across the pictures", network(13, dims{1, 3}, dims{2, 3}, nil, node("Concat", "x x", "y", attr{"axis", 0}))},
		{"constant joined", "a constant that has no batch", network(13, dims{1, 3}, dims{1, 4}, [][]byte{floats("c", dims{1, 1}, 1)}, node("Concat", "x c", "y", attr{"axis", 1}))},
		{"widened", "meets one of", network(13, dims{1, 3}, dims{2, 3}, [][]byte{floats("c", dims{2, 1}, 1, 2)}, node("Add", "x c", "y"))},
		{"rows of a bias", "across the pictures", network(13, dims{1, 3}, dims{1, 3}, [][]byte{floats("w", dims{3, 3}, nine...), floats("b", dims{3, 3}, nine...)}, node("Gemm", "x w b", "y"))},
		{"first picture", "across the pictures", network(13, dims{1, 3}, dims{3}, [][]byte{tensor("i", 7, nil, make([]byte, 8))}, node("Gather", "x i", "y"))},
		{"squeezed", "without axes it drops the batch", network(13, dims{1, 3}, dims{3}, nil, node("Squeeze", "x", "y"))},
		{"batch not first", "its first dimension is not the batch, its shape is [3 N]", network(13, dims{1, 3}, dims{3, 1}, nil, node("Transpose", "x", "y"))},
		{"batch inside", "its shape is [3N 2]", network(13, dims{1, 6}, dims{3, 2}, [][]byte{ints("s", 3, 2)}, node("Reshape", "x s", "y"))},
		{"torn", "joins the pictures with what lies before", network(13, dims{1, 4, 6}, dims{6, 4}, [][]byte{ints("s", 6, 4)},
			node("Transpose", "x", "a", attr{"perm", dims{1, 0, 2}}), node("Reshape", "a s", "y"))},
		{"constant output", "its first dimension is not the batch", network(13, dims{1, 3}, dims{1, 1}, [][]byte{floats("c", dims{1, 1}, 1)}, node("Relu", "c", "y"))},
		{"another shape declared", "the file says its shape is [1 4]", network(13, dims{1, 3}, dims{1, 4}, nil, node("Relu", "x", "y"))},
		{"control flow", "without control flow", network(13, dims{1, 3}, dims{1, 3}, nil, node("If", "x", "y", attr{"then_branch", []byte{}}))},
		{"another domain", `operators of "com.example"`, network(13, dims{1, 3}, dims{1, 3}, nil, msg(node("Relu", "x", "y"), 7, []byte("com.example")))},
		{"count as a number", "in a way that is not followed", network(13, dims{1, 3}, dims{1, 3}, nil, node("Shape", "x", "s"), node("Relu", "s", "t"), node("Reshape", "x t", "y"))},
		{"out of order", "used before it is made", network(13, dims{1, 3}, dims{1, 3}, nil, node("Relu", "a", "y"), node("Relu", "x", "a"))},
		{"made twice", "made twice", network(13, dims{1, 3}, dims{1, 3}, nil, node("Relu", "x", "y"), node("Relu", "x", "y"))},
		{"sizes that keep the aspect", "keep the aspect", network(18, dims{1, 1, 4, 4}, dims{1, 1, 8, 8}, [][]byte{ints("s", 1, 1, 8, 8)},
			node("Resize", "x _ _ s", "y", attr{"keep_aspect_ratio_policy", "not_larger"}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := onnxfile.OpenBatch(c.b)
			if !errors.Is(err, onnxfile.ErrBatch) {
				t.Fatalf("%v, want %v", err, onnxfile.ErrBatch)
			}
			if s := err.Error(); !strings.Contains(s, c.says) || strings.Contains(s, "\n") {
				t.Errorf("it says %q, want one line with %q", s, c.says)
			}
		})
	}
}

// TestDETR: a network with a transformer's queries is refused by name, not opened on
// trust.
func TestDETR(t *testing.T) {
	b, err := os.ReadFile(enginetest.Shared(t, "models", "deimv2_atto.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = onnxfile.OpenBatch(b)
	if !errors.Is(err, onnxfile.ErrBatch) || !strings.Contains(err.Error(), "node ") {
		t.Fatalf("%v, want %v with the node", err, onnxfile.ErrBatch)
	}
	t.Log(err)
}

func TestParse(t *testing.T) {
	m, err := onnxfile.Parse(shipped(t, "int8"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Opset != 13 || m.IR != 7 || len(m.Inputs) != 1 || len(m.Outputs) != 1 || len(m.Nodes) < 100 || len(m.Initializers) < 100 {
		t.Errorf("opset %d, IR %d, %d inputs, %d outputs, %d nodes, %d initializers", m.Opset, m.IR, len(m.Inputs), len(m.Outputs), len(m.Nodes), len(m.Initializers))
	}
	if v := m.Inputs[0]; v.Name != "images" || v.Type != onnxfile.Float || !slices.Equal(v.Dims, []int64{1, 3, 192, 320}) {
		t.Errorf("the input is %+v", v)
	}
	if v := m.Outputs[0]; v.Name != "output" || !slices.Equal(v.Dims, []int64{1, 1200, 8}) {
		t.Errorf("the output is %+v", v)
	}
	if !onnxfile.Quantized(shipped(t, "int8")) || onnxfile.Quantized(shipped(t, "fp32")) || onnxfile.Quantized([]byte("no network")) {
		t.Error("which file is quantized is told wrong")
	}
	good := enginetest.Affine(enginetest.Dims{1, 3, 4, 5})
	for name, b := range map[string][]byte{
		"empty": nil, "text": []byte("this is no network"), "cut": good[:len(good)/2], "no graph": num(nil, 1, 8),
		"weights beside":   network(13, dims{1}, dims{1}, [][]byte{num(floats("c", dims{1}, 1), 14, 1)}, node("Relu", "x", "y")),
		"a huge constant":  network(13, dims{1}, dims{1}, [][]byte{floats("c", dims{1 << 30, 1 << 30, 1 << 30})}, node("Relu", "x", "y")),
		"many dimensions":  network(13, make(dims, 99), dims{1}, nil, node("Relu", "x", "y")),
		"a long name":      network(13, dims{1}, dims{1}, nil, node("Relu", "x", strings.Repeat("y", 2000))),
		"a constant twice": network(13, dims{1}, dims{1}, [][]byte{ints("c", 1), ints("c", 1)}, node("Relu", "x", "y")),
	} {
		if _, err := onnxfile.Parse(b); !errors.Is(err, onnxfile.ErrFile) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line of %v", name, err, onnxfile.ErrFile)
		}
	}
}

// FuzzOpenBatch checks that no bytes take it down, and that what it writes it reads.
func FuzzOpenBatch(f *testing.F) {
	f.Add(enginetest.Affine(enginetest.Dims{1, 3, 4, 5}))
	f.Add(enginetest.Quantized())
	f.Add(network(13, dims{1, 2, 6, 7}, dims{1, 84}, [][]byte{ints("s", 1, 2, 6, 7), ints("r", 1, 84)},
		node("Resize", "x _ _ s", "a"), node("Reshape", "a r", "y")))
	f.Add(network(13, dims{1, 4, 4, 4}, dims{1, 2, 2, 2}, [][]byte{floats("w", dims{2, 4, 1, 1}, make([]float32, 8)...)},
		node("Conv", "x w", "a", attr{"strides", dims{2, 2}}), node("MaxPool", "a", "b", attr{"kernel_shape", dims{1, 1}}), node("Slice", "b i j", "y")))
	f.Add(network(13, dims{1, 2}, dims{1, 4}, [][]byte{ints("i", 0), ints("two", 2)}, node("Shape", "x", "s"), node("Gather", "s i", "n"),
		node("Mul", "n two", "m"), node("Concat", "m two", "r", attr{"axis", 0}), node("ConstantOfShape", "r", "e"), node("Slice", "r i two", "q"), node("Add", "q i", "y")))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := string(b)
		out, err := onnxfile.OpenBatch(b)
		if before != string(b) {
			t.Fatal("the bytes given were changed")
		}
		if err != nil {
			if !errors.Is(err, onnxfile.ErrBatch) && !errors.Is(err, onnxfile.ErrFile) {
				t.Fatal(err)
			}
			return
		}
		if m, err := onnxfile.Parse(out); err != nil || m.Inputs[0].Dims[0] != -1 {
			t.Fatalf("what was written is not read: %v", err)
		}
		if again, err := onnxfile.OpenBatch(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("opened again it is another file: %v", err)
		}
	})
}

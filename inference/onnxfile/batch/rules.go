// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"fulmar/inference/onnxfile/graph"
)

var (
	errShape  = errors.New("the shape of what goes in is not known here")
	errMixed  = errors.New("it works across the pictures of a batch")
	errValues = errors.New("it computes a shape from the batch in a way that is not followed here")
)

// rule gives the facts of what a node makes. An error says why it cannot be told;
// that only matters where something of a picture goes in.
func (s *batch) rule(n *graph.Node, in []*fact) ([]*fact, error) {
	if !graph.Standard(n.Domain) {
		return nil, fmt.Errorf("operators of %q are not known here", n.Domain)
	}
	switch n.Op {
	case "Constant":
		return literal(n)
	case "Shape":
		return shapeOf(n, in)
	case "ConstantOfShape", "Expand":
		return s.stretched(n, in)
	}
	if len(in) == 0 || in[0] == nil || !in[0].known {
		return nil, errShape
	}
	switch n.Op {
	case "Identity", "Cast", "Dropout":
		return []*fact{in[0]}, nil
	case "Reshape":
		return s.reshape(n, in)
	case "Squeeze", "Unsqueeze":
		return squeeze(n, in)
	case "Concat":
		return concat(n, in)
	case "Gather":
		return gather(n, in)
	case "Slice":
		return cut(n, in)
	case "Add", "Sub", "Mul", "Div":
		if f, ok := arithmetic(n, in); ok {
			return f, nil
		}
	}
	if slices.ContainsFunc(in, func(f *fact) bool { return f != nil && f.counts() }) {
		return nil, errValues
	}
	return s.pictures(n, in)
}

// pictures are the rules of what is computed of the pictures themselves.
func (s *batch) pictures(n *graph.Node, in []*fact) ([]*fact, error) {
	switch n.Op {
	case "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Exp", "Log", "Sqrt", "Neg", "Abs", "Floor", "Ceil", "Round",
		"Reciprocal", "Elu", "Selu", "Celu", "Erf", "Softplus", "Softsign", "Mish", "Gelu", "ThresholdedRelu", "Sign", "Not", "Sin", "Cos":
		return same(in[0]), nil
	case "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "PRelu", "Where", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal",
		"And", "Or", "Clip":
		return broadcast(in)
	case "QuantizeLinear", "DequantizeLinear":
		return scaled(n, in)
	case "BatchNormalization", "InstanceNormalization", "LRN":
		if k := in[0].axis(); k > 0 || k < 0 {
			return nil, errMixed
		}
		return same(in[0]), rest(in[1:])
	case "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool":
		return window(n, in)
	case "Resize", "Upsample":
		return s.resize(n, in)
	case "Flatten":
		return flatten(n, in[0])
	case "Transpose":
		return transpose(n, in[0])
	case "Split":
		return split(n, in)
	case "Pad":
		return pad(n, in)
	case "Softmax", "LogSoftmax", "Hardmax":
		return softmax(n, in[0], s.m.Opset)
	case "MatMul":
		return matmul(in)
	case "Gemm":
		return gemm(n, in)
	case "DepthToSpace", "SpaceToDepth":
		return blocks(n, in[0])
	}
	if strings.HasPrefix(n.Op, "Reduce") || n.Op == "ArgMax" || n.Op == "ArgMin" {
		return reduce(n, in)
	}
	return nil, fmt.Errorf("what %s does to a batch is not known here", n.Op)
}

func same(f *fact) []*fact { return []*fact{{known: true, dims: f.dims}} }

func made(dims ...dim) []*fact { return []*fact{{known: true, dims: dims}} }

// rest checks that further inputs are the same for all pictures.
func rest(in []*fact) error {
	for _, f := range in {
		if f != nil && f.axis() >= 0 {
			return errMixed
		}
	}
	return nil
}

// product of dimensions at one picture.
func product(dims []dim) (int64, error) {
	p := int64(1)
	for _, d := range dims {
		if d.n < 0 || d.n > graph.MaxSize || d.n > 0 && p > graph.MaxSize/d.n {
			return 0, fmt.Errorf("the shape %s is too large", shape(dims))
		}
		p *= d.n
	}
	return p, nil
}

// place resolves an axis that may count from the end.
func place(axis int64, rank int) (int, error) {
	if axis < 0 {
		axis += int64(rank)
	}
	if axis < 0 || axis >= int64(rank) {
		return 0, fmt.Errorf("it has an axis outside of %d dimensions", rank)
	}
	return int(axis), nil
}

// listed is a list of numbers that older opsets have as an attribute and later ones
// as an input. It is nil if the node has neither.
func listed(n *graph.Node, in []*fact, attribute string, input int) ([]int64, error) {
	if v := n.Ints(attribute); v != nil {
		return v, nil
	}
	if input >= len(in) || in[input] == nil {
		return nil, nil
	}
	if in[input].items == nil || in[input].counts() {
		return nil, fmt.Errorf("its %s are not written in the file", attribute)
	}
	out := []int64{}
	for _, d := range in[input].items {
		out = append(out, d.n)
	}
	return out, nil
}

func literal(n *graph.Node) ([]*fact, error) {
	if a := n.Attribute("value"); a != nil && a.Tensor != nil {
		return []*fact{constant(a.Tensor)}, nil
	}
	if a := n.Attribute("value_int"); a != nil {
		return []*fact{{known: true, items: []dim{{a.Int, false}}}}, nil
	}
	if v := n.Ints("value_ints"); v != nil {
		f := &fact{known: true, dims: []dim{{int64(len(v)), false}}}
		for _, x := range v {
			f.items = append(f.items, dim{x, false})
		}
		return []*fact{f}, nil
	}
	return nil, errShape
}

func shapeOf(n *graph.Node, in []*fact) ([]*fact, error) {
	if len(in) != 1 || in[0] == nil || !in[0].known {
		return nil, errShape
	}
	if n.Attribute("start") != nil || n.Attribute("end") != nil {
		return nil, errValues
	}
	return []*fact{{known: true, dims: []dim{{int64(len(in[0].dims)), false}}, items: in[0].dims}}, nil
}

// stretched is Expand and ConstantOfShape.
func (s *batch) stretched(n *graph.Node, in []*fact) ([]*fact, error) {
	if len(in) == 0 {
		return nil, errShape
	}
	to := in[len(in)-1]
	if to == nil || !to.known || to.items == nil || len(to.dims) != 1 || len(to.items) > graph.MaxRank {
		return nil, errShape
	}
	if n.Op == "ConstantOfShape" {
		if _, err := product(to.items); err != nil {
			return nil, err
		}
		return made(to.items...), nil
	}
	if len(in) != 2 || in[0] == nil || !in[0].known || in[0].counts() {
		return nil, errShape
	}
	return broadcast([]*fact{in[0], {known: true, dims: to.items}})
}

// broadcast is the rule of all operations by elements. A dimension of the batch meets
// itself or ones.
func broadcast(in []*fact) ([]*fact, error) {
	rank := 0
	for _, f := range in {
		if f == nil {
			continue
		}
		if !f.known {
			return nil, errShape
		}
		rank = max(rank, len(f.dims))
	}
	one := dim{1, false}
	out := slices.Repeat([]dim{one}, rank)
	seen := 0
	for a := range out {
		for _, f := range in {
			if f == nil || a-rank+len(f.dims) < 0 {
				continue
			}
			switch d := f.dims[a-rank+len(f.dims)]; {
			case d == one || d == out[a]:
			case out[a] == one:
				out[a] = d
			default:
				return nil, fmt.Errorf("a dimension of %s meets one of %s", shape([]dim{d}), shape(out[a:a+1]))
			}
		}
		if out[a].batch {
			seen++
		}
	}
	if seen > 1 {
		return nil, errMixed
	}
	_, err := product(out)
	return made(out...), err
}

// arithmetic computes numbers of shapes. It is not for anything else.
func arithmetic(n *graph.Node, in []*fact) ([]*fact, bool) {
	if len(in) != 2 || in[1] == nil || len(in[0].items) == 0 || len(in[1].items) == 0 {
		return nil, false
	}
	a, b := in[0], in[1]
	if len(a.items) != len(b.items) && len(a.items) != 1 && len(b.items) != 1 {
		return nil, false
	}
	out := &fact{known: true, dims: a.dims}
	if len(b.dims) > len(a.dims) || len(b.items) > len(a.items) {
		out.dims = b.dims
	}
	for i := range max(len(a.items), len(b.items)) {
		x, y := a.items[min(i, len(a.items)-1)], b.items[min(i, len(b.items)-1)]
		v, ok := compute(n.Op, x, y)
		if !ok {
			return nil, false
		}
		out.items = append(out.items, v)
	}
	return []*fact{out}, true
}

func compute(op string, x, y dim) (dim, bool) {
	const most = 1 << 30 // so that no product overflows
	if x.n < -most || x.n > most || y.n < -most || y.n > most {
		return dim{}, false
	}
	switch op {
	case "Mul":
		return dim{x.n * y.n, x.batch || y.batch}, !(x.batch && y.batch)
	case "Div":
		if y.n == 0 || x.n%y.n != 0 || y.batch && !x.batch {
			return dim{}, false
		}
		return dim{x.n / y.n, x.batch && !y.batch}, true
	case "Add":
		return dim{x.n + y.n, x.batch}, x.batch == y.batch
	}
	return dim{x.n - y.n, x.batch}, x.batch == y.batch
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"errors"
	"math"
	"slices"
	"strings"

	"fulmar/inference/onnxfile/graph"
)

// The rules of operations that compute over neighbours, rows and channels.

// scaled is QuantizeLinear and DequantizeLinear.
func scaled(n *graph.Node, in []*fact) ([]*fact, error) {
	if len(in) < 2 || in[1] == nil || !in[1].known || len(in[1].dims) > 1 {
		return nil, errShape
	}
	if d := in[1].dims; len(d) == 1 && d[0].n != 1 {
		a, err := place(n.Int("axis", 1), len(in[0].dims))
		if err != nil {
			return nil, err
		}
		if in[0].dims[a].batch {
			return nil, errMixed
		}
	}
	return same(in[0]), rest(in[1:])
}

// window is what slides over the picture: the first dimension counts pictures, the
// second channels.
func window(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	if x.axis() != 0 || len(x.dims) < 3 {
		return nil, errMixed
	}
	if err := rest(in[1:]); err != nil {
		return nil, err
	}
	out := slices.Clone(x.dims)
	sides := out[2:]
	if strings.HasPrefix(n.Op, "Global") {
		for i := range sides {
			sides[i].n = 1
		}
		return made(out...), nil
	}
	kernel := n.Ints("kernel_shape")
	if strings.HasPrefix(n.Op, "Conv") {
		if len(in) < 2 || in[1] == nil || !in[1].known || len(in[1].dims) != len(out) {
			return nil, errShape
		}
		w := in[1].dims
		kernel = nil
		for _, d := range w[2:] {
			kernel = append(kernel, d.n)
		}
		out[1].n = w[0].n
		if n.Op == "ConvTranspose" {
			if out[1].n = w[1].n * n.Int("group", 1); n.Attribute("output_shape") != nil {
				return nil, errors.New("output_shape of ConvTranspose is not followed here; export it with pads")
			}
		}
	}
	strides, dilations, pads, extra := n.Ints("strides"), n.Ints("dilations"), n.Ints("pads"), n.Ints("output_padding")
	if len(kernel) != len(sides) || !fits(strides, len(sides)) || !fits(dilations, len(sides)) || !fits(pads, 2*len(sides)) || !fits(extra, len(sides)) {
		return nil, errShape
	}
	for i := range sides {
		g := side{size: sides[i].n, kernel: kernel[i], stride: 1, dilation: 1, auto: n.Text("auto_pad"), ceil: n.Int("ceil_mode", 0) != 0}
		if strides != nil {
			g.stride = strides[i]
		}
		if dilations != nil {
			g.dilation = dilations[i]
		}
		if pads != nil {
			g.pad = pads[i] + pads[i+len(sides)]
		}
		if extra != nil {
			g.extra = extra[i]
		}
		if !g.sound() {
			return nil, errShape
		}
		if n.Op == "ConvTranspose" {
			sides[i].n = g.wider()
		} else {
			sides[i].n = g.positions()
		}
	}
	_, err := product(out)
	// MaxPool's second output has places counted over the whole batch.
	return made(out...), err
}

func fits(list []int64, n int) bool { return list == nil || len(list) == n }

// side is one direction of a window.
type side struct {
	size, kernel, stride, dilation, pad, extra int64
	auto                                       string
	ceil                                       bool
}

func (g *side) sound() bool {
	const most = 1 << 20
	for _, v := range []int64{g.size, g.kernel, g.stride, g.dilation} {
		if v < 1 || v > most {
			return false
		}
	}
	return g.pad >= 0 && g.pad <= most && g.extra >= 0 && g.extra <= most
}

// positions is how often the window fits.
func (g *side) positions() int64 {
	reach := (g.kernel-1)*g.dilation + 1
	switch g.auto {
	case "SAME_UPPER", "SAME_LOWER":
		return (g.size + g.stride - 1) / g.stride
	case "VALID":
		g.pad = 0
	}
	room := g.size + g.pad - reach
	if g.ceil {
		room += g.stride - 1
	}
	if room < 0 {
		return 0
	}
	return room/g.stride + 1
}

// wider is the size that ConvTranspose makes.
func (g *side) wider() int64 {
	if g.auto == "SAME_UPPER" || g.auto == "SAME_LOWER" {
		return g.size * g.stride
	}
	if g.auto == "VALID" {
		g.pad = 0
	}
	return g.stride*(g.size-1) + g.extra + (g.kernel-1)*g.dilation + 1 - g.pad
}

// resize is Resize and Upsample. Sizes pin the batch; they become scales, which leave
// it as it is.
func (s *batch) resize(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	if x.axis() != 0 || n.Attribute("axes") != nil {
		return nil, errMixed
	}
	scales, sizes := 2, 3
	if n.Op == "Upsample" || s.m.Opset < 11 {
		scales, sizes = 1, -1
	}
	if n.Op == "Upsample" && len(in) < 2 {
		return nil, errors.New("scales as an attribute are not read here; export it with opset 9 or a later one")
	}
	if sizes > 0 && sizes < len(in) && in[sizes] != nil {
		return s.resizeTo(n, x, in[sizes])
	}
	if scales >= len(in) || in[scales] == nil || in[scales].tensor == nil {
		return nil, errors.New("its scales are not written in the file")
	}
	v, err := in[scales].tensor.Floats()
	if err != nil || len(v) != len(x.dims) {
		return nil, errShape
	}
	if v[0] != 1 {
		return nil, errMixed
	}
	out := slices.Clone(x.dims)
	for i := 1; i < len(out); i++ {
		size := math.Floor(float64(float32(out[i].n) * v[i]))
		if !(size >= 1 && size < graph.MaxSize) {
			return nil, errShape
		}
		out[i].n = int64(size)
	}
	_, err = product(out)
	return made(out...), err
}

func (s *batch) resizeTo(n *graph.Node, x, sizes *fact) ([]*fact, error) {
	if len(sizes.items) != len(x.dims) {
		return nil, errors.New("its sizes are not written in the file")
	}
	if p := n.Text("keep_aspect_ratio_policy"); p != "" && p != "stretch" {
		return nil, errors.New("sizes that keep the aspect are not followed here; export it with scales")
	}
	out := slices.Clone(sizes.items)
	if slices.ContainsFunc(out[1:], func(d dim) bool { return d.batch }) {
		return nil, errMixed
	}
	if out[0].batch {
		if out[0] != x.dims[0] {
			return nil, errMixed
		}
		_, err := product(out)
		return made(out...), err
	}
	if out[0].n != x.dims[0].n {
		return nil, errMixed
	}
	out[0].batch = true
	scales := []float32{1}
	for i := 1; i < len(out); i++ {
		v := float32(out[i].n) / float32(x.dims[i].n)
		// The runtime takes the floor of this product; a scale that rounds down would
		// lose the last row.
		if got := math.Floor(float64(float32(x.dims[i].n) * v)); out[i].n < 1 || got != float64(out[i].n) {
			return nil, errors.New("its sizes cannot be written as scales; export it with scales")
		}
		scales = append(scales, v)
	}
	name := s.fresh("scales")
	s.change([]string{n.Inputs[0], n.Inputs[1], name}, graph.ConstantNode(name, graph.FloatTensor(name, []int64{int64(len(scales))}, scales)))
	_, err := product(out)
	return made(out...), err
}

func softmax(n *graph.Node, x *fact, opset int64) ([]*fact, error) {
	const byAxis = 13 // the opset from which it works along one axis, before from it on
	otherwise := int64(-1)
	if opset < byAxis {
		otherwise = 1
	}
	a, err := place(n.Int("axis", otherwise), len(x.dims))
	if err != nil {
		return nil, err
	}
	if k := x.axis(); k == a || opset < byAxis && k > a {
		return nil, errMixed
	}
	return same(x), nil
}

func reduce(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	axes, err := listed(n, in, "axes", 1)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(n.Op, "Arg") {
		axes = []int64{n.Int("axis", 0)}
	}
	if len(axes) == 0 {
		return nil, errMixed
	}
	out := slices.Clone(x.dims)
	gone := make([]bool, len(out))
	for _, a := range axes {
		p, err := place(a, len(out))
		if err != nil {
			return nil, err
		}
		if out[p].batch {
			return nil, errMixed
		}
		out[p].n, gone[p] = 1, true
	}
	if n.Int("keepdims", 1) == 0 {
		var left []dim
		for i, d := range out {
			if !gone[i] {
				left = append(left, d)
			}
		}
		out = left
	}
	return made(out...), nil
}

func matmul(in []*fact) ([]*fact, error) {
	if len(in) != 2 || in[1] == nil || !in[1].known || len(in[0].dims) < 2 || len(in[1].dims) < 2 {
		return nil, errShape
	}
	a, b := in[0].dims, in[1].dims
	m, c := a[len(a)-2], b[len(b)-1]
	if a[len(a)-1] != b[len(b)-2] || a[len(a)-1].batch || c.batch {
		return nil, errMixed
	}
	out, err := broadcast([]*fact{{known: true, dims: a[:len(a)-2]}, {known: true, dims: b[:len(b)-2]}})
	if err != nil {
		return nil, err
	}
	out[0].dims = append(out[0].dims, m, c)
	if n := out[0].axis(); m.batch && n != len(out[0].dims)-2 {
		return nil, errMixed
	}
	_, err = product(out[0].dims)
	return out, err
}

func gemm(n *graph.Node, in []*fact) ([]*fact, error) {
	if len(in) < 2 || in[1] == nil || !in[1].known || len(in[0].dims) != 2 || len(in[1].dims) != 2 {
		return nil, errShape
	}
	if in[0].axis() != 0 || n.Int("transA", 0) != 0 || rest(in[1:]) != nil {
		return nil, errMixed
	}
	if len(in) > 2 && in[2] != nil {
		// A bias with rows of its own would give each picture another one.
		if !in[2].known || len(in[2].dims) > 1 && in[2].dims[0].n != 1 {
			return nil, errMixed
		}
	}
	columns := in[1].dims[1]
	if n.Int("transB", 0) != 0 {
		columns = in[1].dims[0]
	}
	return made(in[0].dims[0], columns), nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onnxfile

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"fulmar/inference/onnxfile/graph"
)

// ErrQuantized says that the Q/DQ nodes of a file do not say what a calibration cache
// can say.
var ErrQuantized = errors.New("no calibration cache can be made of its Q/DQ nodes")

// strip takes the Q/DQ nodes out of a network.
type strip struct {
	m         *graph.Model
	constants map[string]*graph.Tensor
	producer  map[string]int      // of each name, the node
	users     map[string]int      // of each name, how many nodes and outputs read it
	outputs   map[string]bool     // of the graph
	gone      map[int]bool        // nodes
	renamed   map[string]string   // what stands for the output of a DequantizeLinear
	kept      map[int][]byte      // nodes that take the place of others
	weights   [][]byte            // new initializers
	folded    int64               // numbers in them
	scales    map[string]float32  // of what was quantized
	loose     map[string]struct{} // constants that only Q/DQ nodes used, perhaps
}

// Calibration makes of a network with Q/DQ nodes the pair that TensorRT up to 10 takes
// for implicit quantization, the only kind its DLA knows: the network without Q/DQ
// nodes, weights as float32 (rounded to what INT8 can hold, so that the same INT8
// numbers come out of them), and the text of a calibration cache with the scale of
// each tensor that was quantized. version is what getInferLibVersion tells of the
// library that will read it (8602, 100300): TensorRT 10 refuses a cache of another.
//
// The cache is, a line each, TRT-<version>-EntropyCalibration2 and then
// "<tensor>: <scale>", the scale being the largest absolute value divided by 127, as
// the eight hexadecimal digits of a big-endian float32. Sources: "Calibration file" in
// the README of NVIDIA's sampleINT8, and tools/qdq-translator (utils.py) in
// github.com/NVIDIA/Deep-Learning-Accelerator-SW.
//
// As that translator does, scales are also given to tensors beside those quantized,
// but only where no number can differ: through operations that move elements, from
// before a MaxPool or Relu to behind it, and from behind a Relu to before it if
// nothing else reads what is there. Tensors without a line are computed in floating
// point.
func Calibration(b []byte, version int) (stripped, cache []byte, err error) {
	m, err := graph.Parse(b)
	if err != nil {
		return nil, nil, err
	}
	s := &strip{
		m: m, constants: map[string]*graph.Tensor{}, producer: map[string]int{}, users: map[string]int{}, outputs: map[string]bool{}, gone: map[int]bool{},
		renamed: map[string]string{}, kept: map[int][]byte{}, scales: map[string]float32{}, loose: map[string]struct{}{},
	}
	if version < 1 {
		return nil, nil, fmt.Errorf("%w: version %d is none of TensorRT", ErrQuantized, version)
	}
	s.index()
	for i := range m.Nodes {
		n := &m.Nodes[i]
		switch n.Op {
		case "QuantizeLinear":
			err = s.quantize(i, n)
		case "DequantizeLinear":
			err = s.dequantize(i, n)
		default:
			if slices.ContainsFunc(n.Attributes, func(a graph.Attribute) bool { return a.Graph }) {
				err = errors.New("it holds networks of its own; export it without control flow")
			}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %s: %w", ErrQuantized, n, err)
		}
	}
	if len(s.scales) == 0 {
		return nil, nil, fmt.Errorf("%w: it quantizes no tensor", ErrQuantized)
	}
	if err := s.whole(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrQuantized, err)
	}
	s.spread()
	if cache, err = s.cache(version); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrQuantized, err)
	}
	stripped, err = s.write()
	return stripped, cache, err
}

func (s *strip) index() {
	for i := range s.m.Initializers {
		s.constants[s.m.Initializers[i].Name] = &s.m.Initializers[i]
	}
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		for _, name := range n.Inputs {
			s.users[name]++
		}
		for _, name := range n.Outputs {
			s.producer[name] = i
		}
		if a := n.Attribute("value"); n.Op == "Constant" && a != nil && a.Tensor != nil && len(n.Outputs) == 1 {
			s.constants[n.Outputs[0]] = a.Tensor
		}
	}
	for _, v := range s.m.Outputs {
		s.outputs[v.Name] = true
		s.users[v.Name]++
	}
}

// remove takes a Q/DQ node out, and notes the constants that it used.
func (s *strip) remove(i int, n *graph.Node) {
	s.gone[i] = true
	for _, name := range n.Inputs {
		s.users[name]--
		if s.constants[name] != nil {
			s.loose[name] = struct{}{}
		}
	}
}

// scale reads a Q/DQ node's scales and checks its zero point.
func (s *strip) scale(n *graph.Node) (scales []float32, typ graph.Type, err error) {
	if len(n.Inputs) < 2 || len(n.Outputs) != 1 || n.Int("block_size", 0) != 0 {
		return nil, 0, errors.New("it is no Q/DQ node of a known form")
	}
	if s.constants[n.Outputs[0]] != nil {
		return nil, 0, fmt.Errorf("%q is made twice", n.Outputs[0])
	}
	t := s.constants[n.Inputs[1]]
	if t == nil || len(t.Dims) > 1 {
		return nil, 0, errors.New("its scale is not one list of numbers in the file")
	}
	if scales, err = t.Floats(); err != nil {
		return nil, 0, err
	}
	if len(scales) == 0 || slices.ContainsFunc(scales, func(v float32) bool { return !(v > 0 && v <= math.MaxFloat32) }) {
		return nil, 0, errors.New("its scale is not positive")
	}
	if len(n.Inputs) < 3 || n.Inputs[2] == "" {
		return scales, graph.Type(n.Int("output_dtype", int64(graph.Uint8))), nil
	}
	z := s.constants[n.Inputs[2]]
	if z == nil {
		return nil, 0, errors.New("its zero point is not in the file")
	}
	zeros, err := z.Ints()
	if err != nil {
		return nil, 0, err
	}
	if slices.ContainsFunc(zeros, func(v int64) bool { return v != 0 }) {
		return nil, 0, errors.New("its zero point is not 0; quantize symmetrically")
	}
	return scales, z.Type, nil
}

// quantize takes a QuantizeLinear out. That nothing but DequantizeLinear used what it
// made is seen in the end.
func (s *strip) quantize(i int, n *graph.Node) error {
	_, typ, err := s.scale(n)
	if err != nil {
		return err
	}
	if typ != graph.Int8 {
		return errors.New("it makes no INT8; quantize with INT8 and a zero point of 0")
	}
	if s.outputs[n.Outputs[0]] {
		return errors.New("its INT8 numbers are an output of the network")
	}
	s.remove(i, n)
	return nil
}

func (s *strip) dequantize(i int, n *graph.Node) error {
	scales, _, err := s.scale(n)
	if err != nil {
		return err
	}
	q, out := n.Inputs[0], n.Outputs[0]
	s.remove(i, n)
	if t := s.constants[q]; t != nil {
		if t.Type != graph.Int8 && t.Type != graph.Int32 {
			return errors.New("its constant is neither INT8 nor INT32")
		}
		v, err := t.Ints()
		if err != nil {
			return err
		}
		return s.fold(n, t, scales, func(i int, scale float32) float32 { return float32(v[i]) * scale })
	}
	at, ok := s.producer[q]
	if !ok || s.m.Nodes[at].Op != "QuantizeLinear" || at >= i {
		return errors.New("what goes in comes from no QuantizeLinear; put the pair side by side")
	}
	from := &s.m.Nodes[at]
	before, _, err := s.scale(from)
	if err != nil {
		return err
	}
	if !slices.Equal(before, scales) || len(scales) > 1 && from.Int("axis", 1) != n.Int("axis", 1) {
		return fmt.Errorf("its scale is another than that of %s", from)
	}
	x := s.current(from.Inputs[0])
	if t := s.constants[x]; t != nil {
		v, err := t.Floats()
		if err != nil {
			return err
		}
		return s.fold(n, t, scales, func(i int, scale float32) float32 {
			r := math.RoundToEven(float64(v[i] / scale))
			return float32(max(math.MinInt8, min(math.MaxInt8, r))) * scale
		})
	}
	if len(scales) > 1 {
		return errors.New("a tensor that is no weight has a scale for each channel; TensorRT takes one")
	}
	if old, ok := s.scales[x]; ok && old != scales[0] {
		return fmt.Errorf("%q has the scale %g here and %g elsewhere; a calibration cache holds one", x, scales[0], old)
	}
	s.scales[x] = scales[0]
	if s.outputs[out] {
		s.kept[i] = graph.IdentityNode(n.Name, x, out)
		s.scales[out] = scales[0]
		s.users[x]++
		return nil
	}
	s.renamed[out] = x
	s.users[x] += s.users[out]
	return nil
}

// current is the name that a tensor has in the stripped network.
func (s *strip) current(name string) string {
	if to, ok := s.renamed[name]; ok {
		return to // never renamed itself: its DequantizeLinear came before
	}
	return name
}

// fold makes a constant of what a DequantizeLinear makes of a constant.
func (s *strip) fold(n *graph.Node, t *graph.Tensor, scales []float32, value func(i int, scale float32) float32) error {
	if s.outputs[n.Outputs[0]] {
		return errors.New("it makes an output of the network from a constant")
	}
	size, stride, channels := t.Size(), int64(1), int64(1)
	if len(scales) > 1 {
		a := n.Int("axis", 1)
		if a < 0 {
			a += int64(len(t.Dims))
		}
		if a < 0 || a >= int64(len(t.Dims)) {
			return fmt.Errorf("its axis is outside of %d dimensions", len(t.Dims))
		}
		if channels = t.Dims[a]; channels != int64(len(scales)) {
			return fmt.Errorf("it has %d scales for %d channels", len(scales), channels)
		}
		for _, d := range t.Dims[a+1:] {
			stride *= d
		}
	}
	// One constant may be behind many nodes.
	if s.folded += size; s.folded > graph.MaxFile/4 {
		return fmt.Errorf("its weights have over %d bytes as float32", graph.MaxFile)
	}
	values := make([]float32, size)
	for i := range values {
		values[i] = value(i, scales[int64(i)/stride%channels])
	}
	s.weights = append(s.weights, graph.FloatTensor(n.Outputs[0], t.Dims, values))
	return nil
}

// whole checks that each node left finds what it reads.
func (s *strip) whole() error {
	made := map[string]bool{"": true}
	for name := range s.constants {
		made[name] = true
	}
	for _, v := range s.m.Inputs {
		made[v.Name] = true
	}
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		if s.gone[i] {
			if s.kept[i] != nil || s.renamed[n.Outputs[0]] == "" && n.Op == "DequantizeLinear" {
				made[n.Outputs[0]] = true
			}
			continue
		}
		for _, name := range n.Inputs {
			if !made[s.current(name)] {
				return fmt.Errorf("%s: nothing makes %q before it, or QuantizeLinear alone; put Q/DQ nodes in pairs", n, name)
			}
		}
		for _, name := range n.Outputs {
			made[name] = true
		}
	}
	for name := range s.outputs {
		if !made[name] {
			return fmt.Errorf("nothing makes the output %q", name)
		}
	}
	return nil
}

// spread gives scales to tensors beside those that have one, where they hold the same
// numbers or fewer.
func (s *strip) spread() {
	const rounds = 4 // a chain takes one each way; more are rare
	moves := []string{"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
	step := func(n *graph.Node, forward bool) {
		if len(n.Inputs) == 0 || len(n.Outputs) != 1 {
			return
		}
		from, to := s.current(n.Inputs[0]), n.Outputs[0]
		if !forward {
			if s.users[from] != 1 || s.constants[from] != nil {
				return
			}
			from, to = to, from
		}
		if v, ok := s.scales[from]; ok && (slices.Contains(moves, n.Op) || n.Op == "Relu" || n.Op == "MaxPool" && forward) {
			if _, has := s.scales[to]; !has {
				s.scales[to] = v
			}
		}
	}
	for range rounds {
		for i := range s.m.Nodes {
			step(&s.m.Nodes[i], true)
		}
		for i := range s.m.Nodes {
			step(&s.m.Nodes[len(s.m.Nodes)-1-i], false)
		}
	}
}

// cache writes the scales in the order in which the tensors are made.
func (s *strip) cache(version int) ([]byte, error) {
	out := fmt.Appendf(nil, "TRT-%d-EntropyCalibration2\n", version)
	line := func(name string) error {
		v, ok := s.scales[name]
		if !ok {
			return nil
		}
		if strings.ContainsAny(name, "\r\n") || strings.Contains(name, ": ") {
			return fmt.Errorf("the tensor %q has a name that no line of a cache can hold", name)
		}
		out = fmt.Appendf(out, "%s: %08x\n", name, math.Float32bits(v))
		return nil
	}
	for _, v := range s.m.Inputs {
		if err := line(v.Name); err != nil {
			return nil, err
		}
	}
	for i := range s.m.Nodes {
		if s.gone[i] && s.kept[i] == nil {
			continue
		}
		for _, name := range s.m.Nodes[i].Outputs {
			if err := line(name); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// write puts the file together without what is gone.
func (s *strip) write() ([]byte, error) {
	unused := map[string]bool{}
	for name := range s.loose {
		unused[name] = s.users[name] == 0
	}
	for i := range s.gone {
		unused[s.m.Nodes[i].Outputs[0]] = s.kept[i] == nil
	}
	for i := range s.m.Nodes {
		if n := &s.m.Nodes[i]; n.Op == "Constant" && len(n.Outputs) == 1 && unused[n.Outputs[0]] {
			s.gone[i] = true
		}
	}
	e := graph.Edit{Nodes: map[int][][]byte{}, Initializers: s.weights, Without: unused}
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		if k := s.kept[i]; k != nil {
			e.Nodes[i] = [][]byte{k}
			continue
		}
		if s.gone[i] {
			e.Nodes[i] = nil
			continue
		}
		inputs := make([]string, len(n.Inputs))
		for j, name := range n.Inputs {
			inputs[j] = s.current(name)
		}
		if !slices.Equal(inputs, n.Inputs) {
			b, err := n.WithInputs(inputs)
			if err != nil {
				return nil, err
			}
			e.Nodes[i] = [][]byte{b}
		}
	}
	return s.m.Rewrite(&e)
}

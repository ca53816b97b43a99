// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"errors"
	"fmt"
	"slices"

	"fulmar/inference/onnxfile/graph"
)

// ErrBatch says that a network cannot be shown to compute several pictures at once as
// it computes each.
var ErrBatch = errors.New("its batch cannot be opened")

// dim is one dimension, or one number of a shape: n, or n times the pictures.
type dim struct {
	n     int64
	batch bool
}

// fact is what is known of a tensor. Where one of its dimensions has the batch, the
// pictures lie one after another in it, the slowest part of it, and what belongs to a
// picture depends on that picture alone. Where none has, it is the same for all.
type fact struct {
	known bool // that it has these dimensions
	dims  []dim
	// items are the numbers in it, for short vectors of whole numbers that are known.
	items []dim
	// tensor holds its numbers, if they are in the file.
	tensor *graph.Tensor
}

// maxItems is the longest vector of numbers that is followed: shapes, and the lists
// that shapes are cut from.
const maxItems = 256

// axis is the dimension that has the batch, or -1.
func (f *fact) axis() int { return slices.IndexFunc(f.dims, func(d dim) bool { return d.batch }) }

// counts tells whether the numbers in it depend on how many pictures there are.
func (f *fact) counts() bool {
	return slices.ContainsFunc(f.items, func(d dim) bool { return d.batch })
}

// edit is what becomes of a node: constants made before it, and other inputs.
type edit struct {
	constants [][]byte
	inputs    []string
}

// batch follows the pictures through a network.
type batch struct {
	m     *graph.Model
	facts map[string]*fact
	edits map[int]*edit
	names map[string]bool // all that are taken
	at    int             // the node looked at
}

// Open makes the first dimension of all inputs and outputs open, under the name
// N, and changes the shapes inside that pin a batch of one. The network then computes
// N pictures as it computed each of them, or the file is refused with the node's name.
// Shapes that the file notes for what is between are dropped.
func Open(b []byte) ([]byte, error) {
	m, err := graph.Parse(b)
	if err != nil {
		return nil, err
	}
	s := &batch{m: m, facts: map[string]*fact{}, edits: map[int]*edit{}, names: map[string]bool{}}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBatch, err)
	}
	for i := range m.Nodes {
		s.at = i
		if err := s.follow(&m.Nodes[i]); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrBatch, &m.Nodes[i], err)
		}
	}
	for i := range m.Outputs {
		if err := s.end(&m.Outputs[i]); err != nil {
			return nil, fmt.Errorf("%w: output %q: %w", ErrBatch, m.Outputs[i].Name, err)
		}
	}
	return s.write()
}

// start gives what is known of inputs and initializers.
func (s *batch) start() error {
	const leastOpset = 7 // before it broadcasting had other rules
	if s.m.Opset < leastOpset {
		return fmt.Errorf("it is written in opset %d; export it with %d or a later one", s.m.Opset, leastOpset)
	}
	for i := range s.m.Initializers {
		t := &s.m.Initializers[i]
		s.facts[t.Name], s.names[t.Name] = constant(t), true
	}
	for i := range s.m.Nodes {
		for _, name := range s.m.Nodes[i].Outputs {
			s.names[name] = true
		}
	}
	for _, v := range s.m.Inputs {
		if len(v.Dims) == 0 || v.Dims[0] != 1 && v.Dims[0] != -1 {
			return fmt.Errorf("input %q has shape %v; the first dimension wants to be 1 or open", v.Name, v.Dims)
		}
		f := &fact{known: true, dims: []dim{{1, true}}}
		for _, d := range v.Dims[1:] {
			if d < 1 {
				return fmt.Errorf("input %q has shape %v; export it with fixed sizes behind the first", v.Name, v.Dims)
			}
			f.dims = append(f.dims, dim{d, false})
		}
		if err := s.put(v.Name, f); err != nil {
			return err
		}
	}
	return nil
}

// put notes a tensor. Each has one origin in a file that is sound.
func (s *batch) put(name string, f *fact) error {
	if name == "" {
		return nil
	}
	if s.facts[name] != nil {
		return fmt.Errorf("%q is made twice", name)
	}
	if len(f.dims) > graph.MaxRank {
		return fmt.Errorf("%q has over %d dimensions", name, graph.MaxRank)
	}
	if len(f.items) > maxItems {
		if f.counts() {
			return fmt.Errorf("%q has over %d numbers that depend on the batch", name, maxItems)
		}
		f.items = nil
	}
	s.facts[name] = f
	return nil
}

// constant is what is known of numbers in the file.
func constant(t *graph.Tensor) *fact {
	f := &fact{known: true, tensor: t}
	for _, d := range t.Dims {
		f.dims = append(f.dims, dim{d, false})
	}
	if (t.Type == graph.Int64 || t.Type == graph.Int32) && len(t.Dims) <= 1 && t.Size() <= maxItems {
		if v, err := t.Ints(); err == nil {
			f.items = make([]dim, len(v))
			for i := range v {
				f.items[i] = dim{v[i], false}
			}
		}
	}
	return f
}

// follow finds what a node makes from what goes in.
func (s *batch) follow(n *graph.Node) error {
	in := make([]*fact, len(n.Inputs))
	depends := false
	for i, name := range n.Inputs {
		if name == "" {
			continue
		}
		if in[i] = s.facts[name]; in[i] == nil {
			return fmt.Errorf("%q is used before it is made", name)
		}
		depends = depends || in[i].axis() >= 0 || in[i].counts()
	}
	if slices.ContainsFunc(n.Attributes, func(a graph.Attribute) bool { return a.Graph }) {
		return errors.New("it holds networks of its own, which are not followed here; export it without control flow")
	}
	out, err := s.rule(n, in)
	if err == nil && len(out) < len(n.Outputs) {
		err = fmt.Errorf("only its first %d outputs are known here", len(out))
	}
	if err != nil {
		if depends {
			return err
		}
		out = nil // numbers that are the same for all pictures, whatever they are
	}
	for i, name := range n.Outputs {
		f := &fact{}
		if i < len(out) {
			f = out[i]
		}
		if err := s.put(name, f); err != nil {
			return err
		}
	}
	return nil
}

// end checks that an output has its pictures one after another.
func (s *batch) end(v *graph.Value) error {
	f := s.facts[v.Name]
	if f == nil {
		return errors.New("no node makes it")
	}
	if f.axis() != 0 || f.dims[0].n != 1 {
		return fmt.Errorf("its first dimension is not the batch, its shape is %s", shape(f.dims))
	}
	if v.Dims == nil {
		return nil
	}
	ok := len(v.Dims) == len(f.dims)
	for i := 1; ok && i < len(v.Dims); i++ {
		ok = v.Dims[i] < 1 || v.Dims[i] == f.dims[i].n
	}
	if !ok {
		return fmt.Errorf("the file says its shape is %v, it comes out as %s", v.Dims, shape(f.dims))
	}
	return nil
}

func shape(dims []dim) string {
	s := "["
	for i, d := range dims {
		if i > 0 {
			s += " "
		}
		switch {
		case d.batch && d.n == 1:
			s += "N"
		case d.batch:
			s += fmt.Sprintf("%dN", d.n)
		default:
			s += fmt.Sprint(d.n)
		}
	}
	return s + "]"
}

// change notes other inputs for the node looked at. A number of them are made by
// constants of their own, because those of the file may have other users.
func (s *batch) change(inputs []string, constants ...[]byte) {
	s.edits[s.at] = &edit{constants, inputs}
}

// fresh is a name that nothing else in the file has.
func (s *batch) fresh(what string) string {
	name := fmt.Sprintf("batch_%s_%d", what, s.at)
	for s.names[name] || s.facts[name] != nil {
		name += "_"
	}
	s.names[name] = true
	return name
}

// write puts the file together again.
func (s *batch) write() ([]byte, error) {
	e := graph.Edit{Nodes: map[int][][]byte{}, Open: true}
	for i, c := range s.edits {
		n, err := s.m.Nodes[i].WithInputs(c.inputs)
		if err != nil {
			return nil, err
		}
		e.Nodes[i] = append(c.constants, n)
	}
	return s.m.Rewrite(&e)
}

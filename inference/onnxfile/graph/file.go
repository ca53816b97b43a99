// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of what is read, held before anything is allocated for it. Detectors have a
// few thousand nodes and tensors of rank 6 at most.
const (
	MaxFile  = 256 << 20 // bytes, as for a network of a model package
	MaxRank  = 16
	MaxSize  = 1 << 40 // elements of a tensor
	maxParts = 1 << 16 // nodes, initializers, and values, each
	maxEdges = 1 << 20 // inputs, outputs and attributes of all nodes, and the numbers in those, together
	maxName  = 1024    // bytes
	maxInts  = 1024    // numbers in one attribute
)

// ErrFile says that the bytes are no ONNX file that this package reads.
var ErrFile = errors.New("ONNX file refused")

// Type is the type of a tensor's elements, by ONNX's number.
type Type int32

// The element types that are told apart here.
const (
	Float Type = 1
	Uint8 Type = 2
	Int8  Type = 3
	Int32 Type = 6
	Int64 Type = 7
)

// Value is an input or output of the network.
type Value struct {
	Name string
	Type Type
	// Dims are its dimensions, -1 for one left open; nil if the file gives none.
	Dims []int64
}

// Attribute is an attribute of a node; which of the values counts is for the reader
// to know.
type Attribute struct {
	Name   string
	Int    int64
	Ints   []int64
	Text   string
	Tensor *Tensor
	// Graph tells that it holds networks of its own, as If and Loop do.
	Graph bool
}

// Node is one operation.
type Node struct {
	Op, Name, Domain string
	Inputs, Outputs  []string
	Attributes       []Attribute

	raw []byte
}

// Model is a parsed file. It shares the memory of the bytes it was parsed from.
type Model struct {
	IR    int64
	Opset int64
	// Inputs are those to be given, without the initializers that old files list too.
	Inputs, Outputs []Value
	// Nodes are in the file's order.
	Nodes        []Node
	Initializers []Tensor

	top, graph []byte // the messages
	edges      int
}

// Parse reads a file.
func Parse(b []byte) (*Model, error) {
	if len(b) == 0 || len(b) > MaxFile {
		return nil, fmt.Errorf("%w: it has %d bytes, wants 1 to %d", ErrFile, len(b), MaxFile)
	}
	m := &Model{top: b}
	if err := m.parse(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return m, nil
}

func (m *Model) parse() error {
	if err := walk(m.top, func(x field) error {
		switch x.num {
		case 1:
			m.IR = int64(x.u)
		case 7:
			if m.graph != nil || x.typ != protowire.BytesType {
				return errors.New("it does not hold one graph")
			}
			m.graph = x.val
		case 8:
			return m.opset(x.val)
		}
		return nil
	}); err != nil {
		return err
	}
	if len(m.graph) == 0 {
		return errors.New("it holds no graph; is it an ONNX file?")
	}
	var inputs []Value
	if err := walk(m.graph, func(x field) error { return m.part(x, &inputs) }); err != nil {
		return err
	}
	given := map[string]bool{}
	for i := range m.Initializers {
		n := m.Initializers[i].Name
		if n == "" || given[n] {
			return fmt.Errorf("initializer %q has no name or is there twice", n)
		}
		given[n] = true
	}
	for _, v := range inputs {
		if !given[v.Name] {
			m.Inputs = append(m.Inputs, v)
		}
	}
	if len(m.Inputs) == 0 || len(m.Outputs) == 0 {
		return fmt.Errorf("%d inputs and %d outputs, wants one of each at least", len(m.Inputs), len(m.Outputs))
	}
	return nil
}

func (m *Model) opset(b []byte) error {
	domain, version := "", int64(0)
	err := walk(b, func(x field) error {
		switch x.num {
		case 1:
			domain = string(x.val[:min(len(x.val), maxName)])
		case 2:
			version = int64(x.u)
		}
		return nil
	})
	if Standard(domain) {
		m.Opset = version
	}
	return err
}

// Standard tells whether a domain is that of the operators of ONNX itself.
func Standard(domain string) bool { return domain == "" || domain == "ai.onnx" }

// part reads one field of the graph.
func (m *Model) part(x field, inputs *[]Value) error {
	switch x.num {
	case 1, 5, 11, 12:
		if x.typ != protowire.BytesType {
			return errWire
		}
	case 15:
		return errors.New("it has sparse initializers, which are not read here; export it with dense ones")
	default:
		return nil
	}
	if len(m.Nodes) >= maxParts || len(m.Initializers) >= maxParts || len(*inputs) >= maxParts || len(m.Outputs) >= maxParts {
		return fmt.Errorf("over %d nodes, initializers or values", maxParts)
	}
	switch x.num {
	case 1:
		n, err := m.node(x.val)
		if err != nil {
			return fmt.Errorf("node %d (%s %q): %w", len(m.Nodes), n.Op, n.Name, err)
		}
		m.Nodes = append(m.Nodes, n)
	case 5:
		t, err := parseTensor(x.val)
		if err != nil {
			return fmt.Errorf("initializer %d (%q): %w", len(m.Initializers), t.Name, err)
		}
		m.Initializers = append(m.Initializers, t)
	case 11, 12:
		v, err := value(x.val)
		if err != nil {
			return fmt.Errorf("input or output %q: %w", v.Name, err)
		}
		if x.num == 12 {
			m.Outputs = append(m.Outputs, v)
			return nil
		}
		*inputs = append(*inputs, v)
	}
	return nil
}

func (m *Model) node(b []byte) (Node, error) {
	n := Node{raw: b}
	return n, walk(b, func(x field) error {
		var err error
		s := ""
		if x.num >= 1 && x.num <= 7 && x.num != 6 {
			if m.edges++; m.edges > maxEdges {
				return errors.New("the network has too many inputs, outputs and attributes")
			}
		}
		switch x.num {
		case 1, 2, 3, 4, 7:
			if s, err = name(x); err != nil {
				return err
			}
		}
		switch x.num {
		case 1:
			n.Inputs = append(n.Inputs, s)
		case 2:
			n.Outputs = append(n.Outputs, s)
		case 3:
			n.Name = s
		case 4:
			n.Op = s
		case 7:
			n.Domain = s
		case 5:
			if x.typ != protowire.BytesType {
				return errWire
			}
			a, err := attribute(x.val)
			m.edges += len(a.Ints)
			if err != nil {
				return fmt.Errorf("attribute %q: %w", a.Name, err)
			}
			n.Attributes = append(n.Attributes, a)
		}
		return nil
	})
}

func attribute(b []byte) (Attribute, error) {
	var a Attribute
	err := walk(b, func(x field) error {
		var err error
		switch x.num {
		case 1:
			a.Name, err = name(x)
		case 3:
			a.Int = int64(x.u)
		case 4: // texts of any length are passed on; those compared here are short
			a.Text = string(x.val[:min(len(x.val), maxName)])
		case 5:
			var t Tensor
			t, err = parseTensor(x.val)
			a.Tensor = &t
		case 6, 11:
			a.Graph = true
		case 8:
			a.Ints, err = numbers(a.Ints, x, maxInts)
		}
		return err
	})
	return a, err
}

// Attribute finds an attribute; nil if the node does not have it.
func (n *Node) Attribute(name string) *Attribute {
	for i := range n.Attributes {
		if n.Attributes[i].Name == name {
			return &n.Attributes[i]
		}
	}
	return nil
}

// Int is an attribute's number, or what the format takes without it.
func (n *Node) Int(name string, otherwise int64) int64 {
	if a := n.Attribute(name); a != nil {
		return a.Int
	}
	return otherwise
}

// Ints are an attribute's numbers; nil if the node does not have it.
func (n *Node) Ints(name string) []int64 {
	if a := n.Attribute(name); a != nil {
		return a.Ints
	}
	return nil
}

// Text is an attribute's text; empty if the node does not have it.
func (n *Node) Text(name string) string {
	if a := n.Attribute(name); a != nil {
		return a.Text
	}
	return ""
}

// String names the node in errors.
func (n *Node) String() string {
	out := ""
	if len(n.Outputs) > 0 {
		out = n.Outputs[0]
	}
	if n.Name == "" {
		return fmt.Sprintf("the node %s that makes %q", n.Op, out)
	}
	return fmt.Sprintf("node %q (%s)", n.Name, n.Op)
}

// value reads a ValueInfoProto: the name, and type and shape if it is a tensor.
func value(b []byte) (Value, error) {
	var v Value
	err := walk(b, func(x field) error {
		var err error
		switch x.num {
		case 1:
			v.Name, err = name(x)
		case 2:
			err = inside(x.val, 1, func(x field) error { return v.tensor(x.val) })
		}
		return err
	})
	return v, err
}

func (v *Value) tensor(b []byte) error {
	return walk(b, func(x field) error {
		switch x.num {
		case 1:
			v.Type = Type(x.u)
		case 2:
			v.Dims = []int64{}
			return inside(x.val, 1, func(x field) error {
				if len(v.Dims) >= MaxRank {
					return fmt.Errorf("over %d dimensions", MaxRank)
				}
				d := int64(-1)
				err := inside(x.val, 1, func(x field) error { d = int64(x.u); return nil })
				if d < -1 || d > MaxSize {
					return fmt.Errorf("a dimension of %d", d)
				}
				v.Dims = append(v.Dims, d)
				return err
			})
		}
		return nil
	})
}

// inside calls f for each field of one number.
func inside(b []byte, num protowire.Number, f func(field) error) error {
	return walk(b, func(x field) error {
		if x.num != num {
			return nil
		}
		return f(x)
	})
}

// Quantized tells whether a file has QuantizeLinear nodes. Bytes that are no ONNX
// file have none.
func Quantized(b []byte) bool {
	found := errors.New("found")
	err := inside(b, 7, func(x field) error {
		return inside(x.val, 1, func(x field) error {
			return inside(x.val, 4, func(x field) error {
				if string(x.val) == "QuantizeLinear" {
					return found
				}
				return nil
			})
		})
	})
	return errors.Is(err, found)
}

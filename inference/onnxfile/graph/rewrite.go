// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package graph

// Edit says what becomes of a file.
type Edit struct {
	// Nodes are the messages that take the place of a node, by its number; none take it
	// out. A node without an entry stays.
	Nodes map[int][][]byte
	// Initializers are added.
	Initializers [][]byte
	// Without are the names of tensors that are no more: their initializers, inputs and
	// notes go, and all notes of what was quantized how.
	Without map[string]bool
	// Open leaves the first dimension of inputs and outputs open, under the name N.
	// Shapes noted for what is between go.
	Open bool
}

// Rewrite gives the file with an edit made. All else is passed on byte for byte.
func (m *Model) Rewrite(e *Edit) ([]byte, error) {
	given := map[string]bool{}
	for i := range m.Inputs {
		given[m.Inputs[i].Name] = true
	}
	g := make([]byte, 0, len(m.graph)+len(m.graph)/64)
	node, initializer := 0, 0
	if err := walk(m.graph, func(x field) error {
		name := ""
		switch x.num {
		case 1:
			with, ok := e.Nodes[node]
			node++
			if !ok {
				break
			}
			for _, n := range with {
				g = message(g, 1, n)
			}
			return nil
		case 5:
			name = m.Initializers[initializer].Name
			initializer++
		case 11, 12, 13:
			v, err := value(x.val)
			if err != nil {
				break // a note that nobody reads
			}
			if name = v.Name; e.Open && (x.num == 12 || x.num == 11 && given[name]) {
				opened, err := open(x.val)
				g = message(g, x.num, opened)
				return err
			}
			if e.Open && x.num == 13 {
				return nil
			}
		case 14:
			if e.Without != nil {
				return nil
			}
		}
		if name == "" || !e.Without[name] || x.num == 12 {
			g = append(g, x.raw...)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, t := range e.Initializers {
		g = message(g, 5, t)
	}
	out := make([]byte, 0, len(m.top)-len(m.graph)+len(g)+16)
	return out, walk(m.top, func(x field) error {
		if x.num == 7 {
			out = message(out, 7, g)
		} else {
			out = append(out, x.raw...)
		}
		return nil
	})
}

// IdentityNode is the message of a node that gives a tensor another name.
func IdentityNode(name, in, out string) []byte {
	return text(text(text(text(nil, 1, in), 2, out), 3, name), 4, "Identity")
}

// WithInputs is the node's message with other inputs.
func (n *Node) WithInputs(inputs []string) ([]byte, error) {
	var b []byte
	for _, i := range inputs {
		b = text(b, 1, i)
	}
	return b, walk(n.raw, func(x field) error {
		if x.num != 1 {
			b = append(b, x.raw...)
		}
		return nil
	})
}

// open is the message of an input or output with its first dimension open.
func open(v []byte) ([]byte, error) {
	first := true
	return edited(v, []int32{2, 1, 2}, func(x field, b []byte) []byte {
		if x.num == 1 && first {
			first = false
			return message(b, 1, text(nil, 2, "N"))
		}
		return append(b, x.raw...)
	})
}

// edited copies a message and changes the fields of the message that lies along path
// inside it.
func edited(m []byte, path []int32, change func(x field, b []byte) []byte) ([]byte, error) {
	b := make([]byte, 0, len(m)+8)
	return b, walk(m, func(x field) error {
		switch {
		case len(path) == 0:
			b = change(x, b)
		case int32(x.num) == path[0]:
			inner, err := edited(x.val, path[1:], change)
			if err != nil {
				return err
			}
			b = message(b, x.num, inner)
		default:
			b = append(b, x.raw...)
		}
		return nil
	})
}

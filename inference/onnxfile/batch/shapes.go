// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"fulmar/inference/onnxfile/graph"
)

// The rules of operations that move elements about.

// reshape follows the pictures into another shape. They stay the slowest part of the
// dimension before which as many elements lie as lay before them.
func (s *batch) reshape(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	if len(in) != 2 || in[1] == nil || in[1].items == nil || len(in[1].items) > graph.MaxRank {
		return nil, errors.New("its shape is not written in the file")
	}
	to := slices.Clone(in[1].items)
	out := slices.Clone(to)
	open, known, total := -1, int64(1), int64(0)
	total, err := product(x.dims)
	if err != nil {
		return nil, err
	}
	for i, d := range out {
		switch {
		case d.n == 0 && (n.Int("allowzero", 0) != 0 || i >= len(x.dims)):
			return nil, errors.New("its shape has a 0 that copies nothing")
		case d.n == 0:
			out[i] = x.dims[i]
		case d.n == -1 && open < 0 && !d.batch:
			open = i
			continue
		case d.n < 0:
			return nil, errors.New("its shape is not valid")
		}
		if known, err = product([]dim{{known, false}, out[i]}); err != nil {
			return nil, err
		}
	}
	if open >= 0 {
		if known == 0 || total%known != 0 {
			return nil, fmt.Errorf("%s cannot become %s", shape(x.dims), shape(to))
		}
		out[open] = dim{total / known, false}
	} else if known != total {
		return nil, fmt.Errorf("%s cannot become %s", shape(x.dims), shape(to))
	}
	f := &fact{known: true, dims: out}
	if len(out) <= 1 {
		f.items = x.items
	} else if x.counts() {
		return nil, errValues
	}
	k := x.axis()
	if k < 0 {
		if f.axis() >= 0 {
			return nil, errMixed
		}
		return []*fact{f}, nil
	}
	return []*fact{f}, s.settle(n, x, k, to, out, open)
}

// settle finds the batch in the shape that a Reshape makes, marks it in out, and
// changes the node where its numbers pin it.
func (s *batch) settle(n *graph.Node, x *fact, k int, to, out []dim, open int) error {
	before, err := product(x.dims[:k])
	if err != nil {
		return err
	}
	at := slices.IndexFunc(out, func(d dim) bool { return d.batch })
	fixed := at >= 0
	for i := 0; !fixed && at < 0 && i < len(out); i++ {
		if p, err := product(out[:i]); err == nil && p == before {
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("it joins the pictures with what lies before them: %s becomes %s", shape(x.dims), shape(out))
	}
	if fixed {
		// Written as the batch or copied from it: right if as much lies before it, and
		// nothing else is of the batch.
		p, err := product(out[:at])
		if err == nil && p != before {
			err = fmt.Errorf("it joins the pictures with what lies before them: %s becomes %s", shape(x.dims), shape(out))
		}
		if slices.ContainsFunc(out[at+1:], func(d dim) bool { return d.batch }) {
			err = errMixed
		}
		return err
	}
	out[at].batch = true
	if at == open {
		return nil
	}
	numbers := make([]int64, len(to))
	for i, d := range to {
		numbers[i] = d.n
	}
	if at == k && x.dims[k] == out[at] && n.Int("allowzero", 0) == 0 {
		numbers[at] = 0
	} else {
		numbers[at] = -1
		if open >= 0 {
			numbers[open] = out[open].n
		}
	}
	name := s.fresh("shape")
	s.change([]string{n.Inputs[0], name}, graph.ConstantNode(name, graph.IntTensor(name, numbers)))
	return nil
}

func flatten(n *graph.Node, x *fact) ([]*fact, error) {
	a := n.Int("axis", 1)
	if a < 0 {
		a += int64(len(x.dims))
	}
	if a < 0 || a > int64(len(x.dims)) {
		return nil, errShape
	}
	rows, err := product(x.dims[:a])
	if err != nil {
		return nil, err
	}
	columns, err := product(x.dims[a:])
	if err != nil {
		return nil, err
	}
	k := x.axis()
	if k > 0 {
		return nil, errMixed
	}
	if a == 0 && k == 0 {
		return made(dim{1, false}, dim{columns, true}), nil
	}
	return made(dim{rows, k == 0}, dim{columns, false}), nil
}

func squeeze(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	axes, err := listed(n, in, "axes", 1)
	if err != nil {
		return nil, err
	}
	if axes == nil {
		return nil, errors.New("without axes it drops the batch where there is one picture; export it with axes")
	}
	rank := len(x.dims)
	if n.Op == "Unsqueeze" {
		rank += len(axes)
	}
	marked := make([]bool, min(rank, 2*graph.MaxRank))
	for _, a := range axes {
		p, err := place(a, len(marked))
		if err != nil || marked[p] {
			return nil, errShape
		}
		marked[p] = true
	}
	var out []dim
	from := 0
	for _, m := range marked {
		switch {
		case m && n.Op == "Unsqueeze":
			out = append(out, dim{1, false})
			continue
		case !m:
			out = append(out, x.dims[from])
		case x.dims[from] != dim{1, false}:
			return nil, errMixed
		}
		from++
	}
	f := &fact{known: true, dims: out}
	if len(out) <= 1 {
		f.items = x.items
	} else if x.counts() {
		return nil, errValues
	}
	return []*fact{f}, nil
}

func concat(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	a, err := place(n.Int("axis", 0), len(x.dims))
	if err != nil {
		return nil, err
	}
	out := slices.Clone(x.dims)
	out[a].n = 0
	items, whole := []dim{}, len(out) == 1
	for _, f := range in {
		if f == nil || !f.known || len(f.dims) != len(out) {
			return nil, errShape
		}
		if f.axis() != x.axis() {
			return nil, errors.New("it joins the pictures with a constant that has no batch")
		}
		for i, d := range f.dims {
			if i != a && d != out[i] || i == a && d.batch {
				return nil, errMixed
			}
		}
		out[a].n += f.dims[a].n
		whole = whole && f.items != nil
		if len(items) <= maxItems {
			items = append(items, f.items...)
		}
	}
	if _, err := product(out); err != nil {
		return nil, err
	}
	f := &fact{known: true, dims: out}
	if whole {
		f.items = items
	} else if slices.ContainsFunc(in, func(f *fact) bool { return f.counts() }) {
		return nil, errValues
	}
	return []*fact{f}, nil
}

func gather(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	if len(in) != 2 || in[1] == nil || !in[1].known {
		return nil, errShape
	}
	a, err := place(n.Int("axis", 0), len(x.dims))
	if err != nil {
		return nil, err
	}
	if x.dims[a].batch {
		return nil, errMixed
	}
	at := in[1]
	out := slices.Concat(x.dims[:a], at.dims, x.dims[a+1:])
	if x.axis() >= 0 && at.axis() >= 0 || at.counts() {
		return nil, errMixed
	}
	f := &fact{known: true, dims: out}
	if x.items != nil && at.items != nil && len(x.dims) == 1 {
		for _, i := range at.items {
			p, err := place(i.n, len(x.items))
			if err != nil {
				return nil, err
			}
			f.items = append(f.items, x.items[p])
		}
	} else if x.counts() {
		return nil, errValues
	}
	return []*fact{f}, nil
}

// cut is Slice.
func cut(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	var lists [4][]int64
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		v, err := listed(n, in, name, i+1)
		if err != nil {
			return nil, err
		}
		lists[i] = v
	}
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	if len(starts) != len(ends) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return nil, errShape
	}
	out := slices.Clone(x.dims)
	items := x.items
	for i := range starts {
		a, step := int64(i), int64(1)
		if axes != nil {
			a = axes[i]
		}
		if steps != nil {
			step = steps[i]
		}
		p, err := place(a, len(out))
		if err != nil {
			return nil, err
		}
		if out[p].batch {
			if starts[i] != 0 || ends[i] < math.MaxInt32 || step != 1 {
				return nil, errMixed
			}
			continue
		}
		if step == 0 || step < -graph.MaxSize || step > graph.MaxSize {
			return nil, errShape
		}
		from, to := bound(starts[i], x.dims[p].n, step), bound(ends[i], x.dims[p].n, step)
		out[p].n = max(0, (to-from+step-step/max(step, -step))/step)
		if items != nil && len(x.dims) == 1 {
			items = nil
			for j := range out[p].n {
				items = append(items, x.items[from+j*step])
			}
			if items == nil {
				items = []dim{}
			}
		}
	}
	return []*fact{{known: true, dims: out, items: items}}, nil
}

// bound is a place of a Slice, held inside the dimension as the format has it.
func bound(at, size, step int64) int64 {
	if at < 0 {
		at += size
	}
	if step > 0 {
		return min(max(at, 0), size)
	}
	return min(max(at, -1), size-1)
}

func transpose(n *graph.Node, x *fact) ([]*fact, error) {
	perm := n.Ints("perm")
	if perm == nil {
		for i := range x.dims {
			perm = append(perm, int64(len(x.dims)-1-i))
		}
	}
	if len(perm) != len(x.dims) {
		return nil, errShape
	}
	out, used := make([]dim, len(perm)), make([]bool, len(perm))
	for i, p := range perm {
		if p < 0 || p >= int64(len(perm)) || used[p] {
			return nil, errShape
		}
		out[i], used[p] = x.dims[p], true
	}
	return made(out...), nil
}

func split(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	a, err := place(n.Int("axis", 0), len(x.dims))
	if err != nil {
		return nil, err
	}
	if x.dims[a].batch {
		return nil, errMixed
	}
	sizes, err := listed(n, in, "split", 1)
	if err != nil {
		return nil, err
	}
	if sizes == nil {
		parts := int64(len(n.Outputs))
		if parts == 0 || x.dims[a].n%parts != 0 {
			return nil, errShape
		}
		sizes = slices.Repeat([]int64{x.dims[a].n / parts}, int(parts))
	}
	if len(sizes) != len(n.Outputs) {
		return nil, errShape
	}
	var out []*fact
	for _, size := range sizes {
		d := slices.Clone(x.dims)
		d[a].n = size
		if _, err := product(d); err != nil {
			return nil, err
		}
		out = append(out, made(d...)...)
	}
	return out, nil
}

func pad(n *graph.Node, in []*fact) ([]*fact, error) {
	x := in[0]
	pads, err := listed(n, in, "pads", 1)
	if err != nil {
		return nil, err
	}
	if len(pads) != 2*len(x.dims) || len(in) > 3 && in[3] != nil {
		return nil, errShape
	}
	out := slices.Clone(x.dims)
	for i := range out {
		begin, end := pads[i], pads[i+len(out)]
		if begin < -graph.MaxSize || begin > graph.MaxSize || end < -graph.MaxSize || end > graph.MaxSize {
			return nil, errShape
		}
		if out[i].batch && (begin != 0 || end != 0) {
			return nil, errMixed
		}
		out[i].n += begin + end
	}
	_, err = product(out)
	return made(out...), errors.Join(err, rest(in[1:]))
}

// blocks is DepthToSpace and SpaceToDepth.
func blocks(n *graph.Node, x *fact) ([]*fact, error) {
	b := n.Int("blocksize", 0)
	if len(x.dims) != 4 || x.axis() != 0 || b < 1 || b > 1<<10 {
		return nil, errMixed
	}
	c, h, w := x.dims[1].n, x.dims[2].n, x.dims[3].n
	if n.Op == "DepthToSpace" {
		return made(x.dims[0], dim{c / (b * b), false}, dim{h * b, false}, dim{w * b, false}), nil
	}
	return made(x.dims[0], dim{c * b * b, false}, dim{h / b, false}, dim{w / b, false}), nil
}

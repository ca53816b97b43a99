// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"slices"
	"strings"
)

// op joins or compares.
type op string

const (
	opAnd op = "and"
	opOr  op = "or"
	opIs  op = "="
	opNot op = "!="
	opLow op = "<"
	opLE  op = "<="
	opHi  op = ">"
	opGE  op = ">="
	opPat op = "~"
	opIn  op = "in"
	opPre op = "prefix" // a bare word: of the name
)

// node is a part of a query: *group, *negation or *compare.
type node interface{ print() string }

// group is two or more parts joined by and or or; none of them is a group of the same.
type group struct {
	op    op
	parts []node
}

type negation struct{ part node }

// compare is one term.
type compare struct {
	field  string // canonical
	kind   Type
	op     op
	values []value // one but for opIn
	column int     // of the first value
}

func (g *group) print() string {
	parts := make([]string, len(g.parts))
	for i, p := range g.parts {
		parts[i] = p.print()
		if inner, ok := p.(*group); ok && inner.op == opOr { // an and inside an or needs none
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, " "+string(g.op)+" ")
}

func (n *negation) print() string {
	if _, ok := n.part.(*group); ok {
		return "not (" + n.part.print() + ")"
	}
	return "not " + n.part.print()
}

func (c *compare) print() string {
	texts := make([]string, len(c.values))
	for i, v := range c.values {
		texts[i] = quote(v.text)
	}
	switch c.op {
	case opPre:
		return texts[0]
	case opIn:
		return c.field + " in (" + strings.Join(texts, ", ") + ")"
	}
	if c.values[0].age {
		texts[0] += " ago"
	}
	return c.field + " " + string(c.op) + " " + texts[0]
}

// gather joins parts by o, taking up those that are joined by it already.
func gather(o op, parts []node) node {
	if len(parts) == 1 {
		return parts[0]
	}
	g := &group{op: o}
	for _, p := range parts {
		if inner, ok := p.(*group); ok && inner.op == o {
			g.parts = append(g.parts, inner.parts...)
		} else {
			g.parts = append(g.parts, p)
		}
	}
	return g
}

// parser reads tokens by recursive descent, one function a level of the grammar:
//
//	or    = and { "or" and }
//	and   = unary { "and" unary }
//	unary = "not" unary | "(" or ")" | term
//	term  = WORD | FIELD OP VALUE [ "ago" ] | FIELD [ "not" ] "in" "(" VALUE { "," VALUE } ")"
type parser struct {
	toks  []token
	terms int
}

func (p *parser) peek() token { return p.toks[0] }

func (p *parser) next() token {
	t := p.toks[0]
	if t.kind != end {
		p.toks = p.toks[1:]
	}
	return t
}

func (p *parser) or(depth int) (node, error) {
	return p.joined(opOr, func() (node, error) {
		return p.joined(opAnd, func() (node, error) { return p.unary(depth) })
	})
}

func (p *parser) joined(o op, part func() (node, error)) (node, error) {
	var parts []node
	for {
		n, err := part()
		if err != nil {
			return nil, err
		}
		parts = append(parts, n)
		if !p.peek().is(string(o)) {
			return gather(o, parts), nil
		}
		p.next()
	}
}

func (p *parser) unary(depth int) (node, error) {
	t := p.peek()
	if depth > maxDepth {
		return nil, fail(t, fmt.Sprintf("more than %d parentheses and nots inside each other", maxDepth), "write it flatter")
	}
	switch {
	case t.is("not"):
		p.next()
		n, err := p.unary(depth + 1)
		if err != nil {
			return nil, err
		}
		return &negation{n}, nil
	case t.kind == opening:
		p.next()
		n, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if c := p.next(); c.kind != closing {
			return nil, fail(c, fmt.Sprintf("the parenthesis of column %d is not closed here", t.column), "write and, or or ) before this")
		}
		return n, nil
	}
	return p.term()
}

func (p *parser) term() (node, error) {
	t := p.next()
	switch {
	case t.kind == end:
		return nil, fail(t, "the query ends where a term is wanted", "write one as state = failing, or the beginning of a board's name")
	case t.kind != word && t.kind != quoted:
		return nil, fail(t, "a term is wanted here", "write one as state = failing, or the beginning of a board's name")
	case t.kind == word && slices.ContainsFunc(keywords(), t.is):
		return nil, fail(t, fmt.Sprintf("%s stands where a term is wanted", strings.ToLower(t.text)), `a board's name that is such a word stands in quotes`)
	}
	o := p.peek()
	negated := o.is("not") && p.toks[1].is("in")
	if o.kind != operator && !o.is("in") && !negated {
		if p.terms++; p.terms > maxTerms {
			return nil, tooMany(t)
		}
		if name, value, ok := strings.Cut(t.text, ":"); ok && t.kind == word { // as other languages write it
			if f, err := field(token{kind: word, text: name, column: t.column}); err == nil {
				return nil, fail(t, fmt.Sprintf("%s and its value are joined by an operator, not by a colon", f.Name), strings.TrimSpace("write it as "+f.Name+" = "+value))
			}
		}
		if t.text == "" {
			return nil, fail(t, "nothing stands where the beginning of a name is wanted", "take it out")
		}
		return &compare{field: "name", kind: Text, op: opPre, values: []value{{text: t.text}}, column: t.column}, nil
	}
	f, err := field(t)
	if err != nil {
		return nil, err
	}
	if p.next(); negated {
		p.next()
	}
	if o.is("in") || negated {
		c, err := p.among(f)
		if err != nil || !negated {
			return c, err
		}
		return &negation{c}, nil
	}
	c := &compare{field: f.Name, kind: f.Type, op: op(o.text), column: p.peek().column}
	v, err := p.value(f, c.op)
	if err != nil {
		return nil, err
	}
	if err := f.suits(c.op, o); err != nil {
		return nil, err
	}
	if a := p.peek(); a.is("ago") {
		if !v.age {
			return nil, fail(a, "ago follows what is no duration of a time", "write it as seen > 2h ago")
		}
		p.next()
	}
	c.values = []value{v}
	return c, nil
}

// among reads the list of an in.
func (p *parser) among(f FieldDoc) (node, error) {
	if t := p.next(); t.kind != opening {
		return nil, fail(t, "in wants a list", "write it as site in (hall-4, hall-5)")
	}
	if f.Type == Time {
		return nil, fail(p.peek(), "a time is not in a list", "compare it with < and >")
	}
	c := &compare{field: f.Name, kind: f.Type, op: opIn, column: p.peek().column}
	for {
		v, err := p.value(f, opIn)
		if err != nil {
			return nil, err
		}
		c.values = append(c.values, v)
		switch t := p.next(); t.kind {
		case comma:
		case closing:
			return c, nil
		default:
			return nil, fail(t, "a list goes on with a comma or ends with )", "write it as site in (hall-4, hall-5)")
		}
	}
}

// value reads one value of a field.
func (p *parser) value(f FieldDoc, o op) (value, error) {
	t := p.next()
	if p.terms++; p.terms > maxTerms {
		return value{}, tooMany(t)
	}
	if t.kind != word && t.kind != quoted || t.kind == word && slices.ContainsFunc(keywords(), t.is) {
		return value{}, fail(t, "a value is wanted here", fmt.Sprintf("write it as %s", f.Example))
	}
	return f.read(t, o)
}

func tooMany(t token) *Error {
	return fail(t, fmt.Sprintf("more than %d values are compared with", maxTerms), "give the boards a label and ask for that")
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cond

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// op is what a node does.
type op uint8

const (
	opConst op = iota
	opInput
	opKnown
	opNot
	opNeg
	opAnd
	opOr
	opEqual
	opUnequal
	opLess
	opLessEqual
	opMore
	opMoreEqual
	opIn
	opNotIn
	opAdd
	opSub
	opMul
	opDiv
	opAbs
	opMin
	opMax
)

// binary is expr-lang's table: precedence and node of each operator between two.
func binary(sign string) (precedence int, o op) {
	switch sign {
	case "or", "||":
		return 10, opOr
	case "and", "&&":
		return 15, opAnd
	case "==":
		return 20, opEqual
	case "!=":
		return 20, opUnequal
	case "<":
		return 20, opLess
	case "<=":
		return 20, opLessEqual
	case ">":
		return 20, opMore
	case ">=":
		return 20, opMoreEqual
	case "in":
		return 20, opIn
	case "+":
		return 30, opAdd
	case "-":
		return 30, opSub
	case "*":
		return 60, opMul
	case "/":
		return 60, opDiv
	}
	return 0, 0
}

// Precedence of the signs before one operand.
const (
	precNot = 50
	precNeg = 90
)

type node struct {
	op   op
	kind Kind // of the result; Any where only a value tells
	at   int
	a, b int     // operands
	more []int   // of min and max
	list []Value // of in
	val  Value   // constant
	in   int     // index of the input
}

type parser struct {
	lex   lexer
	tok   token
	depth int
	nodes []node
	out   *Expr
	kind  func(name string) (Kind, error)
}

// Compile reads an expression. kind tells of each name whether there is such an input,
// and what its values are. The answer of the expression must be true or false.
func Compile(src string, kind func(name string) (Kind, error)) (*Expr, error) {
	switch {
	case len(src) > MaxSource:
		return nil, &Error{1, fmt.Sprintf("%d bytes, at most %d", len(src), MaxSource)}
	case !utf8.ValidString(src):
		return nil, &Error{1, "it is not UTF-8"}
	}
	p := &parser{lex: lexer{src: src}, out: &Expr{src: src}, kind: kind}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind == tokEnd {
		return nil, &Error{1, "it is empty"}
	}
	root, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokEnd {
		return nil, p.fail(p.tok.at, "%v is not expected here", p.tok)
	}
	if k := p.nodes[root].kind; k != Bool {
		return nil, p.fail(p.nodes[root].at, "the whole is %v, and must be true or false: compare it with something", k)
	}
	p.out.nodes, p.out.root = p.nodes, root
	return p.out, nil
}

func (p *parser) fail(at int, form string, args ...any) error { return p.lex.fail(at, form, args...) }

func (p *parser) advance() (err error) {
	p.tok, err = p.lex.next()
	return err
}

func (p *parser) is(sign string) bool { return p.tok.kind == tokSign && p.tok.text == sign }

func (p *parser) want(sign string) error {
	if !p.is(sign) {
		return p.fail(p.tok.at, "wants %s, not %v", sign, p.tok)
	}
	return p.advance()
}

func (p *parser) add(n node) (int, error) {
	if len(p.nodes) >= MaxNodes {
		return 0, p.fail(n.at, "more than %d operators, names and constants", MaxNodes)
	}
	p.nodes = append(p.nodes, n)
	return len(p.nodes) - 1, nil
}

// expression parses operators of at least this precedence.
func (p *parser) expression(least int) (int, error) {
	if p.depth++; p.depth > maxDepth {
		return 0, p.fail(p.tok.at, "more than %d parentheses and signs within each other", maxDepth)
	}
	defer func() { p.depth-- }()
	left, err := p.primary()
	for err == nil && p.tok.kind == tokSign {
		sign := p.tok
		negated := p.is("not")
		if negated {
			if err := p.advance(); err != nil {
				return 0, err
			}
			if !p.is("in") {
				return 0, p.fail(sign.at, "not stands between two values; did you mean not in?")
			}
		}
		prec, o := binary(p.tok.text)
		if prec == 0 || prec < least {
			if negated {
				return 0, p.fail(sign.at, "put parentheses around what stands before not in")
			}
			break
		}
		if err := p.advance(); err != nil {
			return 0, err
		}
		if o == opIn {
			left, err = p.in(left, sign.at, negated)
			continue
		}
		var right int
		if right, err = p.expression(prec + 1); err == nil {
			left, err = p.both(o, left, right, sign)
		}
	}
	return left, err
}

// both makes the node of an operator between two, and checks their kinds.
func (p *parser) both(o op, a, b int, sign token) (int, error) {
	n := node{op: o, kind: Bool, at: sign.at, a: a, b: b}
	want := Number
	switch o {
	case opAnd, opOr:
		want = Bool
	case opEqual, opUnequal:
		ka, kb := p.nodes[a].kind, p.nodes[b].kind
		if ka != kb && ka != Any && kb != Any {
			return 0, p.fail(sign.at, "%s compares %v with %v", sign.text, ka, kb)
		}
		return p.add(n)
	case opAdd, opSub, opMul, opDiv:
		n.kind = Number
	}
	for _, x := range []int{a, b} {
		if err := p.must(x, want, sign.text); err != nil {
			return 0, err
		}
	}
	return p.add(n)
}

// must checks that an operand may be of a kind.
func (p *parser) must(x int, want Kind, sign string) error {
	k := p.nodes[x].kind
	if k == want || k == Any {
		return nil
	}
	hint := ""
	if o := p.nodes[x].op; want == Number && k == Bool && (o == opNot || o >= opLess && o <= opMoreEqual) {
		hint = "; put parentheses around what belongs together"
	}
	return p.fail(p.nodes[x].at, "%s wants %v here, and this is %v%s", sign, want, k, hint)
}

func (p *parser) in(left, at int, negated bool) (int, error) {
	n := node{op: opIn, kind: Bool, at: at, a: left}
	if negated {
		n.op = opNotIn
	}
	open := p.tok.at
	if err := p.want("["); err != nil {
		return 0, p.fail(open, "in wants a list of constants: [1, 2]")
	}
	for !p.is("]") {
		if len(n.list) > 0 {
			if err := p.want(","); err != nil {
				return 0, err
			}
		}
		v, err := p.constant()
		if err != nil {
			return 0, err
		}
		if k := p.nodes[left].kind; k != Any && k != v.Kind {
			return 0, p.fail(at, "in looks for %v in a list with %v", k, v.Kind)
		}
		if n.list = append(n.list, v); len(n.list) > maxList {
			return 0, p.fail(open, "a list of more than %d", maxList)
		}
	}
	if len(n.list) == 0 {
		return 0, p.fail(open, "the list is empty")
	}
	if err := p.advance(); err != nil {
		return 0, err
	}
	return p.add(n)
}

// constant reads a number, a text, true or false.
func (p *parser) constant() (Value, error) {
	sign := 1.0
	if p.is("-") {
		sign = -1
		if err := p.advance(); err != nil {
			return Value{}, err
		}
	}
	t := p.tok
	var v Value
	switch {
	case t.kind == tokNumber:
		v = Num(sign * t.num)
	case sign < 0:
		return v, p.fail(t.at, "- wants a number, not %v", t)
	case t.kind == tokText:
		v = Txt(t.text)
	case t.kind == tokName && (t.text == "true" || t.text == "false"):
		v = Is(t.text == "true")
	default:
		return v, p.fail(t.at, "wants a number, a text, true or false, not %v", t)
	}
	return v, p.advance()
}

func (p *parser) primary() (int, error) {
	t := p.tok
	switch {
	case p.is("not") || p.is("!"):
		return p.before(opNot, precNot, Bool)
	case p.is("-"):
		return p.before(opNeg, precNeg, Number)
	case p.is("("):
		if err := p.advance(); err != nil {
			return 0, err
		}
		x, err := p.expression(0)
		if err != nil {
			return 0, err
		}
		return x, p.want(")")
	case t.kind == tokName && t.text != "true" && t.text != "false":
		return p.name()
	case t.kind == tokEnd:
		return 0, p.fail(t.at, "something is missing at the end")
	}
	v, err := p.constant()
	if err != nil {
		return 0, err
	}
	return p.add(node{op: opConst, kind: v.Kind, at: t.at, val: v})
}

func (p *parser) before(o op, prec int, kind Kind) (int, error) {
	t := p.tok
	if err := p.advance(); err != nil {
		return 0, err
	}
	x, err := p.expression(prec)
	if err != nil {
		return 0, err
	}
	if err := p.must(x, kind, t.text); err != nil {
		return 0, err
	}
	return p.add(node{op: o, kind: kind, at: t.at, a: x})
}

// name parses an input or a call.
func (p *parser) name() (int, error) {
	first := p.tok
	if err := p.advance(); err != nil {
		return 0, err
	}
	if p.is("(") {
		return p.call(first)
	}
	parts := []string{first.text}
	for p.is(".") || p.is("[") {
		dot := p.is(".")
		if err := p.advance(); err != nil {
			return 0, err
		}
		if dot && p.tok.kind != tokName || !dot && p.tok.kind != tokText {
			return 0, p.fail(p.tok.at, `wants a part of a name, not %v; one that is no identifier is written ["..."]`, p.tok)
		}
		parts = append(parts, p.tok.text)
		if err := p.advance(); err != nil {
			return 0, err
		}
		if !dot {
			if err := p.want("]"); err != nil {
				return 0, err
			}
		}
	}
	name := strings.Join(parts, ".")
	kind, err := p.kind(name)
	if err != nil {
		return 0, p.fail(first.at, "%v", err)
	}
	return p.input(Input{Name: name}, kind, first.at)
}

// input makes the node of an input, which is read once however often it is named.
func (p *parser) input(in Input, kind Kind, at int) (int, error) {
	i := slices.Index(p.out.Inputs, in)
	if i < 0 {
		i = len(p.out.Inputs)
		p.out.Inputs = append(p.out.Inputs, in)
	}
	return p.add(node{op: opInput, kind: kind, at: at, in: i})
}

func (p *parser) call(f token) (int, error) {
	if err := p.advance(); err != nil {
		return 0, err
	}
	if f.text == "count" {
		return p.count(f)
	}
	var args []int
	for !p.is(")") {
		if len(args) > 0 {
			if err := p.want(","); err != nil {
				return 0, err
			}
		}
		x, err := p.expression(0)
		if err != nil {
			return 0, err
		}
		args = append(args, x)
	}
	if err := p.advance(); err != nil {
		return 0, err
	}
	n := node{kind: Number, at: f.at, more: args}
	switch {
	case f.text == "known" && len(args) == 1 && p.nodes[args[0]].op == opInput:
		return p.add(node{op: opKnown, kind: Bool, at: f.at, in: p.nodes[args[0]].in})
	case f.text == "known":
		return 0, p.fail(f.at, "known wants the name of one input")
	case f.text == "abs" && len(args) == 1:
		n.op = opAbs
	case (f.text == "min" || f.text == "max") && len(args) >= 1:
		if n.op = opMin; f.text == "max" {
			n.op = opMax
		}
	default:
		return 0, p.fail(f.at, "there is no function %s of %d values; there are count(camera, label, seconds), known(input), abs(x), min(x, y), max(x, y)", f.text, len(args))
	}
	for _, x := range args {
		if err := p.must(x, Number, f.text); err != nil {
			return 0, err
		}
	}
	return p.add(n)
}

// count parses count("camera", "label", seconds): all three are constants, so that what
// has to be counted is known beforehand.
func (p *parser) count(f token) (int, error) {
	var args [3]Value
	for i := range args {
		if i > 0 {
			if err := p.want(","); err != nil {
				return 0, err
			}
		}
		var err error
		if args[i], err = p.constant(); err != nil {
			return 0, err
		}
	}
	if err := p.want(")"); err != nil {
		return 0, err
	}
	if args[0].Kind != Text || args[1].Kind != Text || args[2].Kind != Number || args[0].Text == "" || args[1].Text == "" {
		return 0, p.fail(f.at, `count wants a camera, a label and seconds: count("dock", "person", 30)`)
	}
	if s := args[2].Num; s < 1 || s > MaxWindow.Seconds() {
		return 0, p.fail(f.at, "count looks back %v s, wants 1 to %.0f", s, MaxWindow.Seconds())
	}
	in := Input{Camera: args[0].Text, Label: args[1].Text, Window: time.Duration(args[2].Num * float64(time.Second))}
	return p.input(in, Number, f.at)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cond

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Kind says what a value is.
type Kind uint8

// The kinds.
const (
	Unknown Kind = iota
	Number
	Bool
	Text
	Any // of an input whose kind only its values tell; no value has it
)

// String is the kind in an error.
func (k Kind) String() string {
	return [...]string{"unknown", "a number", "true or false", "a text", "any value"}[k]
}

// Value is one value. The zero Value is not known.
type Value struct {
	Kind Kind
	Num  float64 // Number; 1 or 0 for Bool
	Text string
}

// Num, Is and Txt make values. A number that is not finite is not known.
func Num(v float64) Value {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return Value{}
	}
	return Value{Kind: Number, Num: v}
}

// Is makes true or false.
func Is(b bool) Value {
	if b {
		return Value{Kind: Bool, Num: 1}
	}
	return Value{Kind: Bool}
}

// Txt makes a text.
func Txt(s string) Value { return Value{Kind: Text, Text: s} }

// ValueOf makes a value of a Go number, bool or string; of anything else the one that is
// not known.
func ValueOf(v any) Value {
	switch v := v.(type) {
	case float64:
		return Num(v)
	case uint64:
		return Num(float64(v))
	case int64:
		return Num(float64(v))
	case bool:
		return Is(v)
	case string:
		return Txt(v)
	}
	return Value{}
}

// Known tells whether there is a value.
func (v Value) Known() bool { return v.Kind != Unknown }

// True tells whether the value is true; false where it is not known.
func (v Value) True() bool { return v.Kind == Bool && v.Num != 0 }

// String is the value for people.
func (v Value) String() string {
	switch v.Kind {
	case Number:
		return fmt.Sprint(v.Num)
	case Bool:
		return fmt.Sprint(v.Num != 0)
	case Text:
		return fmt.Sprintf("%q", v.Text)
	}
	return "unknown"
}

// MaxWindow bounds how far count looks back.
const MaxWindow = time.Hour

// Input is what an expression reads: a name, or a count of detections (Window > 0).
type Input struct {
	Name          string
	Camera, Label string // "*" is any
	Window        time.Duration
}

// String is the input as it is written.
func (in Input) String() string {
	if in.Window > 0 {
		return fmt.Sprintf("count(%q, %q, %v)", in.Camera, in.Label, in.Window.Seconds())
	}
	return in.Name
}

// Expr is a compiled expression. It does not change, and is safe for concurrent use.
type Expr struct {
	src    string
	Inputs []Input // each once, in the order of their first mention
	nodes  []node
	root   int
}

// String is the expression as it was written.
func (e *Expr) String() string { return e.src }

// Errors of an evaluation. What they concern is unknown.
var (
	ErrNotFinite = errors.New("a calculation has no finite result (a division by zero?)")
	ErrKind      = errors.New("an input is of another kind than what it is compared or calculated with")
)

// Eval gives true, false or unknown; in holds the values of Inputs. The error says why
// an unknown answer is no matter of unknown inputs.
func (e *Expr) Eval(in []Value) (Value, error) {
	r := run{e: e, in: in}
	v := r.eval(e.root)
	if v.Kind != Bool { // also where a value of any kind was none
		return Value{}, r.err
	}
	return v, nil
}

type run struct {
	e   *Expr
	in  []Value
	err error
}

func (r *run) fail(err error) Value {
	if r.err == nil {
		r.err = err
	}
	return Value{}
}

// eval takes one step for each node below x at most.
func (r *run) eval(x int) Value {
	n := &r.e.nodes[x]
	switch n.op {
	case opConst:
		return n.val
	case opInput:
		return r.in[n.in]
	case opKnown:
		return Is(r.in[n.in].Known())
	case opNot:
		if v := r.want(n.a, Bool); v.Known() {
			return Is(!v.True())
		}
		return Value{}
	case opAnd, opOr:
		return r.logic(n)
	case opEqual, opUnequal:
		a, b := r.eval(n.a), r.eval(n.b)
		switch {
		case !a.Known() || !b.Known():
			return Value{}
		case a.Kind != b.Kind:
			return r.fail(ErrKind)
		}
		return Is((a == b) == (n.op == opEqual))
	case opIn, opNotIn:
		return r.member(n)
	case opMin, opMax:
		return r.extreme(n)
	}
	return r.number(n)
}

// want evaluates an operand that must be of a kind.
func (r *run) want(x int, k Kind) Value {
	v := r.eval(x)
	if v.Known() && v.Kind != k {
		return r.fail(ErrKind)
	}
	return v
}

// logic is Kleene's: what is not known matters only where it decides.
func (r *run) logic(n *node) Value {
	decides := n.op == opOr
	a := r.want(n.a, Bool)
	if a.Known() && a.True() == decides {
		return a
	}
	b := r.want(n.b, Bool)
	if b.Known() && b.True() == decides {
		return b
	}
	if !a.Known() || !b.Known() {
		return Value{}
	}
	return b
}

func (r *run) member(n *node) Value {
	a := r.eval(n.a)
	if !a.Known() {
		return a
	}
	for _, v := range n.list {
		if v == a {
			return Is(n.op == opIn)
		}
	}
	return Is(n.op == opNotIn)
}

func (r *run) extreme(n *node) Value {
	var best Value
	for i, x := range n.more {
		v := r.want(x, Number)
		if !v.Known() {
			return Value{}
		}
		if i == 0 || n.op == opMin && v.Num < best.Num || n.op == opMax && v.Num > best.Num {
			best = v
		}
	}
	return best
}

// number does what takes numbers.
func (r *run) number(n *node) Value {
	if n.op == opAbs || n.op == opNeg {
		x := n.a
		if n.op == opAbs {
			x = n.more[0]
		}
		v := r.want(x, Number)
		if v.Known() && (n.op == opNeg || v.Num < 0) {
			v.Num = -v.Num
		}
		return v
	}
	a, b := r.want(n.a, Number), r.want(n.b, Number)
	if !a.Known() || !b.Known() {
		return Value{}
	}
	var v Value
	switch n.op {
	case opLess:
		return Is(a.Num < b.Num)
	case opLessEqual:
		return Is(a.Num <= b.Num)
	case opMore:
		return Is(a.Num > b.Num)
	case opMoreEqual:
		return Is(a.Num >= b.Num)
	case opAdd:
		v = Num(a.Num + b.Num)
	case opSub:
		v = Num(a.Num - b.Num)
	case opMul:
		v = Num(a.Num * b.Num)
	case opDiv:
		v = Num(a.Num / b.Num)
	}
	if !v.Known() {
		return r.fail(ErrNotFinite)
	}
	return v
}

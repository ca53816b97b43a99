// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"cmp"
	"strings"
	"time"
)

// pred is a compiled query or a part of it.
type pred func(s Subject, now time.Time) bool

func compile(n node) pred {
	switch n := n.(type) {
	case *negation:
		p := compile(n.part)
		return func(s Subject, now time.Time) bool { return !p(s, now) }
	case *group:
		ps := make([]pred, len(n.parts))
		for i := range n.parts {
			ps[i] = compile(n.parts[i])
		}
		stop := n.op == opOr
		return func(s Subject, now time.Time) bool {
			for _, p := range ps {
				if p(s, now) == stop {
					return stop
				}
			}
			return !stop
		}
	case *compare:
		return n.compile()
	}
	return nil // not reached: these are all nodes
}

// compile makes the predicate of a term. != is not =.
func (c *compare) compile() pred {
	field, o := c.field, c.op
	negate := o == opNot
	if negate {
		o = opIs
	}
	if c.values[0].nothing && o == opIs {
		return func(s Subject, _ time.Time) bool {
			v, ok := s.Field(field)
			return (!ok || c.empty(v)) != negate
		}
	}
	test := c.test(o)
	return func(s Subject, now time.Time) bool {
		v, ok := s.Field(field)
		return (ok && test(v, now)) != negate
	}
}

func (c *compare) empty(v Value) bool {
	switch c.kind {
	case Text, Word, Version:
		return v.Text == ""
	case List:
		return len(v.List) == 0
	case Time:
		return v.Time.IsZero()
	}
	return false
}

func (c *compare) test(o op) func(Value, time.Time) bool {
	first := c.values[0]
	switch c.kind {
	case Number, Duration:
		numbers := make([]float64, len(c.values))
		for i, v := range c.values {
			numbers[i] = v.number
		}
		return func(v Value, _ time.Time) bool {
			for _, x := range numbers {
				if holds(o, cmp.Compare(v.Number, x)) {
					return true
				}
			}
			return false
		}
	case Time:
		return func(v Value, now time.Time) bool {
			switch {
			case v.Time.IsZero():
				return false
			case first.age:
				return holds(o, cmp.Compare(now.Sub(v.Time), first.ago))
			}
			return holds(o, v.Time.Compare(first.at))
		}
	case Version:
		if o != opPat {
			return func(v Value, _ time.Time) bool {
				if v.Text == "" {
					return false
				}
				for i := range c.values {
					if holds(o, compareVersion(v.Text, c.values[i].text)) {
						return true
					}
				}
				return false
			}
		}
	}
	one := c.text(o)
	if c.kind != List {
		return func(v Value, _ time.Time) bool { return one(v.Text) }
	}
	return func(v Value, _ time.Time) bool {
		for _, s := range v.List {
			if one(s) {
				return true
			}
		}
		return false
	}
}

// text compares one text.
func (c *compare) text(o op) func(string) bool {
	first := c.values[0].text
	switch o {
	case opPre:
		return func(s string) bool { return strings.HasPrefix(s, first) }
	case opPat:
		p := newPattern(first)
		return p.match
	case opIn:
		set := make(map[string]bool, len(c.values))
		for _, v := range c.values {
			set[v.text] = true
		}
		return func(s string) bool { return set[s] }
	}
	return func(s string) bool { return s == first }
}

// holds tells whether a comparison with this outcome is what the operator asks for.
func holds(o op, d int) bool {
	switch o {
	case opLow:
		return d < 0
	case opLE:
		return d <= 0
	case opHi:
		return d > 0
	case opGE:
		return d >= 0
	}
	return d == 0 // opIs and opIn
}

// pattern is a text in which * stands for anything; case does not matter. It is matched
// greedily from the left, in time linear in the text for each piece.
type pattern []string // pieces between the stars, lower case

func newPattern(s string) pattern {
	s = strings.ToLower(s)
	if !strings.Contains(s, "*") {
		return pattern{"", s, ""}
	}
	return strings.Split(s, "*")
}

func (p pattern) match(s string) bool {
	s = strings.ToLower(s)
	last := len(p) - 1
	s, ok := strings.CutPrefix(s, p[0])
	if !ok {
		return false
	}
	for _, piece := range p[1:last] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return strings.HasSuffix(s, p[last])
}

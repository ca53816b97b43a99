// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package query is the one query language of the fleet: the page's URL, the API, the
// command line, rollout targets, limits of tokens and alert rules all take the same
// string.
//
//	site in (hall-4, hall-5) and not state = unreachable and temp.tj > 85
//	release < 1.8 and seen > 2h ago and label.line = 4
//	dock-
//
// Terms are joined by and, or, not and parentheses; not binds strongest, then and, then
// or. A term is a field, an operator and a value, or a bare word: a name that begins so.
// Operators: = != < <= > >= in (a, b), and ~ for a pattern, in which * stands for
// anything; without a * it may be anywhere in the text, and case does not matter.
//
//   - Values with blanks or signs are quoted: site = "hall 4". "" is nothing: site = ""
//     matches boards without a site, temp.tj != "" those that measure it.
//   - Versions compare as versions (as Debian orders them): 1.8 < 1.10, 1.8~rc1 < 1.8.
//   - Of a time, a duration means its age: seen > 2h ago is seen more than two hours ago;
//     ago may be left out. A day (2026-11-26) or an RFC 3339 time means that moment, and
//     later is greater.
//   - A field of several values (camera) matches where one of them does; != is exactly
//     not =, so that it matches where none does. What is not there matches no other
//     comparison: not temp.tj > 85 matches boards that do not measure it, too.
//
// A query is bounded in length, depth and terms, and compiled once to a predicate; it
// is never given to a database.
package query

import (
	"fmt"
	"time"
)

// Bounds on a query: what a person or a rollout target of listed boards needs, with
// room to spare, and what 100,000 boards can be matched with.
const (
	maxLength = 4096 // bytes
	maxDepth  = 32   // of not and parentheses
	maxTerms  = 256  // values compared with
)

// Query is a parsed query. The zero Query and nil match everything.
type Query struct {
	root node // nil: everything
	pred pred
}

// Error says where a query is wrong and what to do.
type Error struct {
	Column int    // of the first wrong character, the first is 1
	What   string // "no field is called sate"
	Do     string // "did you mean state?"; "" where nothing better is known
}

// Error implements [error].
func (e *Error) Error() string {
	s := fmt.Sprintf("query, column %d: %s", e.Column, e.What)
	if e.Do != "" {
		s += "; " + e.Do
	}
	return s
}

// Subject is what a query is asked about.
type Subject interface {
	// Field gives the value of a field in its canonical name (see [Fields]); false
	// where it is not there. Its type has to be that of the field's [FieldDoc].
	Field(name string) (Value, bool)
}

// Value is the value of a field: Text, List, Number or Time by the field's type.
type Value struct {
	Text   string
	List   []string
	Number float64
	Time   time.Time
}

// Parse reads a query; "" is everything. The error is an [*Error].
func Parse(s string) (*Query, error) {
	toks, bad := lex(s)
	if bad != nil {
		return nil, bad
	}
	p := parser{toks: toks}
	if p.peek().kind == end {
		return &Query{}, nil
	}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		if t.kind == closing {
			return nil, fail(t, "a parenthesis is closed that was not opened", "take it out")
		}
		return nil, fail(t, "a term follows another one", "write and or or between them")
	}
	return &Query{root: root, pred: compile(root)}, nil
}

// Match tells whether s is meant. now is what ages are counted from.
func (q *Query) Match(s Subject, now time.Time) bool {
	return q == nil || q.pred == nil || q.pred(s, now)
}

// All tells whether the query matches everything because it says nothing.
func (q *Query) All() bool { return q == nil || q.root == nil }

// String gives the query in its canonical form, which parses back to the same query.
func (q *Query) String() string {
	if q.All() {
		return ""
	}
	return q.root.print()
}

// And gives the query that matches what both do: a token's limit and what its holder
// asks for.
func And(a, b *Query) *Query {
	switch {
	case a.All():
		return b
	case b.All():
		return a
	}
	root := gather(opAnd, []node{a.root, b.root})
	return &Query{root: root, pred: compile(root)}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cond

import (
	"fmt"
	"strconv"
	"strings"
)

// Bounds of an expression: ten times what a person writes into one rule.
const (
	MaxSource = 1024 // bytes
	MaxNodes  = 200  // operators, names and constants
	maxDepth  = 32   // of parentheses and signs within each other
	maxList   = 32   // constants in a list
	// maxNumber bounds constants: beyond 2^53 neighbours are no longer told apart.
	maxNumber = 1 << 53
)

// Error is what is wrong with an expression, and where.
type Error struct {
	Column int // from 1, in bytes
	Text   string
}

func (e *Error) Error() string { return fmt.Sprintf("at column %d: %s", e.Column, e.Text) }

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokNumber
	tokText
	tokSign // operators and brackets; and, or, not, in too
)

type token struct {
	kind tokenKind
	at   int // byte in the source
	text string
	num  float64
}

// String is the token as an error names it.
func (t token) String() string {
	switch t.kind {
	case tokEnd:
		return "the end"
	case tokText:
		return strconv.Quote(t.text)
	}
	return t.text
}

type lexer struct {
	src string
	at  int
}

func (l *lexer) fail(at int, form string, args ...any) error {
	return &Error{at + 1, fmt.Sprintf(form, args...)}
}

// next gives the next token.
func (l *lexer) next() (token, error) {
	for l.at < len(l.src) && strings.IndexByte(" \t\r\n", l.src[l.at]) >= 0 {
		l.at++
	}
	start := l.at
	if start == len(l.src) {
		return token{at: start}, nil
	}
	c := l.src[start]
	switch {
	case letter(c):
		return l.name()
	case digit(c):
		return l.number()
	case c == '"' || c == '\'':
		return l.quoted(c)
	}
	for _, s := range []string{"&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "(", ")", "[", "]", ",", "."} {
		if strings.HasPrefix(l.src[start:], s) {
			if l.at += len(s); l.at < len(l.src) && (s == "*" || s == "/") && (l.src[l.at] == '*' || l.src[l.at] == '/') {
				return token{}, l.fail(start, "%s is not in the language of rules", l.src[start:l.at+1])
			}
			return token{kind: tokSign, at: start, text: s}, nil
		}
	}
	if c == '=' {
		return token{}, l.fail(start, "a single =; write == to compare")
	}
	return token{}, l.fail(start, "%q is not in the language of rules", firstRune(l.src[start:]))
}

func (l *lexer) name() (token, error) {
	start := l.at
	for l.at < len(l.src) && (letter(l.src[l.at]) || digit(l.src[l.at])) {
		l.at++
	}
	t := token{kind: tokName, at: start, text: l.src[start:l.at]}
	switch t.text {
	case "and", "or", "not", "in":
		t.kind = tokSign
	case "let", "if", "else", "matches", "contains", "startsWith", "endsWith", "nil":
		return t, l.fail(start, "%s is not in the language of rules", t.text)
	}
	return t, nil
}

func (l *lexer) number() (token, error) {
	start := l.at
	run := func() {
		for l.at < len(l.src) && digit(l.src[l.at]) {
			l.at++
		}
	}
	run()
	if l.src[start] == '0' && l.at-start > 1 {
		return token{}, l.fail(start, "the number %[1]s begins with 0; in a name it stands in brackets: name[\"%[1]s\"]", l.src[start:l.at])
	}
	if l.at+1 < len(l.src) && l.src[l.at] == '.' && digit(l.src[l.at+1]) {
		l.at++
		run()
	}
	if l.at < len(l.src) && (l.src[l.at] == 'e' || l.src[l.at] == 'E') {
		if l.at++; l.at < len(l.src) && (l.src[l.at] == '+' || l.src[l.at] == '-') {
			l.at++
		}
		run()
	}
	if l.at < len(l.src) && (letter(l.src[l.at]) || l.src[l.at] == '.') {
		return token{}, l.fail(start, "%s is no number; a unit stands in the name of its input, not behind the number", l.src[start:l.at+1])
	}
	text := l.src[start:l.at]
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v >= maxNumber {
		return token{}, l.fail(start, "%s is no number below 2^53", text)
	}
	return token{kind: tokNumber, at: start, text: text, num: v}, nil
}

func (l *lexer) quoted(quote byte) (token, error) {
	start := l.at
	end := strings.IndexByte(l.src[start+1:], quote)
	if end < 0 {
		return token{}, l.fail(start, "the text that begins here has no end")
	}
	text := l.src[start+1 : start+1+end]
	if strings.ContainsAny(text, "\\\r\n") {
		return token{}, l.fail(start, "a text may not have a backslash or a line end")
	}
	l.at = start + end + 2
	return token{kind: tokText, at: start, text: text}, nil
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

func firstRune(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}

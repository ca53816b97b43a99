// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind of a token.
type kind int

const (
	end kind = iota
	word
	quoted
	operator // = != < <= > >= ~
	opening  // (
	closing  // )
	comma
)

// token is one piece of a query.
type token struct {
	kind   kind
	text   string
	column int
}

// is tells whether the token is this keyword; case does not matter.
func (t token) is(keyword string) bool { return t.kind == word && strings.EqualFold(t.text, keyword) }

func fail(t token, what, do string) *Error { return &Error{Column: t.column, What: what, Do: do} }

// plain tells whether a character may stand in a word without quotes.
func plain(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./:@*+%", r)
}

// lex splits a query into tokens, the last one of kind end.
func lex(s string) ([]token, *Error) {
	if len(s) > maxLength {
		return nil, &Error{Column: maxLength + 1, What: fmt.Sprintf("the query is %d bytes long, at most %d are taken", len(s), maxLength), Do: "give the boards a label and ask for that"}
	}
	var out []token
	for i, col := 0, 1; ; {
		r, n := utf8.DecodeRuneInString(s[i:])
		t := token{column: col}
		switch {
		case n == 0:
			return append(out, t), nil
		case r == utf8.RuneError && n == 1:
			return nil, fail(t, "this is no UTF-8", "")
		case unicode.IsSpace(r):
			i, col = i+n, col+1
			continue
		case r == '"':
			text, size, err := unquote(s[i:], t)
			if err != nil {
				return nil, err
			}
			t.kind, t.text, n = quoted, text, size
		case plain(r):
			n = strings.IndexFunc(s[i:], func(r rune) bool { return !plain(r) })
			if n < 0 {
				n = len(s) - i
			}
			t.kind, t.text = word, s[i:i+n]
		case strings.ContainsRune("=!<>~", r):
			if t.kind = operator; n < len(s)-i && s[i+1] == '=' && r != '=' && r != '~' {
				n = 2
			}
			if t.text = s[i : i+n]; t.text == "!" {
				return nil, fail(t, "! alone means nothing", "write not before a term, or != between field and value")
			}
		case r == '(':
			t.kind = opening
		case r == ')':
			t.kind = closing
		case r == ',':
			t.kind = comma
		default:
			return nil, fail(t, fmt.Sprintf("%q has no meaning here", r), `a value with signs or blanks in it stands in quotes: "..."`)
		}
		out = append(out, t)
		col += utf8.RuneCountInString(s[i : i+n])
		i += n
	}
}

// unquote reads a quoted value at the beginning of s and how many bytes it takes. A
// backslash takes the next character as it is.
func unquote(s string, at token) (string, int, *Error) {
	var b strings.Builder
	for i := 1; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return "", 0, fail(at, "the quoted value is no UTF-8", "")
		case r == '"':
			return b.String(), i + 1, nil
		case r == '\\' && i+1 < len(s):
			i++
			if r, n = utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && n == 1 {
				return "", 0, fail(at, "the quoted value is no UTF-8", "")
			}
		}
		if unicode.IsControl(r) {
			return "", 0, fail(at, "the quoted value holds a control character", "take it out")
		}
		b.WriteString(s[i : i+n])
		i += n
	}
	return "", 0, fail(at, "the quote is not closed", `end the value with "`)
}

// quote writes a value so that lex gives it back.
func quote(s string) string {
	bare := s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0
	for _, k := range keywords() {
		bare = bare && !strings.EqualFold(s, k)
	}
	if bare {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// keywords are the words that are none without quotes.
func keywords() []string { return []string{"and", "or", "not", "in", "ago"} }

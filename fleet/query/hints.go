// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"slices"
	"strings"
)

// maxKnown bounds the known values that a misspelt one is compared with.
const maxKnown = 5000

// Hints says which values of the query are none of the known ones, which is no error
// but likely one: site = hall4 where there is only hall-4. known gives the values that
// a field has now; nothing where they are not known.
func (q *Query) Hints(known func(field string) []string) []Error {
	var out []Error
	if q.All() {
		return nil
	}
	var walk func(n node)
	walk = func(n node) {
		switch n := n.(type) {
		case *negation:
			walk(n.part)
		case *group:
			for _, p := range n.parts {
				walk(p)
			}
		case *compare:
			if n.op != opIs && n.op != opNot && n.op != opIn {
				return
			}
			have := known(n.field)
			for _, v := range n.values {
				if len(have) > 0 && !v.nothing && n.kind != Number && !slices.Contains(have, v.text) {
					out = append(out, Error{Column: n.column, What: fmt.Sprintf("no board has %s = %.64s", n.field, v.text), Do: didYouMean(v.text, have, "")})
				}
			}
		}
	}
	walk(q.root)
	return out
}

// Complete gives what may stand at the end of a query that is being typed: the text
// that goes on from its last word, at most limit of them. known is as in Hints.
func Complete(s string, known func(field string) []string, limit int) []string {
	toks, err := lex(s)
	if err != nil || limit <= 0 {
		return nil
	}
	toks = toks[:len(toks)-1]
	stem := ""
	if n := len(toks); n > 0 && toks[n-1].kind == word && !strings.HasSuffix(s, " ") {
		stem, toks = toks[n-1].text, toks[:n-1]
	}
	var from []string
	write := quote
	switch name, ok := wantsValue(toks); {
	case ok:
		f, err := field(token{kind: word, text: name})
		if err != nil {
			return nil
		}
		if from = f.Words; from == nil {
			from = known(f.Name)
		}
	case len(toks) == 0 || toks[len(toks)-1].kind == opening || slices.ContainsFunc([]string{"and", "or", "not"}, toks[len(toks)-1].is):
		for _, f := range Fields() {
			from = append(from, f.Name)
		}
		from = append(from, known("name")...)
	default:
		from, write = []string{"and", "or", "in", "not in"}, func(s string) string { return s }
	}
	var out []string
	for _, x := range from {
		if strings.HasPrefix(x, stem) && len(out) < limit {
			out = append(out, write(x))
		}
	}
	return out
}

// wantsValue tells the field whose value comes next.
func wantsValue(toks []token) (string, bool) {
	n := len(toks)
	if n >= 2 && toks[n-1].kind == operator {
		return toks[n-2].text, true
	}
	for i := n - 1; i >= 2; i-- { // inside FIELD in ( a, b,
		switch {
		case toks[i].kind == opening && toks[i-1].is("in"):
			name := toks[i-2]
			if name.is("not") && i >= 3 {
				name = toks[i-3]
			}
			return name.text, i == n-1 || toks[n-1].kind == comma
		case toks[i].kind != word && toks[i].kind != quoted && toks[i].kind != comma:
			return "", false
		}
	}
	return "", false
}

// didYouMean suggests the known word that is nearest, if one is near.
func didYouMean(s string, known []string, otherwise string) string {
	best, least := "", 1+max(1, len(s)/3)
	for _, k := range known[:min(len(known), maxKnown)] {
		if d := distance(strings.ToLower(s), strings.ToLower(k), least); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return otherwise
	}
	return "did you mean " + strings.TrimSuffix(best, ".") + "?"
}

// distance counts the letters to put in, take out or change (Levenshtein), or gives
// most where it is not less.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most || len(a) > 64 {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return min(row[len(b)], most)
}

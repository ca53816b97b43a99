// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// thing is a subject made by hand.
type thing map[string]Value

func (x thing) Field(name string) (Value, bool) { v, ok := x[name]; return v, ok }

func now() time.Time { return time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) }

func dock() thing {
	return thing{
		"name": {Text: "dock-0017"}, "site": {Text: "hall 4"}, "state": {Text: "failing"}, "release": {Text: "1.8.2"},
		"seen": {Time: now().Add(-3 * time.Hour)}, "camera": {List: []string{"cam0", "Yard"}}, "temp.tj": {Number: 86.5},
		"label.line": {Text: "4"}, "certificate-left": {Number: 10 * 86400}, "cause": {Text: "worker: crashed 3 times"},
		"waiting": {Number: 0}, "hwmon.ina.power_watts": {Number: -3},
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for q, want := range map[string]bool{
		"": true, "dock-": true, "ock": false, `"dock-"`: true, `name = dock-0017`: true, `name=dock-0017`: true,
		`site = "hall 4"`: true, `site in (a, "hall 4",b)`: true, `site not in (a,b)`: true, `not site in (a)`: true, `site != "hall 4"`: false,
		"state = failing": true, "state != failing": false, "not state = unreachable": true, "state in (failing, degraded)": true,
		"release < 1.8": false, "release < 1.10": true, "release >= 1.8.2": true, "release = v1.8.2": true, `release > "1.8.2~rc1"`: true, "release ~ 1.8.*": true,
		"seen > 2h ago": true, "seen > 2h": true, "seen > 4h ago": false, "seen < 1d ago": true, "seen < 2026-11-26": false, "seen > 2026-11-26T08:59:00Z": true,
		"camera = cam0": true, "camera = yard": false, "camera ~ yard": true, "camera != cam0": false, "camera != cam9": true, "camera in (cam1, cam0)": true,
		"temp.tj > 85": true, "temp.tj<=86.5": true, "temp.gpu > 85": false, "not temp.gpu > 85": true, "temp.gpu <= 85": false, "temp.tj in (1, 86.5)": true,
		`temp.gpu = ""`: true, `temp.tj != ""`: true, `site = ""`: false, `label.row = ""`: true, `camera = ""`: false,
		"label.line = 4": true, "label.line = 5": false, "certificate-left < 14d": true, "certificate-left < 1w": false,
		"cause ~ CRASHED": true, "cause ~ worker*times": true, "cause ~ worker*time": false, "cause ~ crashed*": false, "cause ~ *crashed*": true,
		"waiting = 0": true, "waiting > -1": true, "hwmon.ina.power_watts < 0": true,
		"dock and (state = failing or state = degraded) and not waiting > 0": true,
		"state = degraded or dock and waiting > 0":                           false,
		"state = failing or dock and waiting > 0":                            true,
		"NOT state = unreachable AND dock":                                   true,
	} {
		parsed, err := Parse(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if got := parsed.Match(dock(), now()); got != want {
			t.Errorf("%s: %v", q, got)
		}
		again, err := Parse(parsed.String())
		if err != nil || again.String() != parsed.String() || again.Match(dock(), now()) != want {
			t.Errorf("%s prints as %s, which is %v, %v", q, parsed, again, err)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for q, want := range map[string]string{
		"state:failing":                  "column 1: state and its value are joined by an operator, not by a colon; write it as state = failing",
		"stat = failing":                 "column 1: no field is called stat; did you mean state?",
		"state = failng":                 "column 9: state is never failng; did you mean failing?",
		"state = x":                      "column 9: state is never x; it is one of healthy",
		"site = a ste = b":               "column 10: a term follows another one; write and or or",
		"site = a and":                   "column 13: the query ends where a term is wanted",
		"site =":                         "column 7: a value is wanted here",
		"(site = a":                      "column 10: the parenthesis of column 1 is not closed",
		"site = a)":                      "column 9: a parenthesis is closed",
		"site in a":                      "column 9: in wants a list",
		"site in (a b)":                  "column 12: a list goes on with a comma",
		"site in ()":                     "column 10: a value is wanted",
		"site < a":                       "column 6: site is no number",
		"temp.tj ~ 8":                    "column 9: temp.tj is no text",
		"temp.tj > hot":                  "column 11: temp.tj is compared with a number",
		"temp.tj > NaN":                  "column 11: temp.tj is compared with a number",
		"seen > soon":                    "column 8: seen is compared with a time",
		"seen = 2h ago":                  "column 8: an age is never exactly met",
		"seen in (2h)":                   "column 10: a time is not in a list",
		"site = a ago":                   "column 10: ago follows",
		"waiting > 3 ago":                "column 13: ago follows",
		"label = 4":                      "column 1: label alone is no field; say which: label.NAME",
		"label. = 4":                     "column 1: a name is wanted after the dot",
		`"site" = a`:                     "column 1: a field's name does not stand in quotes",
		`site = "a`:                      "column 8: the quote is not closed",
		"site = a; drop table board":     `column 9: ';' has no meaning`,
		"site = 'a'":                     `column 8: '\'' has no meaning`,
		"ü = ä & b":                      `column 7: '&' has no meaning`,
		"!site = a":                      "column 1: ! alone means nothing",
		"site = \xff":                    "column 8: this is no UTF-8",
		"site = \"a\x00\"":               "column 8: the quoted value holds a control character",
		"or":                             "column 1: or stands where a term is wanted",
		"site = and":                     "column 8: a value is wanted",
		`site > ""`:                      `column 8: "" is nothing`,
		`waiting > ""`:                   `column 11: "" is nothing`,
		`release ~ ""`:                   `column 11: "" is nothing`,
		`""`:                             "column 1: nothing stands",
		"seen > 99999999w":               "column 8: seen is compared with a time",
		"certificate-left < 1h2d":        "column 20: certificate-left is compared with a duration",
		strings.Repeat("not ", 40):       "column 133: more than 32 parentheses",
		strings.Repeat("(", 40):          "column 34: more than 32 parentheses",
		strings.Repeat("a or ", 300):     "column 1281: more than 256 values",
		strings.Repeat("a", maxLength+1): "column 4097: the query is 4097 bytes long",
	} {
		_, err := Parse(q)
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.Error(), "query, "+want) {
			t.Errorf("%.60q: %v\nwants %s", q, err, want)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	in := []string{"0.0.0~git20261101.abc", "0.0.0~git20261126.0ff", "0.9", "1.0~rc1", "1.0", "1.0a", "1.0-1", "1.0.0", "1.2", "1.10", "1.010.1", "18446744073709551616.0", "v18446744073709551617"}
	for i, a := range in {
		for j, b := range in {
			d := compareVersion(a, b)
			if (d < 0) != (i < j) || (d == 0) != (i == j) {
				t.Errorf("%s and %s compare as %d", a, b, d)
			}
		}
	}
	if compareVersion("1.02", "v1.2") != 0 {
		t.Error("leading zeros count")
	}
}

// --- random queries

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// term makes a random term as text, and what it means, judged apart from the code under
// test: by a plain loop over the values.
func term(r *rand.Rand) (string, func(thing) bool) {
	switch r.IntN(5) {
	case 0:
		stem := pick(r, "d", "dock", "hall", "x", "and")
		return quote(stem), func(x thing) bool { return strings.HasPrefix(x["name"].Text, stem) }
	case 1:
		f, o := pick(r, "site", "label.line", "cause"), pick(r, "=", "!=")
		s := pick(r, "", "a", "hall 4", `qu"o\te`, "in", "not")
		return f + o + quote(s), func(x thing) bool { return (x[f].Text == s) == (o == "=") }
	case 2:
		f, n := pick(r, "temp.tj", "waiting"), float64(r.IntN(4))
		o := pick(r, "<", "<=", ">", ">=", "=", "!=")
		return fmt.Sprintf("%s %s %v", f, o, n), func(x thing) bool {
			v, ok := x[f]
			if o == "!=" {
				return !ok || v.Number != n
			}
			return ok && map[string]bool{"<": v.Number < n, "<=": v.Number <= n, ">": v.Number > n, ">=": v.Number >= n, "=": v.Number == n}[o]
		}
	case 3:
		of := []string{pick(r, "cam0", "cam1"), pick(r, "cam2", "or")}
		neg := pick(r, "", "not ")
		return fmt.Sprintf("camera %sin (%s, %s)", neg, quote(of[0]), quote(of[1])), func(x thing) bool {
			any := slices.ContainsFunc(x["camera"].List, func(s string) bool { return slices.Contains(of, s) })
			return any == (neg == "")
		}
	}
	h, o := r.IntN(5), pick(r, "<", ">=")
	return fmt.Sprintf("seen %s %dh ago", o, h), func(x thing) bool {
		at := x["seen"].Time
		old := now().Sub(at) >= time.Duration(h)*time.Hour
		return !at.IsZero() && old == (o == ">=")
	}
}

func random(r *rand.Rand, depth int) (string, func(thing) bool) {
	if depth == 0 || r.IntN(4) == 0 {
		return term(r)
	}
	a, x := random(r, depth-1)
	if r.IntN(3) == 0 {
		return "not (" + a + ")", func(s thing) bool { return !x(s) }
	}
	b, y := random(r, depth-1)
	if r.IntN(2) == 0 {
		return "(" + a + ") and (" + b + ")", func(s thing) bool { return x(s) && y(s) }
	}
	return "(" + a + ") or (" + b + ")", func(s thing) bool { return x(s) || y(s) }
}

func randomThing(r *rand.Rand) thing {
	x := thing{"name": {Text: pick(r, "dock-1", "hall-2", "and-3", "x")}}
	if r.IntN(3) > 0 {
		x["site"] = Value{Text: pick(r, "a", "hall 4", `qu"o\te`, "in")}
	}
	if r.IntN(2) > 0 {
		x["label.line"] = Value{Text: pick(r, "a", "not")}
		x["temp.tj"] = Value{Number: float64(r.IntN(4))}
	}
	if r.IntN(2) > 0 {
		x["camera"] = Value{List: []string{pick(r, "cam0", "cam1"), pick(r, "cam2", "cam3")}}
		x["waiting"] = Value{Number: float64(r.IntN(4))}
		x["seen"] = Value{Time: now().Add(-time.Duration(r.IntN(5)) * time.Hour)}
	}
	return x
}

// same compares trees but for the columns.
func same(a, b node) bool {
	switch x := a.(type) {
	case *negation:
		y, ok := b.(*negation)
		return ok && same(x.part, y.part)
	case *group:
		y, ok := b.(*group)
		return ok && x.op == y.op && slices.EqualFunc(x.parts, y.parts, same)
	case *compare:
		y, ok := b.(*compare)
		return ok && x.field == y.field && x.op == y.op && x.kind == y.kind && reflect.DeepEqual(x.values, y.values)
	}
	return false
}

// TestRandom: what prints parses back to the same tree, and means what a plain reading
// of the words means, for 20,000 random queries.
func TestRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	hits := 0
	for range 20_000 {
		s, means := random(r, 4)
		q, err := Parse(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		back, err := Parse(q.String())
		if err != nil || !same(q.root, back.root) {
			t.Fatalf("%s\nprints as %s\nwhich is %v, %v", s, q, back, err)
		}
		for range 5 {
			x := randomThing(r)
			want := means(x)
			if got := q.Match(x, now()); got != want {
				t.Fatalf("%s\nof %v is %v", s, x, got)
			}
			if want {
				hits++
			}
		}
	}
	if hits < 20_000 || hits > 80_000 {
		t.Errorf("%d of 100,000 match: the queries tell nothing", hits)
	}
}

func TestAnd(t *testing.T) {
	t.Parallel()
	parse := func(s string) *Query {
		q, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	if got := And(parse("site = a or site = b"), parse("dock and waiting > 0")).String(); got != "(site = a or site = b) and dock and waiting > 0" {
		t.Error(got)
	}
	if And(nil, nil) != nil || And(parse(""), parse("dock")).String() != "dock" || And(parse("dock"), nil).String() != "dock" {
		t.Error("nothing is not everything")
	}
}

func TestHintsAndCompletion(t *testing.T) {
	t.Parallel()
	known := func(f string) []string {
		return map[string][]string{"site": {"hall-4", "hall-5", "yard 1"}, "name": {"dock-0001", "dock-0002"}}[f]
	}
	q, err := Parse("not (site = hall4 or site in (hall-4, yard)) and label.line = 3")
	if err != nil {
		t.Fatal(err)
	}
	want := []Error{{13, "no board has site = hall4", "did you mean hall-4?"}, {31, "no board has site = yard", ""}}
	if got := q.Hints(known); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for s, want := range map[string]string{
		"sit": "site", "site = ": "hall-4 hall-5", "site = hall-5": "hall-5", "site in (hall-4, h": "hall-4 hall-5", "site = hall-4 a": "and",
		"state != f": "failing", "dock-0002": "dock-0002", "not sta": "state", "(sta": "state", "site not in (": "hall-4 hall-5", "nosuch = ": "", `site = "`: "",
	} {
		if got := strings.Join(Complete(s, known, 2), " "); got != want {
			t.Errorf("%q goes on as %q, wants %q", s, got, want)
		}
	}
}

// TestFields: each documented example is a query, and names its own field.
func TestFields(t *testing.T) {
	t.Parallel()
	for _, f := range Fields() {
		q, err := Parse(f.Example)
		if err != nil || f.Doc == "" || !strings.HasPrefix(q.String(), f.Name) {
			t.Errorf("%s: %s is %v, %v", f.Name, f.Example, q, err)
		}
	}
}

// TestPage: docs/query.md has each field as it is.
func TestPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/query.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Fields() {
		doc := f.Doc
		if len(f.Words) > 0 {
			doc += ": " + strings.Join(f.Words, ", ")
		}
		if line := fmt.Sprintf("| `%s` | %s | `%s` | %s |\n", f.Name, f.Type, f.Example, doc); !strings.Contains(string(page), line) {
			t.Errorf("docs/query.md wants the line\n%s", line)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"site in (a,b) and not state=unreachable and temp.tj > 85 and release < 1.8 and seen > 2h ago and label.line=4", `"a\"b"`, "((", "a~*b*c", "1.2.3 or \u00fc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := Parse(s)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Column > len(s)+1 || e.What == "" {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		got := q.Match(dock(), now())
		if len(q.String()) > maxLength {
			return // quotes and blanks that the canonical form adds
		}
		back, err := Parse(q.String())
		if err != nil || q.root != nil && !same(q.root, back.root) || back.Match(dock(), now()) != got {
			t.Fatalf("%q prints as %q: %v", s, q, err)
		}
		Complete(s, func(string) []string { return nil }, 5)
	})
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package query

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Type is what a field's values are.
type Type string

// The types.
const (
	Text     Type = "text"
	Word     Type = "word" // one of a few, FieldDoc.Words
	List     Type = "list" // of texts; one that matches is enough
	Number   Type = "number"
	Version  Type = "version"
	Time     Type = "time"
	Duration Type = "duration" // in seconds
)

// FieldDoc describes a field.
type FieldDoc struct {
	Name    string // "label." and other names that end in a dot stand for all that begin so
	Type    Type
	Example string
	Doc     string
	Words   []string // all values of a Word
}

// Fields lists the fields of a board.
func Fields() []FieldDoc {
	return []FieldDoc{
		{Name: "name", Type: Text, Example: "name = dock-0017", Doc: "the board's name; a bare word is its beginning"},
		{Name: "site", Type: Text, Example: "site in (hall-4, hall-5)", Doc: "where it stands, as people say"},
		{Name: "label.", Type: Text, Example: "label.line = 4", Doc: "a label that people gave it"},
		{Name: "description", Type: Text, Example: "description ~ spare", Doc: "what people wrote of it"},
		{Name: "power-budget-watt", Type: Number, Example: "power-budget-watt <= 15", Doc: "what it may draw, in watts"},
		{Name: "state", Type: Word, Example: "state = failing", Doc: "its one state word", Words: []string{"healthy", "degraded", "failing", "unreachable", "never-heard"}},
		{Name: "cause", Type: Text, Example: "cause ~ worker", Doc: "why it is not healthy, in words"},
		{Name: "since", Type: Time, Example: "since > 10m ago", Doc: "it is in its state since then"},
		{Name: "online", Type: Word, Example: "online = no", Doc: "whether it is connected", Words: []string{"yes", "no"}},
		{Name: "seen", Type: Time, Example: "seen > 2h ago", Doc: "its newest message was stored then"},
		{Name: "release", Type: Version, Example: "release < 1.8", Doc: "what fulmard runs"},
		{Name: "key", Type: Word, Example: "key = software", Doc: "where its key lies", Words: []string{"software", "tpm"}},
		{Name: "proof", Type: Word, Example: "proof = measured", Doc: "what its newest attestation proves", Words: []string{"claimed", "bound", "measured"}},
		{Name: "revoked", Type: Word, Example: "revoked = yes", Doc: "whether it was shut out", Words: []string{"yes", "no"}},
		{Name: "certificate-left", Type: Duration, Example: "certificate-left < 14d", Doc: "how long its certificate is still good"},
		{Name: "enrolled", Type: Time, Example: "enrolled < 7d ago", Doc: "when it was let in"},
		{Name: "camera", Type: List, Example: "camera = cam0", Doc: "its cameras"},
		{Name: "model", Type: List, Example: "model ~ forklift", Doc: "the models that see on it"},
		{Name: "engine", Type: List, Example: "engine = tensorrt", Doc: "what runs them"},
		{Name: "alarm", Type: List, Example: "alarm ~ camera/*", Doc: "subjects of its reports that are alarms"},
		{Name: "warning", Type: List, Example: "warning = worker", Doc: "subjects of its reports that are warnings"},
		{Name: "report.", Type: Text, Example: "report.worker = restarting", Doc: "the state of its newest report on a subject"},
		{Name: "waiting", Type: Number, Example: "waiting > 1000", Doc: "records that it made and that have not arrived"},
		{Name: "lost", Type: Number, Example: "lost > 0", Doc: "records that are lost for ever; without those of crashes and those thinned"},
		{Name: "lost-at", Type: Time, Example: "lost-at < 1h ago", Doc: "when it told of the newest loss that lost counts"},
		{Name: "fact.", Type: Text, Example: `fact.jetson = "Orin NX"`, Doc: "a fact that it told of itself"},
		{Name: "temp.", Type: Number, Example: "temp.tj > 85", Doc: "newest temperature of a zone, in degrees Celsius; temp.* is the highest"},
		{Name: "series.", Type: Number, Example: "series.mount.root.used > 90", Doc: "newest good value of a series; the unit at its end may be left out, and series. where its name has a dot; mount.*.used is the highest of several"},
	}
}

// maxName bounds a field's name, in bytes: the longest series and a prefix.
const maxName = 128

// Field describes the field of a name; the error is an [*Error].
func Field(name string) (FieldDoc, error) { return field(token{kind: word, text: name, column: 1}) }

// field finds the field that a token names.
func field(t token) (FieldDoc, error) {
	name := t.text
	if t.kind != word {
		return FieldDoc{}, fail(t, "a field's name does not stand in quotes", "take them away")
	}
	all := Fields()
	for _, f := range all {
		open := strings.HasSuffix(f.Name, ".") // the name goes on
		if !open && name == f.Name || open && strings.HasPrefix(name, f.Name) && len(name) > len(f.Name) && len(name) <= maxName {
			f.Name = name
			return f, nil
		}
	}
	if i := strings.IndexByte(name, '.'); i > 0 && i < len(name)-1 && len(name) <= maxName {
		return FieldDoc{Name: name, Type: Number, Example: name + " > 85"}, nil
	}
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.Name
	}
	if slices.Contains(names, name+".") {
		return FieldDoc{}, fail(t, fmt.Sprintf("%s alone is no field", name), fmt.Sprintf("say which: %s.NAME", name))
	}
	if strings.HasSuffix(name, ".") {
		return FieldDoc{}, fail(t, "a name is wanted after the dot", "write it as label.line or temp.tj")
	}
	return FieldDoc{}, fail(t, fmt.Sprintf("no field is called %.64s", name), didYouMean(name, names, "see fulmar explain query for the fields"))
}

// suits tells whether an operator means something for the field.
func (f FieldDoc) suits(o op, at token) error {
	ordered := f.Type == Number || f.Type == Version || f.Type == Time || f.Type == Duration
	switch {
	case !ordered && (o == opLow || o == opLE || o == opHi || o == opGE):
		return fail(at, fmt.Sprintf("%s is no number, version or time: it has no order", f.Name), "use =, !=, ~ or in")
	case o == opPat && (f.Type == Number || f.Type == Time || f.Type == Duration):
		return fail(at, fmt.Sprintf("%s is no text: it has no pattern", f.Name), "use =, !=, <, <=, > or >=")
	}
	return nil
}

// value is a value of a query, read for its field's type.
type value struct {
	text    string // as written, canonical
	number  float64
	at      time.Time     // Time: this moment,
	ago     time.Duration // or so long ago
	age     bool
	nothing bool // ""
}

// read reads the value of a field that stands in a token.
func (f FieldDoc) read(t token, o op) (value, error) {
	v := value{text: t.text}
	if t.text == "" {
		v.nothing = true
		if o != opIs && o != opNot {
			return v, fail(t, `"" is nothing, which is no pattern and has no order`, `write it with = or !=`)
		}
		return v, nil
	}
	if o == opPat {
		return v, nil
	}
	ok := true
	switch f.Type {
	case Word:
		if ok = slices.Contains(f.Words, t.text); !ok {
			return v, fail(t, fmt.Sprintf("%s is never %.64s", f.Name, t.text), didYouMean(t.text, f.Words, "it is one of "+strings.Join(f.Words, ", ")))
		}
	case Number:
		var err error
		v.number, err = strconv.ParseFloat(t.text, 64)
		if ok = err == nil && !math.IsNaN(v.number) && !math.IsInf(v.number, 0); !ok {
			return v, fail(t, fmt.Sprintf("%s is compared with a number", f.Name), "write it as "+f.Example)
		}
	case Duration:
		d, ok := parseDuration(t.text)
		if !ok {
			return v, fail(t, fmt.Sprintf("%s is compared with a duration", f.Name), "write it as "+f.Example+"; units are s, m, h, d and w")
		}
		v.number = d.Seconds()
	case Time:
		if v.ago, v.age = parseDuration(t.text); v.age {
			break
		}
		if v.at, ok = parseTime(t.text); !ok {
			return v, fail(t, fmt.Sprintf("%s is compared with a time", f.Name), "write it as "+f.Example+" or "+f.Name+" < 2026-11-26; units are s, m, h, d and w")
		}
		if o == opIs || o == opNot {
			return v, fail(t, "a moment is never exactly met", "compare it with < and >")
		}
	}
	if v.age && (o == opIs || o == opNot) {
		return v, fail(t, "an age is never exactly met", "compare it with < and >")
	}
	return v, nil
}

// parseDuration reads numbers with units from weeks to seconds: 90s, 2h, 1h30m, 3d. At
// most ten years.
func parseDuration(s string) (time.Duration, bool) {
	const most = 10 * 365 * 24 * time.Hour
	units := []struct {
		c byte
		d time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
	var sum time.Duration
	for s != "" {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		x, err := strconv.ParseInt(s[:n], 10, 32)
		if err != nil || n == len(s) {
			return 0, false
		}
		i := slices.IndexFunc(units, func(u struct {
			c byte
			d time.Duration
		},
		) bool {
			return u.c == s[n]
		})
		if i < 0 || x > int64(most/units[i].d) {
			return 0, false
		}
		if sum += time.Duration(x) * units[i].d; sum > most {
			return 0, false
		}
		s, units = s[n+1:], units[i+1:]
	}
	return sum, true
}

// parseTime reads a day or an RFC 3339 time; a day is that of UTC.
func parseTime(s string) (time.Time, bool) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

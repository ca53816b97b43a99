// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html"
	"html/template"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// StaleAfter is when a value is drawn grey with its age. Series that are sent on
// change only are sent once a minute at least, so a live one is never this old.
const StaleAfter = 90 * time.Second

// Value is one live text. Text "" with At set is an age, written by the reader.
type Value struct {
	Text  string
	At    int64  // ms since 1970, 0: has none
	Class string // "", "stale" (old), "off" (not a number)
	Num   float64
	IsNum bool // Num goes into a chart
}

// MarshalJSON gives [text, at, class, number], cut after the last that says something.
func (v Value) MarshalJSON() ([]byte, error) {
	a := []any{v.Text, v.At, v.Class, v.Num}
	switch {
	case v.IsNum:
	case v.Class != "":
		a = a[:3]
	case v.At != 0:
		a = a[:2]
	default:
		a = a[:1]
	}
	return json.Marshal(a)
}

// Sheet is the live half of a page: its texts by key and the fingerprints of its
// parts. Texts are set while the page is built; setting gives the HTML that holds
// them, so what was served and what is sent live cannot differ.
type Sheet struct {
	At   time.Time // the page's moment, in the page's zone
	Vals map[string]Value
	Hash map[string]string
}

// NewSheet starts a sheet.
func NewSheet(at time.Time) *Sheet {
	return &Sheet{At: at, Vals: map[string]Value{}, Hash: map[string]string{}}
}

// Part marks an element as a part that the script may ask for again.
func (s *Sheet) Part(name string) template.HTMLAttr {
	return template.HTMLAttr(fmt.Sprintf(`data-part="%s" data-h="%s"`, html.EscapeString(name), s.Hash[name])) // #nosec G203: escaped, and hex
}

// Shape sets the fingerprint of a part from all that its template shows besides
// live values.
func (s *Sheet) Shape(part string, of ...any) {
	h := fnv.New64a()
	for _, v := range of {
		fmt.Fprintf(h, "%v\x00", v)
	}
	s.Hash[part] = strconv.FormatUint(h.Sum64(), 36)
}

// Text sets a live text and gives its HTML.
func (s *Sheet) Text(key, text string) template.HTML { return s.put(key, Value{Text: text}) }

// Ago sets a live age.
func (s *Sheet) Ago(key string, t time.Time) template.HTML {
	if t.IsZero() {
		return s.put(key, Value{Text: "never"})
	}
	return s.put(key, Value{At: t.UnixMilli()})
}

// Absent sets the word for a reading that the board does not send.
func (s *Sheet) Absent(key string) template.HTML {
	return s.put(key, Value{Text: "not sent", Class: "off"})
}

// Reading sets a live reading. Without a number it says why in words.
func (s *Sheet) Reading(key string, n float64, q schema.Quality, at time.Time, u words.Unit) template.HTML {
	v := Value{At: at.UnixMilli()}
	switch q {
	case schema.QualityGood:
		v.Text, v.Num, v.IsNum = words.Quantity(n, u), n, true
		if s.At.Sub(at) > StaleAfter {
			v.Class = "stale"
		}
	case schema.QualityStale:
		v.Text, v.Class = "no new value", "off"
	default:
		v.Text, v.Class = q.String(), "off"
	}
	return s.put(key, v)
}

// put keeps a value and gives the element that holds it.
func (s *Sheet) put(key string, v Value) template.HTML {
	s.Vals[key] = v
	var b strings.Builder
	tag, text := "span", v.Text
	if v.Text == "" && v.At != 0 {
		tag, text = "time", words.Age(s.At.Sub(time.UnixMilli(v.At)))
	}
	fmt.Fprintf(&b, `<%s data-v="%s"`, tag, html.EscapeString(key))
	if v.At != 0 {
		at := time.UnixMilli(v.At).In(s.At.Location())
		fmt.Fprintf(&b, ` data-at="%d" title="%s"`, v.At, html.EscapeString(words.Stamp(at, s.At)))
		if tag == "time" {
			fmt.Fprintf(&b, ` datetime="%s"`, at.Format(time.RFC3339))
		}
		if v.Class == "stale" {
			fmt.Fprintf(&b, ` data-age="%s"`, words.Age(s.At.Sub(at)))
		}
	}
	if v.Class != "" {
		fmt.Fprintf(&b, ` class="%s"`, html.EscapeString(v.Class))
	}
	fmt.Fprintf(&b, `>%s</%s>`, html.EscapeString(text), tag)
	return template.HTML(b.String()) // #nosec G203: every piece is escaped above
}

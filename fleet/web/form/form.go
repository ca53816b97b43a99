// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package form reads the forms of the page and gives them back with what is wrong
// written beside the field. What was typed stays, except for secrets.
package form

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// Bounds of a form. All values of one are read into memory.
const (
	// Max bounds the body of an ordinary form, in bytes: a query of 1 KiB, a handful of
	// sentences and names.
	Max = 16 << 10
	// inMemory is above every bound of a form: no file of one is written to disk.
	inMemory = 1 << 20
	// MaxLine bounds a field of one line, in bytes.
	MaxLine = 512
)

// tooLarge: the body is over its bound, or is no form at all.
func tooLarge() error {
	return &trust.Problem{Code: http.StatusRequestEntityTooLarge, What: "The form could not be read", Do: "It was too long or broke off. Nothing was changed; try again with less."}
}

// Form is what was typed and what is wrong with it.
type Form struct {
	vals url.Values
	errs map[string]string
	top  []string
	do   string
}

// New makes an empty form with these values in it, name before value.
func New(pairs ...string) *Form {
	f := &Form{vals: url.Values{}, errs: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		f.vals.Set(pairs[i], pairs[i+1])
	}
	return f
}

// Read takes a posted form whose body is bounded already.
func Read(r *http.Request) (*Form, error) {
	var err error
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind == "multipart/form-data" {
		err = r.ParseMultipartForm(inMemory) // more than any bound: nothing goes to disk
	} else {
		err = r.ParseForm()
	}
	if err != nil {
		return nil, tooLarge()
	}
	return &Form{vals: r.PostForm, errs: map[string]string{}}, nil
}

// Raw gives a value as it came.
func (f *Form) Raw(name string) string { return f.vals.Get(name) }

// All gives all values of a name.
func (f *Form) All(name string) []string { return f.vals[name] }

// Set puts a value in.
func (f *Form) Set(name, value string) { f.vals.Set(name, value) }

// Ticked tells whether a box is ticked.
func (f *Form) Ticked(name string) bool { return f.vals.Get(name) != "" }

// Wrong notes what is wrong with a field; the first word stays.
func (f *Form) Wrong(name, format string, args ...any) {
	if f.errs[name] == "" {
		f.errs[name] = fmt.Sprintf(format, args...)
	}
}

// Refuse notes what is wrong with the whole, and what to do.
func (f *Form) Refuse(what, do string) { f.top, f.do = append(f.top, what), do }

// OK tells whether nothing is wrong.
func (f *Form) OK() bool { return len(f.errs) == 0 && len(f.top) == 0 }

// Line gives a value of one line without the spaces around it. Where it is longer than
// most (in bytes), or has control characters in it, that is wrong.
func (f *Form) Line(name string, most int) string {
	s := strings.TrimSpace(f.vals.Get(name))
	switch {
	case len(s) > most:
		f.Wrong(name, "Too long: at most %d characters.", most)
		return ""
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		f.Wrong(name, "One line of plain text, please.")
		return ""
	}
	return s
}

// Need is Line for a field that must not be empty.
func (f *Form) Need(name string, most int) string {
	s := f.Line(name, most)
	if s == "" {
		f.Wrong(name, "This is needed.")
	}
	return s
}

// Number gives a number between lo and hi; def where the field is empty. A comma counts
// as a point, and a sign of per cent is left out.
func (f *Form) Number(name string, lo, hi, def float64) float64 {
	s := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(f.vals.Get(name)), "%"))
	if s == "" {
		return def
	}
	v, err := strconv.ParseFloat(strings.Replace(s, ",", ".", 1), 64)
	if err != nil || math.IsNaN(v) || v < lo || v > hi {
		f.Wrong(name, "A number from %s to %s.", trim(lo), trim(hi))
		return def
	}
	return v
}

// Whole is Number for whole numbers.
func (f *Form) Whole(name string, lo, hi, def int) int {
	v := f.Number(name, float64(lo), float64(hi), float64(def))
	if v != math.Trunc(v) {
		f.Wrong(name, "A whole number.")
		return def
	}
	return int(v)
}

func trim(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// OneOf gives a value that is one of these; the first where it is empty.
func (f *Form) OneOf(name string, of ...string) string {
	s := f.vals.Get(name)
	if s == "" {
		return of[0]
	}
	if !slices.Contains(of, s) {
		f.Wrong(name, "Choose one of the list.")
		return of[0]
	}
	return s
}

// Take writes a problem into the form: beside the fields where it points at some (field
// gives the name of the field for a pointer, "" for none), above the form otherwise.
func (f *Form) Take(p rest.Problem, field func(pointer string) string) {
	beside := false
	for _, e := range p.Errors {
		if name := field(e.Pointer); name != "" {
			f.Wrong(name, "%s", sentence(e.Detail))
			beside = true
			continue
		}
		f.top = append(f.top, sentence(e.Detail))
		beside = true
	}
	switch {
	case p.Detail != "" && !beside:
		f.Refuse(sentence(p.Title)+": "+p.Detail, sentence(p.Do))
	case !beside:
		f.Refuse(sentence(p.Title), sentence(p.Do))
	}
}

// sentence begins with a capital and ends with a stop.
func sentence(s string) string {
	if s = words.Sentence(s); s != "" && !strings.ContainsAny(s[len(s)-1:], ".?!:") {
		s += "."
	}
	return s
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package form

import (
	"bytes"
	"html/template"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"fulmar/schema/rest"
)

func TestValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		read        func(*Form) any
		want        any
		wrong       string
	}{
		{"line", "  a line ", func(f *Form) any { return f.Line("x", 10) }, "a line", ""},
		{"too long", "0123456789a", func(f *Form) any { return f.Line("x", 10) }, "", "Too long: at most 10 characters."},
		{"two lines", "a\nb", func(f *Form) any { return f.Line("x", 10) }, "", "One line of plain text, please."},
		{"not UTF-8", "a\xff", func(f *Form) any { return f.Line("x", 10) }, "", "One line of plain text, please."},
		{"needed", " ", func(f *Form) any { return f.Need("x", 10) }, "", "This is needed."},
		{"number", "99.5", func(f *Form) any { return f.Number("x", 0, 100, 1) }, 99.5, ""},
		{"comma and per cent", "99,5 %", func(f *Form) any { return f.Number("x", 0, 100, 1) }, 99.5, ""},
		{"empty number", "", func(f *Form) any { return f.Number("x", 0, 100, 7) }, 7.0, ""},
		{"no number", "NaN", func(f *Form) any { return f.Number("x", 0, 100, 7) }, 7.0, "A number from 0 to 100."},
		{"infinite", "Inf", func(f *Form) any { return f.Number("x", 0, 100, 7) }, 7.0, "A number from 0 to 100."},
		{"above", "100.1", func(f *Form) any { return f.Number("x", 0, 100, 7) }, 7.0, "A number from 0 to 100."},
		{"whole", "12", func(f *Form) any { return f.Whole("x", 1, 20, 7) }, 12, ""},
		{"half", "1.5", func(f *Form) any { return f.Whole("x", 1, 20, 7) }, 7, "A whole number."},
		{"choice", "b", func(f *Form) any { return f.OneOf("x", "a", "b") }, "b", ""},
		{"no choice", "", func(f *Form) any { return f.OneOf("x", "a", "b") }, "a", ""},
		{"another choice", "c", func(f *Form) any { return f.OneOf("x", "a", "b") }, "a", "Choose one of the list."},
	} {
		f := New("x", c.value)
		if got := c.read(f); got != c.want || f.Why("x") != c.wrong || f.OK() != (c.wrong == "") {
			t.Errorf("%s: %v, %q", c.name, got, f.Why("x"))
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	post := func(kind, body string, limit int64) (*Form, error) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?x=address", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, limit)
		return Read(r)
	}
	f, err := post("application/x-www-form-urlencoded", "x=body&y=1&y=2", 100)
	if err != nil || f.Raw("x") != "body" || len(f.All("y")) != 2 || f.Ticked("z") {
		t.Errorf("%+v, %v: the address must not fill in a form", f, err)
	}
	parts := "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nbody\r\n--b--\r\n"
	if f, err := post("multipart/form-data; boundary=b", parts, 200); err != nil || f.Raw("x") != "body" {
		t.Errorf("multipart: %+v, %v", f, err)
	}
	for kind, body := range map[string]string{
		"application/x-www-form-urlencoded": "x=" + strings.Repeat("a", 200), "multipart/form-data; boundary=b": strings.Replace(parts, "body", strings.Repeat("a", 200), 1), "multipart/form-data": parts,
	} {
		if _, err := post(kind, body, 100); err == nil {
			t.Errorf("%s over its bound was read", kind)
		}
	}
}

// TestTake: a problem stands beside the field it points at, else above the form.
func TestTake(t *testing.T) {
	t.Parallel()
	f := New()
	f.Take(rest.Problem{Title: "refused", Errors: []rest.Fault{{Pointer: "/name", Detail: "the name is taken"}, {Pointer: "/deep/1", Detail: "wrong"}}}, func(p string) string { return map[string]string{"/name": "user"}[p] })
	if f.Why("user") != "The name is taken." || len(f.Faults()) != 1 || f.Faults()[0] != "Wrong." {
		t.Errorf("%q %q", f.Why("user"), f.Faults())
	}
	f = New()
	f.Take(rest.Problem{Title: "somebody changed it", Detail: "m.kern did", Do: "look again"}, func(string) string { return "" })
	if f.Faults()[0] != "Somebody changed it: m.kern did." || f.Do() != "Look again." {
		t.Errorf("%q %q", f.Faults(), f.Do())
	}
}

// TestField: what was typed is escaped, a password is never given back, and what is wrong
// is tied to the field.
func TestField(t *testing.T) {
	t.Parallel()
	tmpl := template.Must(template.New("x").ParseFS(files, Pieces))
	f := New("a", `"><script>alert(1)</script>`, "p", "secret", "k", "1", "c", "two")
	f.Wrong("a", "Not %s.", "so")
	f.Wrong("a", "Never said.")
	var b bytes.Buffer
	for _, d := range []Field{f.Text("a", "A", "hint"), f.Password("p", "P", ""), f.Tick("k", "K", ""), f.Choose("c", "C", "", "one", "One", "two", "Two"), f.Area("a", "B", "")} {
		if err := tmpl.ExecuteTemplate(&b, "field", d); err != nil {
			t.Fatal(err)
		}
	}
	got := b.String()
	for _, want := range []string{`aria-invalid="true" aria-describedby="f-a-why f-a-hint"`, `<p class="why" id="f-a-why">Not so.</p>`, `value="1" checked`, `<option value="two" selected>Two</option>`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if strings.Contains(got, "<script>") || strings.Contains(got, "secret") || strings.Contains(got, "Never said") {
		t.Error(got)
	}
}

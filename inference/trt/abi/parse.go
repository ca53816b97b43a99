// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The bounds of abi.txt. They are far above what it needs, and keep a broken file
// from becoming a huge table.
const (
	maxBytes = 128 << 10
	maxLine  = 400
	maxRows  = 2000
	maxCell  = 1 << 14
	maxMajor = 99
)

// ErrTable is what is wrong with a table; the text has the number of the line.
var ErrTable = errors.New("TensorRT ABI table")

// Parse reads abi.txt and checks what can be told without headers: each row has a
// cell for each major, names are unique, slots lie within their vtable and no two
// methods of a class share one.
func Parse(text []byte) (*Table, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTable, len(text), maxBytes)
	}
	p := parser{t: &Table{}, seen: map[string]int{}}
	for i, line := range strings.Split(string(text), "\n") {
		p.line = i + 1
		if i >= maxRows {
			return nil, p.errorf("more than %d lines", maxRows)
		}
		if len(line) > maxLine {
			return nil, p.errorf("%d bytes, at most %d", len(line), maxLine)
		}
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			if err := p.row(f); err != nil {
				return nil, err
			}
		}
	}
	if len(p.t.Majors) == 0 {
		return nil, p.errorf("no majors row")
	}
	return p.t, p.t.check()
}

type parser struct {
	t       *Table
	line    int
	header  string
	class   *Class
	group   *Group
	grouped string // enum or struct
	seen    map[string]int
}

func (p *parser) errorf(format string, args ...any) error {
	return lineError(p.line, format, args...)
}

func lineError(line int, format string, args ...any) error {
	return fmt.Errorf("%w, line %d: %s", ErrTable, line, fmt.Sprintf(format, args...))
}

// row reads one line: a keyword, then what the keyword takes.
func (p *parser) row(f []string) error {
	key, f := f[0], f[1:]
	if key == "majors" {
		return p.majors(f)
	}
	if len(p.t.Majors) == 0 {
		return p.errorf("%q before the majors row", key)
	}
	switch key {
	case "header":
		if len(f) != 1 || !headerName(f[0]) {
			return p.errorf("header takes the name of a header, like A.h")
		}
		p.header, p.class, p.group = f[0], nil, nil
		return nil
	case "class", "enum", "struct":
		return p.begin(key, f)
	case "function":
		return p.function(f)
	case "length", "public", "info", "method", "overload":
		if p.class == nil {
			return p.errorf("%s outside a class", key)
		}
		return p.inClass(key, f)
	case "value", "size", "field", "item":
		want := "struct"
		if key == "value" {
			want = "enum"
		}
		if p.group == nil || p.grouped != want {
			return p.errorf("%s outside an %s", key, want)
		}
		return p.inGroup(key, f)
	}
	return p.errorf("unknown keyword %q", key)
}

func (p *parser) majors(f []string) error {
	if len(p.t.Majors) > 0 {
		return p.errorf("a second majors row")
	}
	for _, s := range f {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxMajor || len(p.t.Majors) > 0 && n <= p.t.Majors[len(p.t.Majors)-1] {
			return p.errorf("majors are numbers from 1 to %d, rising; got %q", maxMajor, s)
		}
		p.t.Majors = append(p.t.Majors, n)
	}
	if len(p.t.Majors) == 0 {
		return p.errorf("majors row without a major")
	}
	return nil
}

// begin starts a class, an enum or a struct: its short name and its C++ name.
func (p *parser) begin(key string, f []string) error {
	if len(f) != 2 || !identifier(f[0]) || !qualified(f[1]) {
		return p.errorf("%s takes a name and a C++ name", key)
	}
	if p.header == "" {
		return p.errorf("%s before the first header row", key)
	}
	if err := p.once(key, f[0]); err != nil {
		return err
	}
	p.class, p.group, p.grouped = nil, nil, key
	if key == "class" {
		p.class = &Class{Name: f[0], CPP: f[1], Header: p.header, Line: p.line}
		p.t.Classes = append(p.t.Classes, p.class)
		return nil
	}
	p.group = &Group{Name: f[0], CPP: f[1], Header: p.header, Line: p.line}
	if key == "enum" {
		p.t.Enums = append(p.t.Enums, p.group)
	} else {
		p.t.Structs = append(p.t.Structs, p.group)
	}
	return nil
}

// once refuses a name that was there before.
func (p *parser) once(kind, name string) error {
	k := kind + " " + name
	if at := p.seen[k]; at > 0 {
		return p.errorf("%s again (line %d)", k, at)
	}
	p.seen[k] = p.line
	return nil
}

func (p *parser) inClass(key string, f []string) (err error) {
	c := p.class
	switch key {
	case "overload":
		n := len(c.Methods)
		if n == 0 || len(f) == 0 || !cppTypes(strings.Join(f, " ")) {
			return p.errorf("overload takes C++ parameter types and follows a method")
		}
		c.Methods[n-1].Overload = strings.Join(f, " ")
		return nil
	case "info":
		if err := p.once(c.Name, key); err != nil {
			return err
		}
		if len(f) != len(p.t.Majors) {
			return p.errorf("info takes a cell for each of %d majors, got %d", len(p.t.Majors), len(f))
		}
		for _, s := range f {
			if s != "-" && !infoCell(s) {
				return p.errorf("info is Kind/major/minor or -, got %q", s)
			}
			c.Info = append(c.Info, strings.TrimPrefix(s, "-"))
		}
		return nil
	case "length":
		if err := p.once(c.Name, key); err != nil {
			return err
		}
		c.Length, err = p.cells("length", f, true)
		return err
	case "public":
		if len(f) < 2 || !qualified(f[0]) || !identifier(f[1]) {
			return p.errorf("public takes a C++ name, the member that points to the class, then slots")
		}
		if err := p.once(c.Name, key); err != nil {
			return err
		}
		c.Public, c.Member = f[0], f[1]
		c.Delete, err = p.cells("public", f[2:], false)
		return err
	}
	m, err := p.method(f)
	c.Methods = append(c.Methods, m)
	return err
}

// method reads a name, a slot for each major and, for each major or once for all,
// how it is called.
func (p *parser) method(f []string) (m Method, err error) {
	n := len(p.t.Majors)
	if len(f) < 1+n || !identifier(f[0]) {
		return m, p.errorf("method takes a name, %d slots and how it is called", n)
	}
	if err := p.once(p.class.Name, f[0]); err != nil {
		return m, err
	}
	if m.Row, err = p.cells(f[0], f[1:1+n], false); err != nil {
		return m, err
	}
	m.Calls, err = p.calls(f[1+n:])
	for i := range m.Calls {
		if m.Cells[i] == nil {
			m.Calls[i] = ""
		} else if m.Calls[i] == "" {
			return m, p.errorf("%s has a slot in %d but no call", f[0], p.t.Majors[i])
		}
	}
	return m, err
}

// calls reads one cell for all majors or one for each.
func (p *parser) calls(f []string) ([]string, error) {
	n := len(p.t.Majors)
	if len(f) != 1 && len(f) != n {
		return nil, p.errorf("a call for all majors or for each of %d, got %d", n, len(f))
	}
	out := make([]string, n)
	for i := range out {
		s := f[min(i, len(f)-1)]
		if s != "-" && !callCell(s) {
			return nil, p.errorf("a call is like bool(ptr,i32) or -, got %q", s)
		}
		out[i] = strings.TrimPrefix(s, "-")
	}
	return out, nil
}

func (p *parser) function(f []string) error {
	if len(f) < 2 || !identifier(f[0]) || p.header == "" {
		return p.errorf("function takes a name and how it is called, after a header row")
	}
	if err := p.once("function", f[0]); err != nil {
		return err
	}
	calls, err := p.calls(f[1:])
	p.t.Functions = append(p.t.Functions, Function{Name: f[0], Header: p.header, Line: p.line, Calls: calls})
	return err
}

func (p *parser) inGroup(key string, f []string) error {
	g, name := p.group, "size"
	if key != "size" {
		if len(f) == 0 || !identifier(f[0]) {
			return p.errorf("%s takes a name, then a cell for each major", key)
		}
		name, f = f[0], f[1:]
	}
	if err := p.once(p.grouped+" "+g.Name, key+" "+name); err != nil {
		return err
	}
	r, err := p.cells(name, f, false)
	if err != nil {
		return err
	}
	if slicesAny(r.Cells, func(c Cell) bool { return c.Since() != 0 }) {
		return p.errorf("%s has no minimum version: the C table has no place for one", key)
	}
	switch key {
	case "size":
		g.Size = r
	case "item":
		g.Widths = append(g.Widths, r)
	default:
		g.Items = append(g.Items, r)
	}
	return nil
}

// cells reads a cell for each major. Several steps in one cell are for lengths: a
// slot does not move within a major.
func (p *parser) cells(name string, f []string, steps bool) (Row, error) {
	r := Row{Name: name, Line: p.line}
	if len(f) != len(p.t.Majors) {
		return r, p.errorf("%s takes a cell for each of %d majors, got %d", name, len(p.t.Majors), len(f))
	}
	for i, s := range f {
		c, err := p.cell(s, p.t.Majors[i])
		if err != nil {
			return r, err
		}
		if len(c) > 1 && !steps {
			return r, p.errorf("%s has several numbers within major %d: %q", name, p.t.Majors[i], s)
		}
		r.Cells = append(r.Cells, c)
	}
	return r, nil
}

// cell reads -, 12, 12@8.6 or 12,14@8.6.
func (p *parser) cell(s string, major int) (Cell, error) {
	if s == "-" {
		return nil, nil
	}
	var c Cell
	for _, part := range strings.Split(s, ",") {
		num, at, has := strings.Cut(part, "@")
		n, err := strconv.Atoi(num)
		if err != nil || n < 0 || n > maxCell {
			return nil, p.errorf("%q is not a number from 0 to %d", num, maxCell)
		}
		step := Step{N: n}
		if has {
			if step.Since, err = parseVersion(at); err != nil || int(step.Since)/10000 != major {
				return nil, p.errorf("%q is not a version of major %d", at, major)
			}
		}
		if len(c) > 0 && step.Since <= c[len(c)-1].Since {
			return nil, p.errorf("%q: versions must rise", s)
		}
		c = append(c, step)
	}
	return c, nil
}

// parseVersion reads 8.6 or 8.6.1.
func parseVersion(s string) (Version, error) {
	f := strings.Split(s, ".")
	if len(f) < 2 || len(f) > 3 {
		return 0, ErrTable
	}
	v := 0
	for i := range 3 {
		n := 0
		if i < len(f) {
			var err error
			if n, err = strconv.Atoi(f[i]); err != nil || n < 0 || n > 99 {
				return 0, ErrTable
			}
		}
		v = v*100 + n
	}
	return Version(v), nil
}

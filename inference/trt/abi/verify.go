// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrHeaders is what keeps headers from being looked at.
var ErrHeaders = errors.New("headers of TensorRT")

// secondWord is where a public object points to its implementation.
const secondWord = "8"

// Report is what a table is worth against one version's headers.
type Report struct {
	Version Version
	Missing []string // headers that were not there, so that nothing of them was checked
	// Checked counts by kind: slot, call, length, public, second, info, value, size,
	// field, item, function.
	Checked map[string]int
	// Absent counts, of the slots, methods that the version rightly does not have.
	Absent      int
	Differences []Difference
}

// Difference is one thing that the headers say otherwise.
type Difference struct {
	Kind, Name, Table, Headers string
	Line                       int // of abi.txt
}

// Verify compiles a probe of all that the table names against the headers in a folder
// and compares. It needs a C++ compiler, g++ unless CXX names another.
func Verify(ctx context.Context, t *Table, dir string) (*Report, error) {
	there, missing := map[string]bool{}, []string(nil)
	for i, h := range t.headers() {
		_, err := os.Stat(filepath.Join(dir, h))
		if there[h] = err == nil; err == nil {
			continue
		}
		if i == 0 {
			return nil, fmt.Errorf("%w: %s has no %s; give the folder that holds it", ErrHeaders, dir, h)
		}
		missing = append(missing, h)
	}
	out, err := run(ctx, t.probe(there), dir)
	if err != nil {
		return nil, err
	}
	got, err := readProbe(out)
	if err != nil {
		return nil, err
	}
	r := &Report{Missing: missing, Checked: map[string]int{}}
	if r.Version, err = parseVersion(got["version library"]); err != nil {
		return nil, fmt.Errorf("%w: %s says version %q", ErrHeaders, dir, got["version library"])
	}
	i := t.column(int(r.Version) / 10000)
	if i < 0 {
		return nil, fmt.Errorf("%w: %s is version %s, and the table has no column for that major; add one (docs/tensorrt-abi.md)", ErrHeaders, dir, r.Version)
	}
	return r, t.compare(r, got, there, i)
}

// run compiles the probe and gives what it prints.
func run(ctx context.Context, program, dir string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "trtabi")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	source, binary := filepath.Join(tmp, "probe.cc"), filepath.Join(tmp, "probe")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, "cuda_runtime_api.h"), []byte(standIn), 0o600); err != nil {
		return nil, err
	}
	cxx := os.Getenv("CXX")
	if cxx == "" {
		cxx = "g++"
	}
	// Without optimisation: the probe calls through objects that are nobody's, which
	// an optimiser may take as licence for anything.
	cmd := exec.CommandContext(ctx, cxx, "-std=c++14", "-O0", "-w", "-I", dir, "-I", tmp, "-o", binary, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: the probe does not compile against %s (%w): %s", ErrHeaders, dir, err, firstError(out))
	}
	out, err := exec.CommandContext(ctx, binary).Output()
	if err != nil {
		return nil, fmt.Errorf("%w: the probe built against %s did not end well: %w", ErrHeaders, dir, err)
	}
	return out, nil
}

// firstError finds the compiler's first line that tells an error.
func firstError(out []byte) string {
	for _, l := range strings.Split(string(out), "\n") {
		if strings.Contains(l, "error") {
			return l
		}
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line)
}

// readProbe reads lines of "kind name value".
func readProbe(out []byte) (map[string]string, error) {
	got := map[string]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		i := strings.LastIndexByte(l, ' ')
		if i < 0 {
			return nil, fmt.Errorf("%w: the probe said %q", ErrHeaders, l)
		}
		got[l[:i]] = l[i+1:]
	}
	return got, nil
}

// compare walks the table, and fails if the probe said more or less than it was asked.
func (t *Table) compare(r *Report, got map[string]string, there map[string]bool, i int) error {
	asked := 1 // the version
	var lost []string
	check := func(line int, kind, name, want string) {
		has, ok := got[kind+" "+name]
		if asked++; !ok {
			lost = append(lost, kind+" "+name)
		}
		r.Checked[kind]++
		if has != want {
			r.Differences = append(r.Differences, Difference{kind, name, want, has, line})
		} else if kind == "slot" && want == "-" {
			r.Absent++
		}
	}
	number := func(row Row) string {
		if n, ok := row.Cells[i].At(r.Version); ok {
			return strconv.Itoa(n)
		}
		return "-"
	}
	for _, c := range t.Classes {
		if there[c.Header] {
			c.compare(check, number, i)
		}
	}
	rows := func(g *Group, kind string, rows []Row) {
		for _, row := range rows {
			check(row.Line, kind, g.Name+"::"+row.Name, number(row))
		}
	}
	for _, g := range t.Enums {
		if there[g.Header] {
			rows(g, "value", g.Items)
		}
	}
	for _, g := range t.Structs {
		if !there[g.Header] {
			continue
		}
		size := number(g.Size)
		if size != "-" {
			size = "struct" + size // plain, so that it goes by value as in C
		}
		check(g.Size.Line, "size", g.Name, size)
		rows(g, "field", g.Items)
		rows(g, "item", g.Widths)
	}
	for _, f := range t.Functions {
		if there[f.Header] {
			check(f.Line, "function", f.Name, orDash(f.Calls[i]))
		}
	}
	if len(lost) > 0 || asked != len(got) {
		return fmt.Errorf("%w: the probe answered %d of %d questions, not %v", ErrHeaders, len(got), asked, lost)
	}
	return nil
}

// compare of a class: what is absent from the table must be absent from the headers.
func (c *Class) compare(check func(int, string, string, string), number func(Row) string, i int) {
	length := number(c.Length)
	check(c.Length.Line, "length", c.Name, length)
	if c.Public != "" {
		check(c.Delete.Line, "public", c.Name, number(c.Delete))
		second := secondWord
		if length == "-" {
			second = "-"
		}
		check(c.Delete.Line, "second", c.Name, second)
	}
	if c.Info != nil {
		check(c.Line, "info", c.Name, orDash(c.Info[i]))
	}
	for _, m := range c.Methods {
		name, slot := c.Name+"::"+m.Name, number(m.Row)
		check(m.Line, "slot", name, slot)
		if m.Name == "delete" {
			continue
		}
		call := "-"
		if slot != "-" {
			call = m.Calls[i]
		}
		check(m.Line, "call", name, call)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Write prints the differences as a table, or one line if there are none.
func (r *Report) Write(w io.Writer) {
	n := r.Checked
	seen := fmt.Sprintf("%d slots (%d absent), %d calls, %d vtable lengths, %d values, %d sizes and offsets, %d functions, %d other facts", n["slot"], r.Absent, n["call"], n["length"], n["value"],
		n["size"]+n["field"]+n["item"], n["function"], n["public"]+n["second"]+n["info"])
	missing := ""
	if len(r.Missing) > 0 {
		missing = "; not checked, because it is not there: " + strings.Join(r.Missing, ", ")
	}
	if len(r.Differences) > 0 {
		fmt.Fprintf(w, "%-8s %-50s %-24s %-24s %s\n", "kind", "name", "abi.txt", "headers", "line")
		for _, d := range r.Differences {
			fmt.Fprintf(w, "%-8s %-50s %-24s %-24s %d\n", d.Kind, d.Name, d.Table, d.Headers, d.Line)
		}
	}
	fmt.Fprintf(w, "TensorRT %s: differences %d, in %s%s\n", r.Version, len(r.Differences), seen, missing)
}

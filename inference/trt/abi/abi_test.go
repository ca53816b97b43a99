// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, path string) *Table {
	t.Helper()
	tab, err := Parse(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// tool skips a test without a program, except in CI.
func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil && os.Getenv("CI") != "true" {
		t.Skipf("%s is not installed", name)
	}
}

func TestHeaderIsFresh(t *testing.T) {
	t.Parallel()
	if !bytes.Equal(parse(t, "abi.txt").Header(), read(t, "../tables.h")) {
		t.Error("tables.h is not what abi.txt makes; type: go generate ./inference/trt/abi")
	}
}

// TestHeaderCompiles holds the C table to a compiler, and some of its numbers to the
// reviewed table, through the names that the bridge uses.
func TestHeaderCompiles(t *testing.T) {
	t.Parallel()
	tool(t, "cc")
	tab := parse(t, "abi.txt")
	var c strings.Builder
	c.WriteString("#include \"tables.h\"\n")
	claim := func(name, line string, want int) {
		fmt.Fprintf(&c, "	if (%s != %d) return puts(\"%s\"), 1;\n", line, want, name)
	}
	c.WriteString("#include <stdio.h>\nint main(void) {\n")
	for i, m := range tab.Majors {
		for _, k := range tab.Classes {
			claim(k.Name, fmt.Sprintf("fl_vtable_sizes[FL_M%d][FL_C_%s]", m, k.Name), k.Length.Cells[i].Last())
			for _, x := range k.Methods {
				claim(k.Name+" "+x.Name, fmt.Sprintf("fl_slots[FL_M%d][FL_%s_%s]", m, k.Name, x.Name), x.Cells[i].Last())
				claim(k.Name+" "+x.Name, fmt.Sprintf("fl_since[FL_M%d][FL_%s_%s]", m, k.Name, x.Name), int(x.Cells[i].Since()))
				claim(k.Name+" "+x.Name, fmt.Sprintf("fl_method_class[FL_%s_%s] - FL_C_%s", k.Name, x.Name, k.Name), 0)
			}
		}
		for _, g := range tab.Enums {
			for _, v := range g.Items {
				claim(g.Name+" "+v.Name, fmt.Sprintf("fl_values[FL_M%d][FL_%s_%s]", m, g.Name, v.Name), v.Cells[i].Last())
			}
		}
	}
	c.WriteString("	return 0;\n}\n")
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "t.c"), filepath.Join(dir, "t")
	if err := os.WriteFile(src, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-I", "..", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), bin).CombinedOutput(); err != nil {
		t.Errorf("the C table and abi.txt do not agree: %s%v", out, err)
	}
}

// TestRules plants each fault that can be told without headers into the real table.
func TestRules(t *testing.T) {
	t.Parallel()
	n := 0
	for i := range parse(t, "abi.txt").Majors {
		tab := parse(t, "abi.txt")
		for _, c := range tab.Classes {
			for k, m := range c.Methods {
				if m.Cells[i] == nil {
					continue
				}
				old := m.Cells[i]
				m.Cells[i] = Cell{{N: c.Length.Cells[i].Last()}}
				refused(t, tab, m.Line, "but the vtable has")
				for o, other := range c.Methods {
					if o != k && other.Cells[i] != nil {
						m.Cells[i] = Cell{{N: other.Cells[i].Last()}}
						refused(t, tab, max(m.Line, other.Line), "share slot")
						break
					}
				}
				m.Cells[i] = old
				n++
			}
		}
		if err := tab.check(); err != nil {
			t.Fatal(err)
		}
	}
	if n < 200 {
		t.Errorf("%d slots tried, the table has more", n)
	}
}

func refused(t *testing.T, tab *Table, line int, text string) {
	t.Helper()
	err := tab.check()
	if !errors.Is(err, ErrTable) || !strings.Contains(err.Error(), fmt.Sprintf("line %d:", line)) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want line %d and %q", err, line, text)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const top = "majors 1 2\nheader A.h\n"
	const class = top + "class K n::K\nlength 4 4,6@2.1\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "line 1: no majors row"},
		{"no majors", "header A.h\n", `line 1: "header" before the majors row`},
		{"two majors rows", "majors 1\nmajors 2\n", "line 2: a second majors row"},
		{"falling majors", "majors 2 1\n", `line 1: majors are numbers`},
		{"keyword", top + "clas K n::K\n", `line 3: unknown keyword "clas"`},
		{"no header", "majors 1\nclass K n::K\n", "line 2: class before the first header row"},
		{"header name", "majors 1\nheader A.h\"x\n", "line 2: header takes the name"},
		{"no length", top + "class K n::K\n", "line 3: class K has no length row"},
		{"no size", top + "struct S n::S\n", "line 3: struct S has no size row"},
		{"outside", top + "method a 1 1 void()\n", "line 3: method outside a class"},
		{"value in a class", class + "value k 1 1\n", "line 5: value outside an enum"},
		{"cells", class + "method a 1\n", "line 5: method takes a name, 2 slots"},
		{"no call", class + "method a 1 1 - void()\n", "line 5: a has a slot in 1 but no call"},
		{"call", class + "method a 1 1 void(int)\n", `line 5: a call is like`},
		{"number", class + "method a 1 x void()\n", `line 5: "x" is not a number`},
		{"negative", class + "method a 1 -1 void()\n", `line 5: "-1" is not a number`},
		{"huge", class + "method a 1 99999 void()\n", `line 5: "99999" is not a number`},
		{"foreign version", class + "method a 1 1@3.1 void()\n", `line 5: "3.1" is not a version of major 2`},
		{"version", class + "method a 1 1@2 void()\n", `line 5: "2" is not a version`},
		{"moving slot", class + "method a 1 1,2@2.1 void()\n", "line 5: a has several numbers within major 2"},
		{"falling steps", top + "class K n::K\nlength 4 6@2.3,7@2.1\n", "line 4:"},
		{"shrinks", top + "class K n::K\nlength 4 6,5@2.1\n", "line 4: the vtable of K shrinks"},
		{"beyond", class + "method a 4 1 void()\n", "line 5: K::a has slot 4 in major 1"},
		{"too early", class + "method a 1 5 void()\n", "line 5: K::a has slot 5 in major 2, but the vtable has 4 slots"},
		{"shared", class + "method a 1 1 void()\nmethod b 1 2 void()\n", "line 6: K::b and a share slot 1 in major 1"},
		{"twice", class + "method a 1 1 void()\nmethod a 2 2 void()\n", "line 6: K a again (line 5)"},
		{"class twice", class + "class K n::K\n", "line 5: class K again (line 3)"},
		{"C++ name", top + "class K n::K;exit(1)\n", "line 3: class takes a name and a C++ name"},
		{"overload", class + "method a 1 1 void()\noverload int);evil(\n", "line 6: overload takes"},
		{"value with a minimum", top + "enum E n::E\nvalue k 1 1@2.1\n", "line 4: value has no minimum version"},
		{"field", top + "struct S n::S\nsize 8 8\nfield f 0 8\n", "line 5: field f begins at 8 of 8 bytes"},
		{"long line", top + strings.Repeat("x", maxLine+1), "line 3: 401 bytes"},
		{"many lines", strings.Repeat("\n", maxRows+1), "line 2001: more than 2000 lines"},
		{"large", strings.Repeat(" ", maxBytes+1), "131073 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(c.text))
			if !errors.Is(err, ErrTable) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q on one line", err, c.want)
			}
		})
	}
	if _, err := Parse([]byte(class + "method a 1 5@2.1 void()\n")); err != nil {
		t.Errorf("a slot that its first version has: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(read(f, "testdata/abi.txt"))
	f.Add([]byte("majors 1\nheader A.h\nclass K n::K\nlength 1@1.2,3@1.4\nmethod a 0 struct9(ptr)\n"))
	f.Add([]byte("majors 8 10\nheader A.h\nstruct Dims n::D\nsize 36 72\nfield d 4 8\nitem d 4 8\nfunction f - i32(ptr)\n"))
	f.Add([]byte("majors 1\nheader A.h\nclass K n::K\nlength 9\npublic n::P m 1\ninfo K/1/0\nmethod a 2 void()\noverload int, n::E const&\nenum E n::K::E\nvalue k 3\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tab, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrTable) || !strings.Contains(err.Error(), ": ") {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		there := map[string]bool{}
		for _, h := range tab.headers() {
			there[h] = true
		}
		// What was accepted has to be good for both of its uses.
		if len(tab.Header()) == 0 || tab.probe(there) == "" {
			t.Fatal("nothing made from a table that was accepted")
		}
	})
}

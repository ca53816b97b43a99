// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	tool(t, "g++")
	for _, c := range []struct {
		version string
		slots   int
		absent  int
		missing string
	}{{"1.0", 8, 4, "ZooGate.h"}, {"1.2", 8, 3, "ZooGate.h"}, {"2.0", 11, 0, ""}} {
		t.Run(c.version, func(t *testing.T) {
			t.Parallel()
			r, err := Verify(t.Context(), parse(t, "testdata/abi.txt"), filepath.Join("testdata", c.version))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			r.Write(&out)
			if len(r.Differences) > 0 || r.Version.String() != c.version || r.Checked["slot"] != c.slots || r.Absent != c.absent || strings.Join(r.Missing, " ") != c.missing {
				t.Errorf("%+v\n%s", r, &out)
			}
			if strings.Count(out.String(), "\n") != 1 || c.missing != "" && !strings.Contains(out.String(), "not checked, because it is not there: "+c.missing) {
				t.Errorf("said %q", &out)
			}
		})
	}
}

// TestPlantedFaults changes each number and each call of the table, one at a time: the
// prover has to name that one and no other.
func TestPlantedFaults(t *testing.T) {
	t.Parallel()
	tool(t, "g++")
	for _, version := range []string{"1.0", "1.2", "2.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			tab := parse(t, "testdata/abi.txt")
			r, got, there, i := look(t, tab, filepath.Join("testdata", version))
			n := 0
			expect := func(kind, name string) {
				t.Helper()
				n++
				w := &Report{Version: r.Version, Checked: map[string]int{}}
				if err := tab.compare(w, got, there, i); err != nil {
					t.Fatal(err)
				}
				for _, d := range w.Differences {
					if d.Kind+" "+d.Name == kind+" "+name && len(w.Differences) <= 2 { // a slot that goes takes its call along
						return
					}
				}
				t.Errorf("%s %s was changed; the prover says %+v", kind, name, w.Differences)
			}
			plant := func(row Row, kind, name string) {
				old := row.Cells[i]
				n, ok := old.At(r.Version)
				for _, c := range []Cell{{{N: n + 1}}, {{N: n, Since: r.Version + 1}}, {{N: n}}} {
					if _, has := c.At(r.Version); has == ok && (!ok || c[0].N == n) {
						continue // that is no fault
					}
					row.Cells[i] = c
					expect(kind, name)
				}
				row.Cells[i] = old
			}
			for _, c := range tab.Classes {
				if !there[c.Header] {
					continue
				}
				for _, m := range c.Methods {
					plant(m.Row, "slot", c.Name+"::"+m.Name)
					if m.Calls[i] != "" && m.Name != "delete" && m.Cells[i].Since() <= r.Version {
						old := m.Calls[i]
						m.Calls[i] = strings.Replace(old, "(", "(u8,", 1)
						expect("call", c.Name+"::"+m.Name)
						m.Calls[i] = old
					}
				}
				if c.Public != "" {
					plant(c.Delete, "public", c.Name)
				}
				if c.Info != nil {
					old := c.Info[i]
					c.Info[i] = "Another/1/0"
					expect("info", c.Name)
					c.Info[i] = old
				}
				if c.Length.Cells[i] != nil {
					plant(c.Length, "length", c.Name)
				}
			}
			for _, g := range tab.Enums {
				for _, v := range g.Items {
					plant(v, "value", g.Name+"::"+v.Name)
				}
			}
			for _, g := range tab.Structs {
				plant(g.Size, "size", g.Name)
				for _, f := range g.Items {
					plant(f, "field", g.Name+"::"+f.Name)
				}
				for _, f := range g.Widths {
					plant(f, "item", g.Name+"::"+f.Name)
				}
			}
			for _, f := range tab.Functions {
				old := f.Calls[i]
				f.Calls[i] = "void()"
				expect("function", f.Name)
				f.Calls[i] = old
			}
			if n < 40 {
				t.Errorf("only %d faults were planted", n)
			}
		})
	}
}

// look asks the headers once, for many comparisons.
func look(t *testing.T, tab *Table, dir string) (*Report, map[string]string, map[string]bool, int) {
	t.Helper()
	there := map[string]bool{}
	for _, h := range tab.headers() {
		_, err := os.Stat(filepath.Join(dir, h))
		there[h] = err == nil
	}
	out, err := run(t.Context(), tab.probe(there), dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readProbe(out)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(t.Context(), tab, dir)
	if err != nil || len(r.Differences) > 0 {
		t.Fatalf("before any fault: %+v, %v", r, err)
	}
	return r, got, there, tab.column(int(r.Version) / 10000)
}

// TestShiftedText is the whole way, from a changed text to what is printed.
func TestShiftedText(t *testing.T) {
	t.Parallel()
	tool(t, "g++")
	text := strings.Replace(string(read(t, "testdata/abi.txt")), "method colour               3       5 ", "method colour               3       3 ", 1)
	tab, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(t.Context(), tab, "testdata/2.0")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r.Write(&out)
	if len(r.Differences) != 1 || !strings.Contains(out.String(), "Keeper::colour") || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("said:\n%s", &out)
	}
}

func TestVerifyErrors(t *testing.T) {
	t.Parallel()
	tool(t, "g++")
	tab := parse(t, "testdata/abi.txt")
	broken, unknown := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{
		broken:  "this is no header\n",
		unknown: strings.Replace(string(read(t, "testdata/2.0/Zoo.h")), "MAJOR 2", "MAJOR 3", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, "Zoo.h"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "zoo.h"), read(t, "testdata/zoo.h"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ dir, want string }{
		{t.TempDir(), "has no Zoo.h; give the folder that holds it"},
		{broken, "does not compile against"},
		{unknown, "is version 3.0, and the table has no column for that major"},
	} {
		_, err := Verify(t.Context(), tab, c.dir)
		if !errors.Is(err, ErrHeaders) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q on one line", err, c.want)
		}
	}
}

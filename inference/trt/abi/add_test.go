// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"strings"
	"testing"
)

// TestAddMajor: the new column is the last one again, and nothing else changes.
func TestAddMajor(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"abi.txt", "testdata/abi.txt"} {
		old := parse(t, path)
		last := len(old.Majors) - 1
		text, err := AddMajor(read(t, path), 20)
		if err != nil {
			t.Fatal(err)
		}
		tab, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if tab.Majors[last+1] != 20 || strings.Count(string(text), "#") != strings.Count(string(read(t, path)), "#") {
			t.Errorf("%s: majors %v, or a comment was lost", path, tab.Majors)
		}
		for k, c := range tab.Classes {
			for i, m := range c.Methods {
				was := old.Classes[k].Methods[i]
				if m.Cells[last+1].Last() != was.Cells[last].Last() || m.Cells[0].Since() != was.Cells[0].Since() || m.Cells[last].Last() != was.Cells[last].Last() {
					t.Errorf("%s::%s: %v, was %v", c.Name, m.Name, m.Cells, was.Cells)
				}
				if m.Calls[last+1] != was.Calls[last] || m.Calls[0] != was.Calls[0] || m.Overload != was.Overload {
					t.Errorf("%s::%s: %q, was %q", c.Name, m.Name, m.Calls, was.Calls)
				}
			}
			if c.Length.Cells[last+1].Last() != old.Classes[k].Length.Cells[last].Last() {
				t.Errorf("%s: %v", c.Name, c.Length.Cells)
			}
		}
		for k, f := range tab.Functions {
			if f.Calls[last+1] != old.Functions[k].Calls[last] || f.Calls[0] != old.Functions[k].Calls[0] {
				t.Errorf("%s: %q, was %q", f.Name, f.Calls, old.Functions[k].Calls)
			}
		}
		if path == "abi.txt" && len(tab.Header()) <= len(old.Header()) {
			t.Error("the C table did not grow")
		}
	}
	for _, bad := range []int{1, 2, 100} {
		if _, err := AddMajor(read(t, "testdata/abi.txt"), bad); err == nil {
			t.Errorf("major %d after 2 is taken", bad)
		}
	}
}

// TestFindsNewMajor: the way a new column is made. Version 2 of the small library is
// first taken to be like 1, and the prover lists what is not.
func TestFindsNewMajor(t *testing.T) {
	t.Parallel()
	tool(t, "g++")
	text, err := AddMajor([]byte("majors 1\nheader Zoo.h\nclass Keeper zoo::inner::VKeeper\nlength 6,7@1.2\npublic zoo::Keeper mImpl 1\n"+
		"method feed 2 i32(ptr,u64)\noverload void const*, std::size_t\nmethod colour 3 i32(ptr)\nmethod move 5 void(struct20)\n"), 2)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(t.Context(), tab, "testdata/2.0")
	if err != nil {
		t.Fatal(err)
	}
	// What has to be typed in is the headers' side.
	want := map[string]string{"length Keeper": "9", "slot Keeper::feed": "4", "slot Keeper::colour": "5", "slot Keeper::move": "7", "call Keeper::move": "void(ptr)"}
	for _, d := range r.Differences {
		if want[d.Kind+" "+d.Name] != d.Headers {
			t.Errorf("%+v", d)
		}
		delete(want, d.Kind+" "+d.Name)
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", want)
	}
}

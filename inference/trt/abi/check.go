// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"slices"
	"strings"
)

// check holds the table to the rules that need no header.
func (t *Table) check() error {
	for _, c := range t.Classes {
		if c.Length.Cells == nil {
			return lineError(c.Line, "class %s has no length row", c.Name)
		}
		for i, major := range t.Majors {
			if err := c.check(i, major); err != nil {
				return err
			}
		}
	}
	for _, g := range t.Structs {
		if g.Size.Cells == nil {
			return lineError(g.Line, "struct %s has no size row", g.Name)
		}
		for _, f := range g.Items {
			for i := range t.Majors {
				if f.Cells[i].Last() >= 0 && f.Cells[i].Last() >= g.Size.Cells[i].Last() {
					return lineError(f.Line, "field %s begins at %d of %d bytes in major %d", f.Name, f.Cells[i].Last(), g.Size.Cells[i].Last(), t.Majors[i])
				}
			}
		}
	}
	return nil
}

// check of a class in one major: lengths grow, each slot is within the vtable of the
// first version that has the method, and is the method's own.
func (c *Class) check(i, major int) error {
	steps := c.Length.Cells[i]
	for k := 1; k < len(steps); k++ {
		if steps[k].N < steps[k-1].N {
			return lineError(c.Length.Line, "the vtable of %s shrinks within major %d", c.Name, major)
		}
	}
	owner := map[int]string{}
	for _, m := range c.Methods {
		cell := m.Cells[i]
		if cell == nil {
			continue
		}
		first := max(cell.Since(), Version(major)*10000)
		length, ok := steps.At(first)
		if !ok && len(steps) > 0 { // the class itself came later in this major
			length = steps[0].N
		}
		if cell.Last() >= length {
			return lineError(m.Line, "%s::%s has slot %d in major %d, but the vtable has %d slots there", c.Name, m.Name, cell.Last(), major, length)
		}
		if other := owner[cell.Last()]; other != "" {
			return lineError(m.Line, "%s::%s and %s share slot %d in major %d", c.Name, m.Name, other, cell.Last(), major)
		}
		owner[cell.Last()] = m.Name
	}
	return nil
}

func slicesAny(cells []Cell, f func(Cell) bool) bool { return slices.ContainsFunc(cells, f) }

func identifier(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// qualified tells a C++ name with its namespaces. It goes into a program, so
// nothing else may be in it.
func qualified(s string) bool {
	for _, part := range strings.Split(s, "::") {
		if !identifier(part) {
			return false
		}
	}
	return true
}

func headerName(s string) bool {
	base, ok := strings.CutSuffix(s, ".h")
	return ok && identifier(base)
}

// cppTypes tells a list of parameter types, which goes into a program as well.
func cppTypes(s string) bool {
	for _, r := range s {
		if !strings.ContainsRune(" ,:*&_", r) && !identifier("x"+string(r)) {
			return false
		}
	}
	return true
}

// infoCell tells Kind/1/0.
func infoCell(s string) bool {
	f := strings.Split(s, "/")
	return len(f) == 3 && identifier(f[0]) && digits(f[1]) && digits(f[2])
}

func digits(s string) bool {
	return s != "" && len(s) < 4 && strings.Trim(s, "0123456789") == ""
}

// callCell tells bool(ptr,i32): what a call takes besides the object, as the machine
// sees it. Enumerations are their integers, pointers and references are ptr, structs
// passed by value structN with their bytes.
func callCell(s string) bool {
	ret, args, ok := strings.Cut(s, "(")
	if !ok || !strings.HasSuffix(args, ")") || ret != "void" && !callType(ret) {
		return false
	}
	args = strings.TrimSuffix(args, ")")
	if args == "" {
		return true
	}
	for _, a := range strings.Split(args, ",") {
		if !callType(a) {
			return false
		}
	}
	return true
}

func callType(s string) bool {
	if n, ok := strings.CutPrefix(s, "struct"); ok {
		return digits(n)
	}
	return slices.Contains([]string{"ptr", "bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"}, s)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"fmt"
	"strings"
)

// Header gives the C table.
func (t *Table) Header() []byte {
	h := header{t: t}
	h.line("// Copyright (c) The Fulmar Authors")
	h.line("// SPDX-License-Identifier: Apache-2.0")
	h.line("")
	h.line("// Code generated from abi/abi.txt by abi/cmd/trtabi. DO NOT EDIT.")
	h.line("//")
	h.line("// Slots of vtables, numbers of enumerations and bytes of structs of TensorRT, for")
	h.line("// each major version. -1: not in this major. docs/tensorrt-abi.md says more.")
	h.line("#ifndef FULMAR_TRT_TABLES_H")
	h.line("#define FULMAR_TRT_TABLES_H")
	h.line("#include <stdint.h>")
	h.line("")
	var majors []string
	for _, m := range t.Majors {
		majors = append(majors, fmt.Sprintf("FL_M%d", m))
	}
	h.line("enum { %s, FL_MAJORS };", strings.Join(majors, ", "))
	h.classes()
	h.methods()
	h.values()
	h.structs()
	h.line("#endif")
	return []byte(h.b.String())
}

type header struct {
	t *Table
	b strings.Builder
}

func (h *header) line(format string, args ...any) {
	fmt.Fprintf(&h.b, format, args...)
	h.b.WriteByte('\n')
}

// list writes the body of an initialiser or an enum, several to a line.
func (h *header) list(indent string, items []string) {
	line := indent
	for _, s := range items {
		if len(line)+len(s) > 110 {
			h.line("%s", strings.TrimRight(line, " "))
			line = indent
		}
		line += s + ", "
	}
	h.line("%s", strings.TrimRight(line, " "))
}

func (h *header) enum(name string, items []string, last string) {
	h.line("enum %s {", name)
	h.list("\t", append(items, last))
	h.line("};")
}

func (h *header) strings(decl string, items []string) {
	h.line("static const char *const %s = {", decl)
	var quoted []string
	for _, s := range items {
		quoted = append(quoted, fmt.Sprintf("%q", s))
	}
	h.list("\t", quoted)
	h.line("};")
}

// grid writes a number for each major and row.
func (h *header) grid(decl string, rows []Row, pick func(Cell) int) {
	h.line("static const %s = {", decl)
	for i, m := range h.t.Majors {
		var out []string
		for _, r := range rows {
			out = append(out, fmt.Sprint(pick(r.at(i))))
		}
		h.line("\t[FL_M%d] = {", m)
		h.list("\t\t", out)
		h.line("\t},")
	}
	h.line("};")
}

// at gives the cell of a column; a row that was not given has none.
func (r Row) at(i int) Cell {
	if i >= len(r.Cells) {
		return nil
	}
	return r.Cells[i]
}

func (h *header) classes() {
	var ids, names []string
	var lengths, deletes []Row
	for _, c := range h.t.Classes {
		ids, names = append(ids, "FL_C_"+c.Name), append(names, c.Name)
		lengths, deletes = append(lengths, c.Length), append(deletes, c.Delete)
	}
	h.line("")
	h.line("// The classes: implementations (the second word of a public object points to one), the")
	h.line("// parser's interfaces, and those that we make and the library calls.")
	h.enum("fl_class", ids, "FL_CLASSES")
	h.strings("fl_class_names[FL_CLASSES]", names)
	h.line("// How many slots a class's vtable has, in the newest minor version that was looked at.")
	h.grid("int16_t fl_vtable_sizes[FL_MAJORS][FL_CLASSES]", lengths, Cell.Last)
	h.line("// Slot of the deleting destructor in the vtable of the public object (its first word);")
	h.line("// -1: no public object, or not for a caller to delete.")
	h.grid("int16_t fl_public_delete[FL_MAJORS][FL_CLASSES]", deletes, Cell.Last)
	h.line("// What getInterfaceInfo of the classes that we make has to return: kind, major, minor.")
	for _, c := range h.t.Classes {
		for i, s := range c.Info {
			if s != "" {
				h.line("// %d: %s %s", h.t.Majors[i], c.Name, strings.ReplaceAll(s, "/", " "))
			}
		}
	}
}

func (h *header) methods() {
	var ids, names, owners, notes []string
	var rows []Row
	for _, c := range h.t.Classes {
		for _, m := range c.Methods {
			ids, names = append(ids, "FL_"+c.Name+"_"+m.Name), append(names, c.Name+"::"+m.Name)
			owners, rows = append(owners, "FL_C_"+c.Name), append(rows, m.Row)
			if note := h.differs(m); note != "" {
				notes = append(notes, c.Name+"::"+m.Name+" "+note)
			}
		}
	}
	h.line("")
	h.line("// The methods. Methods that are called differently in different majors:")
	for _, n := range notes {
		h.line("//   %s", n)
	}
	h.enum("fl_method", ids, "FL_METHODS")
	h.strings("fl_method_names[FL_METHODS]", names)
	h.line("static const int16_t fl_method_class[FL_METHODS] = {")
	h.list("\t", owners)
	h.line("};")
	h.grid("int16_t fl_slots[FL_MAJORS][FL_METHODS]", rows, Cell.Last)
	h.line("// The least version that has it, major*10000 + minor*100 + patch; 0: all of the major that we take.")
	h.grid("int32_t fl_since[FL_MAJORS][FL_METHODS]", rows, func(c Cell) int { return int(c.Since()) })
}

// differs says how a method is called where majors do not agree.
func (h *header) differs(m Method) string {
	var out []string
	calls := map[string]bool{}
	for i, c := range m.Calls {
		if c != "" {
			calls[c] = true
			out = append(out, fmt.Sprintf("%d: %s", h.t.Majors[i], c))
		}
	}
	if len(calls) < 2 {
		return ""
	}
	return strings.Join(out, "  ")
}

func (h *header) values() {
	var ids []string
	var rows []Row
	for _, g := range h.t.Enums {
		for _, v := range g.Items {
			ids, rows = append(ids, "FL_"+g.Name+"_"+v.Name), append(rows, v)
		}
	}
	h.line("")
	h.enum("fl_value", ids, "FL_VALUES")
	h.grid("int32_t fl_values[FL_MAJORS][FL_VALUES]", rows, Cell.Last)
}

func (h *header) structs() {
	var ids []string
	var sizes []Row
	for _, g := range h.t.Structs {
		ids, sizes = append(ids, "FL_S_"+g.Name), append(sizes, g.Size)
	}
	h.line("")
	h.line("// Structs that are passed by value, and their bytes.")
	h.enum("fl_struct", ids, "FL_STRUCTS")
	h.grid("int16_t fl_struct_sizes[FL_MAJORS][FL_STRUCTS]", sizes, Cell.Last)
	for _, g := range h.t.Structs {
		for i, m := range h.t.Majors {
			var out []string
			for _, f := range g.Items {
				if f.Cells[i] != nil {
					out = append(out, fmt.Sprintf("%s at %d", f.Name, f.Cells[i].Last()))
				}
			}
			if len(out) > 0 {
				h.line("// %d: %s has %s", m, g.Name, strings.Join(out, ", "))
			}
		}
	}
	h.line("// Bits of one element of Dims::d.")
	var bits []string
	for i := range h.t.Majors {
		bits = append(bits, fmt.Sprint(8*h.t.width("Dims", "d", i)))
	}
	h.line("static const int16_t fl_dims_bits[FL_MAJORS] = {%s};", strings.Join(bits, ", "))
}

// width gives the bytes of one element of a field, 0 if the table does not say.
func (t *Table) width(name, field string, i int) int {
	for _, g := range t.Structs {
		for _, w := range g.Widths {
			if g.Name == name && w.Name == field {
				return max(0, w.Cells[i].Last())
			}
		}
	}
	return 0
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import "fmt"

// Version is a version of the library: major*10000 + minor*100 + patch.
type Version int32

// String gives 10.3, or 10.3.1 where there is a patch level.
func (v Version) String() string {
	if v%100 == 0 {
		return fmt.Sprintf("%d.%d", v/10000, v/100%100)
	}
	return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
}

// Step is a number that holds from a version of its major on; 0 is all of the major.
type Step struct {
	N     int
	Since Version
}

// Cell is what one major has: nothing, a number, or a number for each range of
// minor versions (a vtable grows at its end).
type Cell []Step

// At gives the number that holds for a version.
func (c Cell) At(v Version) (n int, ok bool) {
	for _, s := range c {
		if v >= s.Since {
			n, ok = s.N, true
		}
	}
	return n, ok
}

// Last is the number of the newest versions, -1 if the major has none.
func (c Cell) Last() int {
	if len(c) == 0 {
		return -1
	}
	return c[len(c)-1].N
}

// Since is the least version that has it, 0 if all of the major or none has.
func (c Cell) Since() Version {
	if len(c) == 0 {
		return 0
	}
	return c[0].Since
}

// Row is a name with a cell for each major.
type Row struct {
	Name  string
	Line  int
	Cells []Cell
}

// Method is a row of slots, with how it is called.
type Method struct {
	Row
	// Calls has one entry for each major, like bool(ptr,i32); "" where it is absent.
	Calls []string
	// Overload are the C++ parameter types that pick one of several of that name.
	Overload string
}

// Class is an interface of the library.
type Class struct {
	Name, CPP, Header string
	Line              int
	Length            Row      // slots of the vtable
	Info              []string // what getInterfaceInfo says, Kind/1/0, for each major
	Public            string   // the class a program sees
	Member            string   // its second word, which points to this class
	Delete            Row      // slot of the deleting destructor of Public
	Methods           []Method
}

// Group is an enumeration with its values, or a struct with its fields.
type Group struct {
	Name, CPP, Header string
	Line              int
	Size              Row // structs only
	Items             []Row
	Widths            []Row // structs only: bytes of one element of a field that is an array
}

// Function is a C function that the library exports.
type Function struct {
	Name, Header string
	Line         int
	Calls        []string
}

// Table is the whole of abi.txt.
type Table struct {
	Majors    []int
	Classes   []*Class
	Enums     []*Group
	Structs   []*Group
	Functions []Function
}

// column gives the index of a major, -1 if the table does not have it.
func (t *Table) column(major int) int {
	for i, m := range t.Majors {
		if m == major {
			return i
		}
	}
	return -1
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trttest

import (
	"fmt"
	"os"
	"path/filepath"

	"fulmar/inference/trt/abi"
)

// Methods are the methods of the table that a major version has, "Class::method": what
// SHIFT may name. Without the table it panics, so that a test over all of them cannot pass
// over none.
func Methods(major int) []string {
	dir, err := root()
	if err != nil {
		panic(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "inference", "trt", "abi", "abi.txt"))
	if err != nil {
		panic(fmt.Sprintf("the table of methods cannot be read: %v", err))
	}
	table, err := abi.Parse(text)
	if err != nil {
		panic(err)
	}
	var all []string
	for column, m := range table.Majors {
		if m != major {
			continue
		}
		for _, c := range table.Classes {
			for _, method := range c.Methods {
				if method.Cells[column].Last() >= 0 {
					all = append(all, c.Name+"::"+method.Name)
				}
			}
		}
	}
	if len(all) == 0 {
		panic(fmt.Sprintf("the table has no major %d", major))
	}
	return all
}

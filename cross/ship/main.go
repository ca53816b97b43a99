// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command ship holds the built programs to what a board needs, and writes what has to
// go with them. The script cross/build calls it after the compiler:
//
//	ship static ARCH FILE...    each file is of ARCH and needs no library at all
//	ship bounds ARCH FILE...    each file is of ARCH and starts on JetPack 5
//	ship licences ONNX DIR...   the licence texts of all that DIRs link, to stdout;
//	                            ONNX is the folder with the texts of ONNX Runtime
//	ship sbom NAME LIBRARY VERSION <RAW    a bill of materials made the same each time;
//	                            with LIBRARY it names ONNX Runtime too ("" for none)
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ship:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: ship static|bounds ARCH FILE..., ship licences ONNX PROGRAM..., ship sbom NAME LIBRARY VERSION")
	}
	switch verb, first, rest := args[0], args[1], args[2:]; verb {
	case "static":
		return each(rest, func(path string) error { return static(path, first) })
	case "bounds":
		return each(rest, func(path string) error { return bounds(path, first) })
	case "licences":
		return licences(out, first, rest)
	case "sbom":
		if len(rest) != 2 {
			return fmt.Errorf("usage: ship sbom NAME LIBRARY VERSION")
		}
		return sbom(in, out, first, rest[0], rest[1])
	default:
		return fmt.Errorf("there is no %q here", verb)
	}
}

func each(paths []string, check func(string) error) error {
	for _, p := range paths {
		if err := check(p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Trtabi makes the C table of the TensorRT bridge from the reviewed one, and holds
// the reviewed one against real headers:
//
//	trtabi header abi.txt tables.h
//	trtabi verify abi.txt DIR...
package main

import (
	"fmt"
	"io"
	"os"

	"fulmar/inference/trt/abi"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 3 {
		return fmt.Errorf("say: trtabi header abi.txt tables.h, or trtabi verify abi.txt DIR...")
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return fmt.Errorf("the table of TensorRT: %w", err)
	}
	t, err := abi.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", args[1], err)
	}
	switch args[0] {
	case "header":
		return os.WriteFile(args[2], t.Header(), 0o644)
	}
	return fmt.Errorf("trtabi knows header and verify, not %q", args[0])
}

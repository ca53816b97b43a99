// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Trtabi makes the C table of the TensorRT bridge from the reviewed one, and holds
// the reviewed one against real headers; a column for a new major begins as a copy of
// the last one:
//
//	trtabi header abi.txt tables.h
//	trtabi verify abi.txt DIR...
//	trtabi add abi.txt 12
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

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
		return errors.New("trtabi takes: header abi.txt tables.h, or verify abi.txt and folders with headers, or add abi.txt and a major")
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
	case "verify":
		return verify(t, args[2:], out)
	case "add":
		major, err := strconv.Atoi(args[2])
		if err != nil {
			return fmt.Errorf("a major is a number, not %q", args[2])
		}
		if text, err = abi.AddMajor(text, major); err != nil {
			return fmt.Errorf("%s with major %d: %w", args[1], major, err)
		}
		return os.WriteFile(args[1], text, 0o644)
	}
	return fmt.Errorf("trtabi knows header, verify and add, not %q", args[0])
}

// verify looks at each folder, also after one that differs.
func verify(t *abi.Table, dirs []string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	different := 0
	for _, dir := range dirs {
		r, err := abi.Verify(ctx, t, dir)
		if err != nil {
			return err
		}
		r.Write(out)
		if len(r.Differences) > 0 {
			different++
		}
	}
	if different > 0 {
		return fmt.Errorf("%d of %d versions differ from the table", different, len(dirs))
	}
	return nil
}

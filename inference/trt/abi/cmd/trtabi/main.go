// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Trtabi makes the C table of the TensorRT bridge from the reviewed one, and holds
// the reviewed one against real headers:
//
//	trtabi header abi.txt tables.h
//	trtabi verify abi.txt DIR...
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
		return errors.New("trtabi takes: header abi.txt tables.h, or: verify abi.txt and folders with headers")
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
	}
	return fmt.Errorf("trtabi knows header and verify, not %q", args[0])
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

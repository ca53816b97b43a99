// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// check loads a model package as the worker would and says what it is.
func check(ctx context.Context, o options, args []string, stdout io.Writer) (err error) {
	path, variant := args[0], ""
	if len(args) > 1 {
		variant = args[1]
	}
	e := &onnx{library: o.library}
	start := time.Now()
	d, err := e.detector(ctx, path, variant, runtime.NumCPU())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	i := d.Info()
	for _, l := range [][2]string{
		{"model", i.Name + "@" + i.Version},
		{"variant", i.Variant},
		{"engine", i.Engine + ", " + e.version()},
		{"sha256", i.SHA256},
		{"input", fmt.Sprintf("%d x %d", i.Width, i.Height)},
		{"labels", strings.Join(d.Labels(), ", ")},
		{"golden", fmt.Sprintf("%d pictures give what they should", i.Golden)},
		{"loaded in", time.Since(start).Round(time.Millisecond).String()},
	} {
		if _, err := fmt.Fprintf(stdout, "%-9s  %s\n", l[0], l[1]); err != nil {
			return err
		}
	}
	return nil
}

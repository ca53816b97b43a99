// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar-infer is the inference worker of a board: it looks at cameras with
// models, as fulmard tells it over a socket, and says what it sees.
//
//	fulmar-infer --socket PATH            serve fulmard
//	fulmar-infer model check DIR          say what a model package is and whether it
//	                                      finds what it should
//	fulmar-infer version
//
// ONNX Runtime is looked for at --ort, in $FULMAR_ORT, beside the program and in the
// system's library folders. Without it the worker runs and refuses models, with the
// reason.
//
// Exit codes: 0 ended in order, 1 an error that stands on standard error, 2 wrong
// usage.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// release is set by the linker.
var release = "dev"

const usage = `usage:
  fulmar-infer --socket PATH [--ort LIBRARY] [--log LEVEL] [--child]
  fulmar-infer [--ort LIBRARY] model check DIR|builtin:parcels [VARIANT]
  fulmar-infer version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(infer(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func infer(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("fulmar-infer", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	var o options
	fs.StringVar(&o.socket, "socket", "", "where to listen for fulmard; not needed under socket activation")
	fs.StringVar(&o.library, "ort", os.Getenv("FULMAR_ORT"), "path of libonnxruntime.so.1")
	fs.TextVar(&o.level, "log", o.level, "least level of log lines: debug, info, warn, error")
	fs.BoolVar(&o.child, "child", false, "end when standard input ends: fulmard started us")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	var err error
	switch args = fs.Args(); {
	case len(args) == 0:
		err = serve(ctx, o, stdin, stderr)
	case len(args) == 1 && args[0] == "version":
		fmt.Fprintln(stdout, "fulmar-infer", release)
	case (len(args) == 3 || len(args) == 4) && args[0] == "model" && args[1] == "check":
		err = check(ctx, o, args[2:], stdout)
	default:
		fs.Usage()
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "fulmar-infer:", err)
		return 1
	}
	return 0
}

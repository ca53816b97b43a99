// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar-infer is the inference worker of a board: it looks at cameras with
// models, as fulmard tells it over a socket, and says what it sees.
//
//	fulmar-infer --socket PATH            serve fulmard
//	fulmar-infer model check DIR          say what a model package is and whether it
//	                                      finds what it should
//	fulmar-infer model build DIR          build its TensorRT engine for this board
//	fulmar-infer model serve-build        build what a worker asks for on standard input,
//	                                      as fulmar-build@.service does
//	fulmar-infer doctor                   say what was found, what is chosen, and what
//	                                      to do about what is missing
//	fulmar-infer version
//
// ONNX Runtime is looked for at --ort, in $FULMAR_ORT, beside the program and in the
// system's library folders; TensorRT in the folders of --trt or $FULMAR_TRT, else
// where JetPack and packages put it. Without either the worker runs and refuses
// models, with the reason.
//
// Exit codes: 0 ended in order, 1 an error that stands on standard error (doctor: no
// model can run here), 2 wrong usage, 5 the GPU was lost and a new process is needed.
// Of model build also: 3 the model or its network is refused, 4 no TensorRT, parser or
// driver, 6 not enough memory, 7 the disk is full, 8 cancelled, 9 the engine is larger
// than the cache may be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"fulmar/inference"
	"fulmar/inference/worker"
)

// release is set by the linker.
var release = "dev"

const usage = `usage:
  fulmar-infer --socket PATH [--ort LIBRARY] [--trt FOLDERS] [--log LEVEL] [--child]
               [--client USER] [--builds SOCKET] [--alone DURATION]
  fulmar-infer [--ort LIBRARY] model check DIR|builtin:parcels [VARIANT]
  fulmar-infer [--trt FOLDERS] model build [--cache FOLDER] [--quota BYTES] [--batch N]
               [--level N] [--dla CORE] [--memory MIB] [--progress auto|json|line]
               [--anew] DIR|builtin:parcels [VARIANT]
  fulmar-infer [--trt FOLDERS] model serve-build
  fulmar-infer [--ort LIBRARY] [--trt FOLDERS] doctor [--cache FOLDER] [--json]
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
	fs.StringVar(&o.tensorrt, "trt", os.Getenv("FULMAR_TRT"), "folders of TensorRT's libraries, with : between them")
	fs.TextVar(&o.level, "log", o.level, "least level of log lines: debug, info, warn, error")
	fs.BoolVar(&o.child, "child", false, "end when standard input ends: fulmard started us")
	fs.StringVar(&o.client, "client", "", "name or number of the user that fulmard runs as, if it is another")
	fs.StringVar(&o.builds, "builds", "", "socket where engine builds are asked for; empty builds in a child")
	fs.DurationVar(&o.alone, "alone", 0, "end after there was no fulmard for so long; 0 never ends")
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
	case len(args) >= 2 && args[0] == "model" && args[1] == "build":
		err = buildEngine(ctx, o, args[2:], stdin, stdout, stderr)
	case len(args) == 2 && args[0] == "model" && args[1] == "serve-build":
		err = serveBuild(ctx, o, os.Stdin, stderr)
	case len(args) >= 1 && args[0] == "doctor":
		err = doctor(o, args[1:], stdout, stderr)
	default:
		err = errUsage
	}
	var coded *codedError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fs.Usage()
		return 2
	case errors.Is(err, errNothingRuns):
		return 1 // what is wrong was said
	case errors.As(err, &coded):
		fmt.Fprintln(stderr, "fulmar-infer:", err)
		return coded.code
	}
	fmt.Fprintln(stderr, "fulmar-infer:", err)
	if errors.Is(err, inference.ErrDeviceLost) {
		return worker.ExitDeviceLost
	}
	return 1
}

var errUsage = errors.New("wrong usage")

// codedError ends the program with a code of its own.
type codedError struct {
	err  error
	code int
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

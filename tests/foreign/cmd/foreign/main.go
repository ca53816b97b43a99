// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command foreign runs a program whose processor may be another one, and its children:
//
//	foreign [-root FOLDER [-layer] [-bind FOLDER]...] PROGRAM ARGUMENT...
//	GOARCH=arm64 go test -exec bin/foreign ./schema
//
// With a root it runs in there, see package foreign. It ends with the program's code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"fulmar/tests/foreign"
)

func main() {
	var room foreign.Room
	flag.StringVar(&room.Root, "root", "", "folder that is the program's /")
	flag.BoolVar(&room.Layer, "layer", false, "throw away what it changes in there")
	flag.Func("bind", "folder to be seen in there under the same path; may be given again", func(dir string) error {
		room.Binds = append(room.Binds, dir)
		return nil
	})
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: foreign [-root FOLDER [-layer] [-bind FOLDER]...] PROGRAM ARGUMENT...")
		os.Exit(2)
	}
	err := foreign.Check()
	if err == nil {
		cmd := room.Command(context.Background(), flag.Arg(0), flag.Args()[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err = run(cmd)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "foreign:", err)
		os.Exit(1)
	}
}

// run hands on the signals that ask a program to end.
func run(cmd *exec.Cmd) error {
	runtime.LockOSThread() // the child dies with the thread that started it
	if err := cmd.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	return cmd.Wait()
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"fulmar/cmd/fulmar/doctor"
	"fulmar/cmd/fulmar/enrol"
)

// exitWaiting: a person has to let the board in.
const exitWaiting = 21

// examineBoard reads the words of fulmar doctor.
func examineBoard(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("doctor", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var o doctor.Options
	fs.StringVar(&o.Root, "root", "", "")
	fs.StringVar(&o.Config, "config", "", "")
	fs.DurationVar(&o.Timeout, "timeout", 0, "")
	fs.BoolVar(&o.JSON, "json", false, "")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		return fmt.Errorf("%w: fulmar doctor [--json] [--root DIR] [--config FILE] [--timeout 20s]", errUsage)
	}
	return doctor.Run(context.Background(), o, stdout, stderr)
}

// enrolBoard reads the words of fulmar enrol and gives its exit code.
func enrolBoard(args []string, stdout, stderr io.Writer) (int, error) {
	fs := flag.NewFlagSet("enrol", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var o enrol.Options
	fs.StringVar(&o.Board, "board", "", "")
	fs.StringVar(&o.Fleet, "fleet", "", "")
	fs.StringVar(&o.Pin, "pin", "", "")
	fs.StringVar(&o.Config, "config", "", "")
	fs.DurationVar(&o.Timeout, "timeout", 0, "")
	fs.BoolVar(&o.Again, "again", false, "")
	fs.BoolVar(&o.JSON, "json", false, "")
	for rest := args; len(rest) > 0; { // flags before and after the token
		if err := fs.Parse(rest); err != nil {
			return exitUsage, fmt.Errorf("%w: %w", errUsage, err)
		}
		if rest = fs.Args(); len(rest) > 0 {
			if o.Token != "" {
				return exitUsage, fmt.Errorf("%w: enrol takes one token", errUsage)
			}
			o.Token, rest = rest[0], rest[1:]
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := enrol.Run(ctx, o, stdout, stderr)
	switch {
	case err == nil:
		return exitGood, nil
	case errors.Is(err, enrol.ErrUsage):
		return exitUsage, err
	case errors.Is(err, enrol.ErrUnreachable):
		return exitAway, err
	case errors.Is(err, enrol.ErrWaiting):
		return exitWaiting, err
	}
	return exitWrong, err
}

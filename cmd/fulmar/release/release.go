// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package release has the commands of fulmar about releases: what boards may run, cut out of
// folders of files, signed offline, packed for a stick, given to a fleet. All but the last
// work without a network.
package release

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/remote"
	"fulmar/internal/cli"
)

const about = `RELEASE   a folder that fulmar release create made, or a bundle
COMPONENT agent, worker, config, rootfs or model/NAME
KEY       file:PATH, or "exec:PROGRAM ARGUMENTS", an external signer

docs/releases.md goes from the keys to boards that run a release, and back.`

// Command is fulmar release.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "release", Short: "what boards may run: cut, sign, pack, look at, upload", Long: about})
	c.AddCommand(createCommand(), signCommand(), inspectCommand(), verifyCommand(), bundleCommand(), diffCommand())
	f := new(remote.Flags)
	for _, k := range []*cobra.Command{uploadCommand(f), listCommand(f), showCommand(f), removeCommand(f)} {
		f.Register(k)
		c.AddCommand(k)
	}
	return c
}

// interruptible makes a context that Ctrl-C ends: what was begun is cleared away then.
func interruptible(c *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
}

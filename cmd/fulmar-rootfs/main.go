// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar-rootfs writes and switches the root file system of a Jetson, as root and
// for fulmard, which may do nothing of that itself. It belongs to the package alone and
// comes in no slot: whoever took fulmard over could put a program there.
//
//	fulmar-rootfs serve           one call on standard input and output, a socket of systemd's
//	fulmar-rootfs boot            at the start of the board: counts, goes back
//	fulmar-rootfs status [--json] how the two systems stand, and what hinders an update
//	fulmar-rootfs mend            mark the system that does not run as bootable again
//	fulmar-rootfs version
//
// Experimental: no board has seen it yet; its units are not enabled by the package.
// docs/rootfs.md tells what a board needs.
//
// Exit codes: 0 done, 1 an error that stands on standard error, 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"fulmar/internal/disk"
	"fulmar/ota/install/rootfs"
	"fulmar/ota/install/rootfs/nvidia"
)

// release is set by the linker.
var release = "dev"

// stateDir is kept across both systems: it lies on a partition of its own.
const stateDir = "/var/lib/fulmar-rootfs"

const usage = `usage:
  fulmar-rootfs serve
  fulmar-rootfs boot
  fulmar-rootfs status [--json]
  fulmar-rootfs mend
  fulmar-rootfs version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, &nvidia.Board{State: stateDir, Disk: disk.OS{}}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, b *nvidia.Board, args []string, in io.Reader, out, said io.Writer) int {
	word, asJSON := "", false
	if len(args) > 0 {
		word = args[0]
	}
	if len(args) == 2 && word == "status" && args[1] == "--json" {
		asJSON, args = true, args[:1]
	}
	var did string
	var err error
	switch {
	case len(args) != 1:
		word = ""
	case word == "serve":
		if err := b.Serve(ctx, in, out); err != nil { // the caller has been told
			fmt.Fprintln(said, "fulmar-rootfs:", err)
		}
		return 0
	case word == "boot":
		did, err = b.Boot(ctx)
	case word == "status":
		did, err = status(ctx, b, asJSON)
	case word == "mend":
		did, err = b.Mend(ctx)
	case word == "version":
		did = "fulmar-rootfs " + release
	}
	switch {
	case err != nil:
		fmt.Fprintln(said, "fulmar-rootfs:", err)
		return 1
	case did == "":
		fmt.Fprint(said, usage)
		return 2
	}
	fmt.Fprintln(out, did)
	return 0
}

// status tells it to people, or as JSON to programs.
func status(ctx context.Context, b *nvidia.Board, asJSON bool) (string, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return "", err
	}
	if asJSON {
		raw, err := json.MarshalIndent(s, "", "  ")
		return string(raw), err
	}
	return table(&s), nil
}

func table(s *rootfs.Status) string {
	out := ""
	for _, x := range s.Slots {
		word := ""
		if x.Name == s.Current {
			word = ", runs"
			if !s.Proven {
				word = ", runs by the firmware's word, and / is not on its partition"
			}
			if s.Trial != "" && x.Token == s.Trial {
				word += fmt.Sprintf(", on trial, boot %d of %d", s.Boots, nvidia.MaxBoots)
			}
		}
		if x.Name == s.Active && s.Active != s.Current {
			word += ", boots next"
		}
		what := x.Version
		if what == "" {
			what = "version not known"
		}
		out += fmt.Sprintf("slot %s: %s, %s, %d tries left, %s%s\n", x.Name, what, x.Status, x.Retry, x.Device, word)
	}
	if len(s.Obstacles) == 0 {
		return out + "nothing hinders an update"
	}
	out += "an update is hindered:"
	for _, o := range s.Obstacles {
		out += "\n  " + o
	}
	return out
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar-fleet is the fleet's server and its keeper's tools: fulmar-fleet help
// tells them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"fulmar/cmd/fulmar-fleet/commands"
)

// release is set by the linker.
var release = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := commands.Run(ctx, release, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

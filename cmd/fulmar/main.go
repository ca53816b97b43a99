// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar is for the person at a desk: it reads the spool of a board that
// does not run any more, and makes the recovery key with which that is possible
// though the spool is encrypted. It changes nothing that it reads. It tells a fleet
// which boards to let in and which to shut out. On a board it says what models can
// run on, and what its TPM can prove.
//
//	fulmar help       its commands
//	fulmar explain    the codes of its errors
package main

import (
	"context"
	"os"

	"fulmar/cmd/fulmar/commands"
)

// release is set by the linker.
var release = "dev"

func main() {
	os.Exit(commands.Run(context.Background(), release, os.Args[1:], os.Stdout, os.Stderr))
}

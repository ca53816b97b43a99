// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command testprog stands for an agent that is broken. What is wrong with it is set by
// the linker: exits, hangs (never ready), deaf (ready, then no sign of life), and short
// (prints a line and ends well, for times).
package main

import (
	"fmt"
	"os"
	"time"

	"fulmar/internal/sdnotify"
)

// wrong is set by the linker.
var wrong = "short"

func main() {
	switch wrong {
	case "exits":
		fmt.Fprintln(os.Stderr, "this release is broken")
		os.Exit(1)
	case "deaf":
		if n, err := sdnotify.FromEnv(); err == nil {
			_ = n.Ready()
		}
	case "short":
		fmt.Println(os.Args[0])
		return
	}
	time.Sleep(time.Hour)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package here

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Colours of a word that tells how something is.
const (
	Good    = "32" // green
	Warning = "33" // yellow
	Bad     = "31" // red
)

// Painter gives a function that colours a word for w: it does nothing where w is no
// terminal, where TERM is dumb, and where NO_COLOR is set (https://no-color.org).
func Painter(w io.Writer) func(colour, word string) string {
	if !IsTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return func(_, word string) string { return word }
	}
	return func(colour, word string) string { return "\x1b[" + colour + "m" + word + "\x1b[0m" }
}

// plainWidth is the width of what is no terminal, in columns.
const plainWidth = 100

// Width is that of the terminal that w is, in columns; a fixed one for all else.
func Width(w any) int {
	f, ok := w.(*os.File)
	if !ok {
		return plainWidth
	}
	s, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || s.Col == 0 {
		return plainWidth
	}
	return int(s.Col)
}

// IsTerminal tells whether w, or r, is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

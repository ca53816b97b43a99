// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	helpWidth = 80 // columns of a terminal that nobody made wider
	maxOption = 22 // columns of an option, likewise
	maxLine   = 34 // columns of a command in a list; what is longer has its text below it
)

// Help is all that is told of a command: what it is for, how it is called, its
// commands or its options, and examples.
func Help(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nusage:\n  %s\n", c.CommandPath(), c.Short, usageLine(c))
	if c.HasAvailableSubCommands() {
		b.WriteString("\ncommands:\n")
		for _, k := range Commands(c) {
			line := Line(k, c)
			if len(line) > maxLine {
				fmt.Fprintf(&b, "  %s\n", line)
				line = ""
			}
			fmt.Fprintf(&b, "  %-*s%s\n", maxLine+2, line, k.Short)
		}
	}
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if list := Options(c.LocalNonPersistentFlags()); len(list) > 0 {
		b.WriteString("\noptions:\n")
		writeOptions(&b, list)
	}
	if list := Options(Shared(c)); len(list) > 0 {
		b.WriteString("\nshared options:\n")
		writeOptions(&b, list)
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "\nexamples:\n%s\n", strings.TrimRight(c.Example, "\n"))
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more of one.\n", c.CommandPath())
	}
	return b.String()
}

// Option is a flag as help and manual pages tell of it.
type Option struct{ Flag, Value, Text string }

// Options are the flags of a set that are shown.
func Options(f *pflag.FlagSet) (out []Option) {
	f.VisitAll(func(k *pflag.Flag) {
		if k.Hidden {
			return
		}
		value, text := strings.ToUpper(k.Name), k.Usage
		if named := k.Annotations[valueKey]; len(named) > 0 {
			value = named[0]
		}
		if k.NoOptDefVal != "" { // a switch
			value = ""
		}
		if d := plainDefault(k.DefValue); d != "" && d != "0" && d != "false" {
			text += " (" + d + " if not given)"
		}
		out = append(out, Option{"--" + k.Name, value, text})
	})
	return out
}

func writeOptions(b *strings.Builder, list []Option) {
	for _, o := range list {
		line := strings.TrimSpace(o.Flag + " " + o.Value)
		if len(line) > maxOption {
			fmt.Fprintf(b, "  %s\n", line)
			line = ""
		}
		for i, t := range Wrap(o.Text, helpWidth-maxOption-4) {
			if i > 0 {
				line = ""
			}
			fmt.Fprintf(b, "  %-*s%s\n", maxOption+2, line, t)
		}
	}
}

// Wrap breaks a text into lines of at most so many bytes, where it has spaces.
func Wrap(text string, width int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len(line)+1+len(w) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + w)
	}
	return append(lines, line)
}

// Shared are the flags of a command that it has from those above it, or gives to
// those below.
func Shared(c *cobra.Command) *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.AddFlagSet(c.PersistentFlags())
	f.AddFlagSet(c.InheritedFlags())
	return f
}

func usageLine(c *cobra.Command) string {
	line := c.CommandPath()
	_, words, _ := strings.Cut(c.Use, " ")
	switch {
	case c.HasAvailableSubCommands():
		words = "COMMAND"
	case c.LocalNonPersistentFlags().HasAvailableFlags():
		words = strings.TrimSpace(words + " [OPTIONS]")
	}
	return strings.TrimSpace(line + " " + words)
}

// plainDefault writes a duration as a person does: 1h, not 1h0m0s.
func plainDefault(d string) string {
	for _, zero := range []string{"h0m0s", "m0s"} {
		if s, is := strings.CutSuffix(d, zero); is {
			return s + zero[:1]
		}
	}
	return d
}

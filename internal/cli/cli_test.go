// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// program is a small one with a group, flags of all sorts and a shared one.
func program() *cobra.Command {
	root := Root(&cobra.Command{Use: "prog", Short: "does things", Long: "About it.", Example: "  prog do it x"}, "1.0")
	g := Group(&cobra.Command{Use: "do", Short: "things to do"})
	var s, shared string
	var on bool
	it := &cobra.Command{Use: "it WHAT", Short: "do it", Args: Words("a WHAT"), RunE: func(c *cobra.Command, words []string) error {
		fmt.Fprintln(c.OutOrStdout(), words[0], s, shared, on)
		return nil
	}}
	it.Flags().StringVar(&s, "how", "well", "how it is done, "+strings.Repeat("and again ", 12))
	it.Flags().BoolVar(&on, "now", false, "at once")
	it.Flags().String("out", "", "where to")
	File(it, "out", "txt")
	Values(it, "how", "well", "badly")
	g.PersistentFlags().StringVar(&shared, "site", "", "where")
	Folder(g, "site")
	none := &cobra.Command{Use: "nothing", Short: "do nothing", Args: Words(), RunE: func(*cobra.Command, []string) error { return nil }}
	g.AddCommand(it, none)
	root.AddCommand(g)
	return root
}

func run(args ...string) (out, talk string, at string, err error) {
	var o, e bytes.Buffer
	c, err := Execute(context.Background(), program(), args, &o, &e)
	return o.String(), e.String(), c.CommandPath(), err
}

func TestHelp(t *testing.T) {
	t.Parallel()
	out, talk, _, err := run("do", "it", "--help")
	if err != nil || talk != "" {
		t.Fatal(talk, err)
	}
	for _, want := range []string{
		"prog do it: do it\n", "usage:\n  prog do it WHAT [OPTIONS]\n", "  --how HOW ", "again (well if not\n                          given)\n",
		"  --now                   at once\n", "  --out FILE              where to\n", "shared options:\n  --site DIR              where\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if len(line) > helpWidth+1 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if strings.Contains(out, "--help ") || strings.Contains(out, "--version") {
		t.Errorf("what all commands have is told:\n%s", out)
	}
	out, _, _, err = run("help")
	if err != nil || !strings.Contains(out, "commands:\n") || !strings.Contains(out, "  do it WHAT ") || !strings.Contains(out, "About it.") || strings.Contains(out, "\n  help") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                   "prog wants a command",
		"do":                 "prog do wants a command",
		"od":                 "od is no command of prog; did you mean do?",
		"do its --how x y":   "its is no command of prog do; did you mean it?",
		"do it":              "prog do it wants a WHAT and got 0 arguments",
		"do it a b":          "got 2 arguments",
		"do nothing at all":  `prog do nothing takes no arguments, so no "at"`,
		"do it a -how well":  "-how wants two dashes: --how",
		"do it a -how=well":  "-how wants two dashes: --how",
		"do it a --wow":      "unknown flag: --wow",
		"do it a --how":      "flag needs an argument: --how",
		"do it a --now=7":    "invalid argument",
		"completion tcsh":    "wants bash, zsh, fish",
		"help do something":  "there is no command do something",
		"version now":        "takes no arguments",
		"--versoin":          "prog wants a command",
		"completion":         "wants a SHELL",
		"do nothing --how x": "unknown flag: --how",
	} {
		out, _, _, err := run(strings.Fields(args)...)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("prog %s: %v, %q, wants %q", args, err, out, want)
		}
	}
	if _, _, at, _ := run("do", "it"); at != "prog do it" {
		t.Errorf("the error is of %s", at)
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"do it a":                                  "a well  false",
		"do --site s it a":                         "a well s false",
		"do it --how badly a --now --site s":       "a badly s true",
		"do it --how=badly --site=s --now=false a": "a badly s false",
		"do it --how -x a":                         "a -x  false",
	} {
		out, _, _, err := run(strings.Fields(args)...)
		if err != nil || strings.TrimSpace(out) != want {
			t.Errorf("prog %s: %v, %q, wants %q", args, err, out, want)
		}
	}
	for args, want := range map[string]string{
		"version": "prog 1.0\n", "--version": "prog 1.0\n", "__complete do it --how ": "badly",
	} {
		words := strings.Fields(args)
		if strings.HasSuffix(args, " ") {
			words = append(words, "")
		}
		if out, _, _, err := run(words...); err != nil || !strings.Contains(out, want) {
			t.Errorf("prog %s: %v, %q", args, err, out)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{{"", 5, ""}, {"a b c", 3, "a b|c"}, {"  a  longword b", 4, "a|longword|b"}, {"ab cd", 5, "ab cd"}} {
		if got := strings.Join(Wrap(c.text, c.width), "|"); got != c.want {
			t.Errorf("%q in %d: %q", c.text, c.width, got)
		}
	}
}

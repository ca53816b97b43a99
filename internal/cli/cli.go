// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package cli is what the command lines of fulmar and fulmar-fleet have in common:
// the form of help, what is said of wrong usage, and completion. It is thin over cobra.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ErrUsage is wrapped by errors about words and flags.
var ErrUsage = errors.New("wrong usage")

// Root makes c the first command of a program: with help, version and completion.
func Root(c *cobra.Command, release string) *cobra.Command {
	c.SilenceErrors, c.SilenceUsage = true, true
	c.CompletionOptions.DisableDefaultCmd = true // ours, without PowerShell
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), Help(c)) })
	c.SetUsageFunc(func(c *cobra.Command) error {
		_, err := fmt.Fprint(c.OutOrStderr(), Help(c))
		return err
	})
	c.SetFlagErrorFunc(flagError)
	c.PersistentFlags().BoolP("help", "h", false, "help on the command")
	_ = c.PersistentFlags().MarkHidden("help") // it is there: one line above
	c.Flags().Bool("version", false, "tell the version")
	_ = c.Flags().MarkHidden("version")
	c.SetHelpCommand(helpCommand())
	c.AddCommand(versionCommand(release), completionCommand(c.Name()))
	Group(c)
	run := c.RunE
	c.RunE = func(c *cobra.Command, words []string) error {
		if v, _ := c.Flags().GetBool("version"); v {
			return printVersion(c, release)
		}
		return run(c, words)
	}
	return c
}

// Group makes c a command that only holds others: without one of them it is wrong
// usage, with a suggestion where the word is near to one.
func Group(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.SuggestionsMinimumDistance = 2
	c.FParseErrWhitelist.UnknownFlags = true // they are of a command that is misspelt
	c.RunE = func(c *cobra.Command, words []string) error {
		switch {
		case len(words) == 0:
			fmt.Fprint(c.ErrOrStderr(), Help(c))
			return fmt.Errorf("%w: %s wants a command; %s --help tells them", ErrUsage, c.CommandPath(), c.CommandPath())
		case words[0] == "help": // fulmar key help
			return c.Help()
		}
		text := fmt.Sprintf("%s is no command of %s", words[0], c.CommandPath())
		if near := c.SuggestionsFor(words[0]); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return fmt.Errorf("%w: %s", ErrUsage, text)
	}
	return c
}

// Words holds a command to exactly the arguments that are named here.
func Words(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, words []string) error {
		switch {
		case len(words) == len(names):
			return nil
		case len(names) == 0:
			return fmt.Errorf("%w: %s takes no arguments, so no %q", ErrUsage, c.CommandPath(), words[0])
		}
		return fmt.Errorf("%w: %s wants %s and got %d arguments", ErrUsage, c.CommandPath(), strings.Join(names, " and "), len(words))
	}
}

// Execute runs the command that args name. It gives the command whose error it is.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) (*cobra.Command, error) {
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(append([]string{}, args...)) // not nil, which would be those of the process
	return root.ExecuteContextC(ctx)
}

// flagError makes errors of flags those of wrong usage, and tells of the near miss:
// one dash for two.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name, _, _ := strings.Cut(unknown.GetSpecifiedShortnames(), "=")
		for _, n := range []string{name, "h" + name} { // -host is read as -h and -ost
			if len(n) > 1 && c.Flags().Lookup(n) != nil {
				return fmt.Errorf("%w: -%s wants two dashes: --%s", ErrUsage, n, n)
			}
		}
	}
	return fmt.Errorf("%w: %w", ErrUsage, err)
}

func printVersion(c *cobra.Command, release string) error {
	_, err := fmt.Fprintln(c.OutOrStdout(), c.Root().Name(), release)
	return err
}

func versionCommand(release string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "tell the version of this program", Args: Words(),
		RunE: func(c *cobra.Command, _ []string) error { return printVersion(c, release) },
	}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "tell of a command, or of all", Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(c *cobra.Command, words []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			at, rest, err := c.Root().Find(words)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, k := range at.Commands() {
				if k.IsAvailableCommand() {
					out = append(out, cobra.CompletionWithDesc(k.Name(), k.Short))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, words []string) error {
			at, rest, err := c.Root().Find(words)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("%w: there is no command %s", ErrUsage, strings.Join(words, " "))
			}
			return at.Help()
		},
	}
}

// Shells are those with completion.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

func completionCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "print completion for bash, zsh or fish",
		Long: "The packages bring it already. For a program that came without one:\n\n" + strings.ReplaceAll(
			`  bash  PROGRAM completion bash >/etc/bash_completion.d/PROGRAM
  zsh   PROGRAM completion zsh >/usr/local/share/zsh/site-functions/_PROGRAM
  fish  PROGRAM completion fish >/etc/fish/completions/PROGRAM.fish`, "PROGRAM", name),
		Args: Words("a SHELL"), ValidArgs: Shells(),
		RunE: func(c *cobra.Command, words []string) error { return Completion(c.Root(), words[0], c.OutOrStdout()) },
	}
}

// Completion writes the script that makes a shell complete the commands of a root.
func Completion(root *cobra.Command, shell string, w io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(w, true)
	case "zsh":
		return root.GenZshCompletion(w)
	case "fish":
		return root.GenFishCompletion(w, true)
	}
	return fmt.Errorf("%w: shell %q, wants %s", ErrUsage, shell, strings.Join(Shells(), ", "))
}

// valueKey is the annotation of a flag with what help calls its value.
const valueKey = "fulmar-value"

// Takes says what help calls the value of a flag. Without it that is the name of the
// flag in capitals.
func Takes(c *cobra.Command, flag, value string) {
	must(flagsOf(c, flag).SetAnnotation(flag, valueKey, []string{value}))
}

// flagsOf is the set that a flag of c is in: shared with the commands below or its own.
func flagsOf(c *cobra.Command, flag string) *pflag.FlagSet {
	if c.PersistentFlags().Lookup(flag) != nil {
		return c.PersistentFlags()
	}
	return c.Flags()
}

// Values lets a flag be completed with what it can be.
func Values(c *cobra.Command, flag string, values ...string) {
	must(c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// Folder makes a flag take a folder, and completes it with folders.
func Folder(c *cobra.Command, flag string) {
	Takes(c, flag, "DIR")
	must(flagsOf(c, flag).SetAnnotation(flag, cobra.BashCompSubdirsInDir, []string{}))
}

// File makes a flag take a file, and completes it with files; with endings, only those.
func File(c *cobra.Command, flag string, endings ...string) {
	Takes(c, flag, "FILE")
	must(cobra.MarkFlagFilename(flagsOf(c, flag), flag, endings...))
}

// Folders completes an argument with folders.
func Folders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// Nothing completes arguments with nothing, which is better than the files of the
// folder where no file is meant.
func Nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// must: the flag is registered on the lines above the call, or the first test fails.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Commands gives the commands below c that do something, in the order of their names.
func Commands(c *cobra.Command) (out []*cobra.Command) {
	for _, k := range c.Commands() {
		switch {
		case !k.IsAvailableCommand():
		case k.HasAvailableSubCommands():
			out = append(out, Commands(k)...)
		default:
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *cobra.Command) int { return strings.Compare(a.CommandPath(), b.CommandPath()) })
	return out
}

// Line is how a command is called, as seen from the command above it that is given.
func Line(c, from *cobra.Command) string {
	path := strings.TrimPrefix(c.CommandPath(), from.CommandPath()+" ")
	_, words, _ := strings.Cut(c.Use, " ")
	return strings.TrimSpace(path + " " + words)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package commands puts the commands of fulmar together. It is apart from the program
// so that manual pages and completion are made of the very same commands.
package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/alert"
	"fulmar/cmd/fulmar/audit"
	"fulmar/cmd/fulmar/board"
	"fulmar/cmd/fulmar/command"
	"fulmar/cmd/fulmar/detection"
	"fulmar/cmd/fulmar/doctor"
	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/key"
	"fulmar/cmd/fulmar/local"
	"fulmar/cmd/fulmar/ota"
	"fulmar/cmd/fulmar/people"
	"fulmar/cmd/fulmar/release"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/rollout"
	"fulmar/cmd/fulmar/spool"
	"fulmar/cmd/fulmar/twin"
	"fulmar/internal/cli"
)

// Root gives all commands of fulmar.
func Root(version string) *cobra.Command {
	c := cli.Root(&cobra.Command{
		Use: "fulmar", Short: "look after boards: their records, keys, fleet, TPM and models",
		Long: `What was asked for goes to standard output, all talk to standard error. Exit codes:
0 all is well, 1 something is wrong, 2 wrong usage, 3 it is not there, 4 not allowed,
5 it changed meanwhile, 6 the fleet did not answer and what was asked may have been
done or not, 20 a rollout is halted, 21 a person has to do something first, 22 a board
refused a command, 23 it failed, 24 it became too old, 25 it was cancelled, 124 the time
is over. An error ends with its code in brackets: fulmar explain CODE says more.`,
		Example: `  fulmar spool export /mnt/dead/var/lib/fulmard/spool >records.jsonl
  fulmar login fleet.example:8443
  fulmar board list -q 'not state=healthy'
  fulmar local status
  fulmar tpm test`,
	}, version)
	c.AddCommand(spool.Command(), recoveryCommand(), key.Command(), release.Command(), board.Command(), command.Command(), detection.Command(), rollout.Command(), twin.Command(), twin.ConflictCommand(), alert.Command(),
		alert.HookCommand(), people.UserCommand(), people.TokenCommand(), people.WhoCommand(), audit.Command(), local.Command(), ota.Command(), remote.LoginCommand(), remote.LogoutCommand(), tpmCommand(), enrolCommand(), doctorCommand(), explainCommand())
	return c
}

// Run runs one command and gives its exit code.
func Run(ctx context.Context, version string, args []string, stdout, stderr io.Writer) int {
	at, err := cli.Execute(ctx, Root(version), args, stdout, stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, doctor.ErrBad):
		return fault.ExitWrong // it was said
	}
	row, coded := fault.Of(err)
	if !coded {
		fmt.Fprintf(stderr, "fulmar: %v\n", err)
		return fault.ExitWrong
	}
	first, rest, more := strings.Cut(err.Error(), "\n")
	fmt.Fprintf(stderr, "fulmar: %s [%s]\n", first, row.Code)
	if more {
		fmt.Fprintln(stderr, rest)
	}
	switch {
	case row.Exit == fault.ExitUsage:
		fmt.Fprintf(stderr, "  do: %s --help\n", at.CommandPath())
	case row.Told && !strings.Contains(rest, "  do: "): // it may have a better word of its own
		fmt.Fprintf(stderr, "  do: %s\n", row.Do)
	}
	return row.Exit
}

func explainCommand() *cobra.Command {
	var codes []cobra.Completion
	for _, r := range fault.Table() {
		codes = append(codes, cobra.CompletionWithDesc(string(r.Code), r.What))
	}
	return &cobra.Command{
		Use: "explain [CODE]", Short: "what the code of an error means, or all codes",
		Example: "  fulmar explain FLT0302",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: cobra.FixedCompletions(codes, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, words []string) error {
			if len(words) == 0 {
				for _, r := range fault.Table() {
					fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", r.Code, r.What)
				}
				return nil
			}
			r, ok := fault.Find(fault.Code(words[0]))
			if !ok {
				return fmt.Errorf("%w: %s is no code of an error; fulmar explain tells all", cli.ErrUsage, words[0])
			}
			return r.Explain(c.OutOrStdout())
		},
	}
}

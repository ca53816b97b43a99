// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package commands puts the commands of fulmar-fleet together. It is apart from the
// program so that manual pages and completion are made of the very same commands.
package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"fulmar/fleet"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/accounts"
	"fulmar/internal/cli"
	"fulmar/internal/jointoken"
)

const (
	exitWrong = 1
	exitUsage = 2
)

// Root gives all commands of fulmar-fleet.
func Root(release string) *cobra.Command {
	d := new(desk)
	c := cli.Root(&cobra.Command{
		Use: "fulmar-fleet", Short: "the fleet's server, and its keeper's tools",
		Long: `The tools work on the data folder while the server runs; whoever may read the folder may
use them. Secrets and what was asked for go to standard output, all talk to standard
error. Exit codes: 0 all is well, 1 something is wrong, 2 wrong usage.`,
		Example: `  fulmar-fleet serve --host fleet.example
  fulmar-fleet token --boards 20 --for 1h
  fulmar-fleet pending`,
	}, release)
	c.PersistentFlags().StringVar(&d.data, "data", fleet.Default().Data, "folder of databases, keys and pictures")
	cli.Folder(c, "data")
	c.AddCommand(d.serveCommand(release), d.tokenCommand(), d.apiTokenCommand(), d.userCommand(), d.resetCommand(), d.caCommand(), d.keysCommand(), d.patchCommand(), d.backupCommand(release), d.restoreCommand())
	for _, k := range keepings() {
		c.AddCommand(d.keepCommand(k))
	}
	return c
}

// Run runs one command and gives its exit code.
func Run(ctx context.Context, release string, args []string, stdout, stderr io.Writer) int {
	at, err := cli.Execute(ctx, Root(release), args, stdout, stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, cli.ErrUsage):
		fmt.Fprintf(stderr, "fulmar-fleet: %v\n  do: %s --help\n", err, at.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "fulmar-fleet: %v\n", err)
	return exitWrong
}

// desk is where the tools work.
type desk struct{ data string }

// tool opens the registry of the data folder for one command.
func (d *desk) tool(do func(*registry.Registry) error) error {
	if _, err := os.Stat(filepath.Join(d.data, "registry.db")); err != nil {
		return fmt.Errorf("open data folder %s: no fleet was ever served from it; start `fulmar-fleet serve --data %s` first", d.data, d.data)
	}
	reg, err := registry.Open(d.data)
	if err != nil {
		return err
	}
	return errors.Join(do(reg), reg.Close())
}

func (d *desk) tokenCommand() *cobra.Command {
	var boards int
	var board, address string
	var life time.Duration
	c := &cobra.Command{
		Use: "token", Short: "make a join token, with which boards enrol", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Example: `  fulmar-fleet token --boards 20 --for 1h >join-token
  fulmar-fleet token --board dock-9 --for 24h`,
		RunE: func(c *cobra.Command, _ []string) error {
			return d.tool(func(reg *registry.Registry) error {
				pin, err := ca.Pin(filepath.Join(d.data, "ca"))
				if err != nil {
					return err
				}
				at, err := tokenAddress(d.data, address, c.ErrOrStderr())
				if err != nil {
					return err
				}
				secret, err := reg.NewJoinToken(c.Context(), registry.DefaultTenant, board, boards, life)
				if err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), jointoken.Token{Secret: secret, CAHash: pin, Address: at})
				fmt.Fprintf(c.ErrOrStderr(), "join token, good for %v, shown this once; on the board type sudo fulmar enrol and paste it when it asks\n", life)
				return nil
			})
		},
	}
	c.Flags().IntVar(&boards, "boards", 1, "how many boards may enrol with it")
	c.Flags().StringVar(&board, "board", "", "only for this board, which may be enrolled already")
	c.Flags().DurationVar(&life, "for", time.Hour, "how long it is good for")
	c.Flags().StringVar(&address, "address", "", "how boards reach the fleet; if not given, as the server was last told (hosts, listen)")
	cli.Takes(c, "address", "HOST:PORT")
	cli.Takes(c, "boards", "N")
	cli.Takes(c, "board", "NAME")
	cli.Takes(c, "for", "TIME")
	return c
}

func (d *desk) resetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reset-password", Short: "make a one-time password for the administrator", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long:    "All sessions end. The password is wanted once, then the page asks for a new one.",
		Example: "  sudo -u fulmar-fleet fulmar-fleet reset-password",
		RunE: func(c *cobra.Command, _ []string) error {
			return d.tool(func(reg *registry.Registry) error {
				pw, err := reg.Accounts().Reset(c.Context(), accounts.OnConsole(person()), accounts.FirstUser)
				if err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), pw)
				fmt.Fprintln(c.ErrOrStderr(), "one-time password of the administrator; all sessions have ended")
				return nil
			})
		},
	}
}

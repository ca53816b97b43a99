// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/doctor"
	"fulmar/cmd/fulmar/enrol"
	"fulmar/internal/cli"
)

func doctorCommand() *cobra.Command {
	var o doctor.Options
	c := &cobra.Command{
		Use: "doctor", Short: "what is good on this board, what is not, and what to do", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long: `It looks at all that fulmar needs, and says of what is not good what to do. It exits 1 if
something is bad. With --root it reads the disk of another board.`,
		Example: "  sudo fulmar doctor\n  fulmar doctor --json | jq -r '.lines[] | select(.state == \"bad\")'",
		RunE: func(c *cobra.Command, _ []string) error {
			return doctor.Run(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&o.Root, "root", "/", "the folder under which the system's files are read")
	c.Flags().StringVar(&o.Config, "config", "/etc/fulmar/fulmard.yaml", "the board's config; not under --root")
	c.Flags().DurationVar(&o.Timeout, "timeout", doctor.DefaultTimeout, "how long each look may take")
	c.Flags().BoolVar(&o.JSON, "json", false, "as JSON")
	cli.Folder(c, "root")
	cli.Takes(c, "timeout", "TIME")
	cli.File(c, "config", "yaml", "yml")
	return c
}

func enrolCommand() *cobra.Command {
	var o enrol.Options
	c := &cobra.Command{
		Use: "enrol [TOKEN|-]", Short: "bring this board into a fleet, as root",
		Long: `It asks for the token that fulmar-fleet token printed on the server. On the command
line it would stand in the shell's history; - reads it from standard input. Without a
token, --fleet and --pin let the board ask, and a person lets it in: then it exits 21.
Each step is told when it is true, up to the first record that the fleet has stored.`,
		Example: "  sudo fulmar enrol\n  sudo fulmar enrol - <join-token\n  sudo fulmar enrol --fleet fleet.example:8443 --pin 7a41...9c",
		Args: func(c *cobra.Command, words []string) error {
			if len(words) > 1 {
				return fmt.Errorf("%w: enrol takes one token", cli.ErrUsage)
			}
			return nil
		},
		ValidArgsFunction: cli.Nothing,
		RunE: func(c *cobra.Command, words []string) error {
			if len(words) > 0 {
				o.Token = words[0]
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return enrol.Run(ctx, o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&o.Board, "board", "", "the name that the board wants")
	c.Flags().StringVar(&o.Fleet, "fleet", "", "the fleet's page; the token has it too")
	c.Flags().StringVar(&o.Pin, "pin", "", "what fulmar-fleet pin printed, where there is no token")
	c.Flags().StringVar(&o.Config, "config", "/etc/fulmar/fulmard.yaml", "the board's config")
	c.Flags().DurationVar(&o.Timeout, "timeout", enrol.DefaultTimeout, "how long to watch; the board goes on by itself")
	c.Flags().BoolVar(&o.Again, "again", false, "also where the board is enrolled")
	c.Flags().BoolVar(&o.JSON, "json", false, "one document, and no talk")
	cli.Takes(c, "board", "NAME")
	cli.Takes(c, "fleet", "HOST:PORT")
	cli.Takes(c, "pin", "HEX")
	cli.Takes(c, "timeout", "TIME")
	cli.File(c, "config", "yaml", "yml")
	return c
}

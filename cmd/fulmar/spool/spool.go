// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package spool has the commands of fulmar that read the spool of a board that does
// not run any more. They change nothing in it.
package spool

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
	"fulmar/schema"
	"fulmar/storage/salvage"
	"fulmar/storage/vault"
)

const about = `DIR is the folder "spool" of a board's state, on its disk or in a copy of it; a
read-only mount will do. Nothing in it is changed. An encrypted spool is opened with
the private half of the fleet's recovery key, or with the key file of the board.`

// Command is fulmar spool.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "spool", Short: "read the records of a board that does not run any more", Long: about})
	c.AddCommand(inspectCommand(), verifyCommand(), exportCommand())
	return c
}

// source is a spool and the key that opens it.
type source struct {
	recovery, key string
	dir           string
}

// register makes c a command on a spool, with its flags.
func (f *source) register(c *cobra.Command) *cobra.Command {
	c.Args = cli.Words("a folder DIR")
	c.ValidArgsFunction = cli.Folders
	c.Flags().StringVar(&f.recovery, "recovery-key", "", "the private half that fulmar recovery new made")
	c.Flags().StringVar(&f.key, "key", "", "the key file of the board")
	cli.File(c, "recovery-key", "pem")
	cli.File(c, "key")
	return c
}

// open opens the spool with the key that was given, and tells of what holds for all
// that is read from it.
func (f *source) open(dir string, stderr io.Writer) (*salvage.Spool, error) {
	if f.recovery != "" && f.key != "" {
		return nil, fmt.Errorf("%w: --recovery-key or --key, not both", cli.ErrUsage)
	}
	f.dir = dir
	var a salvage.Access
	if f.recovery != "" {
		k, err := vault.ReadRecoveryKey(f.recovery)
		if err != nil {
			return nil, err
		}
		a.Recovery = k
	}
	if f.key != "" {
		h, err := vault.ReadKeyFile(f.key)
		if err != nil {
			return nil, err
		}
		a.Holder = h
	}
	s, err := salvage.Open(f.dir, a)
	if err != nil {
		return nil, err
	}
	if s.InUse {
		fmt.Fprintf(stderr, "fulmar: %s is in use by a running fulmard: what it writes now may read as damaged; copy the folder or stop fulmard for a sound answer\n", f.dir)
	}
	return s, nil
}

func inspectCommand() *cobra.Command {
	f := new(source)
	return f.register(&cobra.Command{
		Use: "inspect DIR", Short: "what a spool folder holds, class by class", Long: about,
		Example: `  fulmar spool inspect /mnt/dead/var/lib/fulmard/spool
  fulmar spool inspect spool --recovery-key fulmar-recovery-private.pem`,
		RunE: func(c *cobra.Command, words []string) error {
			return f.inspect(words[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	})
}

func verifyCommand() *cobra.Command {
	f := new(source)
	return f.register(&cobra.Command{
		Use: "verify DIR", Short: "read every record; exit 1 and say what is wrong", Long: about,
		Example: `  fulmar spool verify spool --recovery-key fulmar-recovery-private.pem`,
		RunE: func(c *cobra.Command, words []string) error {
			return f.verify(words[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	})
}

func exportCommand() *cobra.Command {
	f, x := new(source), new(exporting)
	c := f.register(&cobra.Command{
		Use: "export DIR", Short: "write out what the fleet has not acknowledged",
		Long: about + `

It writes JSON lines or CSV. JSON lines hold records of all kinds, one a line. CSV is for metrics only, with the
columns time, series, value, quality, min, max, count. What can be read is written
whatever else is wrong; then the command says what was left out, and exits 1.`,
		Example: `  fulmar spool export /mnt/dead/var/lib/fulmard/spool >records.jsonl
  fulmar spool export spool --recovery-key fulmar-recovery-private.pem \
    --format csv --out metrics.csv
  fulmar spool export spool --class alarm --all | jq -r .time`,
		RunE: func(c *cobra.Command, words []string) error {
			return x.export(f, words[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	})
	c.Flags().StringVar(&x.format, "format", "jsonl", "how to write them, jsonl or csv")
	c.Flags().StringVar(&x.class, "class", "", "only alarm, event, metric or snapshot; without it all, or metric for csv")
	c.Flags().BoolVar(&x.all, "all", false, "also the records that the fleet has acknowledged")
	c.Flags().StringVar(&x.out, "out", "", "a new file instead of standard output")
	cli.Values(c, "format", "jsonl", "csv")
	var classes []string
	for _, k := range schema.Classes() {
		classes = append(classes, k.String())
	}
	cli.Values(c, "class", classes...)
	cli.File(c, "out")
	return c
}

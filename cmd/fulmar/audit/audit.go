// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit has the commands of fulmar about the fleet's audit log: list and head
// ask the fleet, verify works without it.
package audit

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
	"fulmar/trust/chain"
)

// maxKey bounds a file with a public key, in bytes.
const maxKey = 8 << 10

// Command is fulmar audit.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "audit", Short: "the fleet's audit log: who did what, and whether that is all"})
	var key, head string
	verify := &cobra.Command{
		Use: "verify FILE", Short: "is an exported audit log whole, and signed by the fleet", Args: cli.Words("a FILE"),
		Long: `FILE is what fulmar-fleet audit --export wrote. Every row has to follow from the one
before it, and the last one has to be signed. --key is the fleet's key as fulmar-fleet
audit --public-key printed it when the fleet was set up; without it the key is taken
from the file, and its id is to be compared by a person. --head is a head that was noted
earlier: it finds a log that was made anew by whoever has the key, and one that was cut
off at an older head.`,
		Example: `  fulmar audit verify audit.jsonl --key fleet-audit.pub
  fulmar audit verify audit.jsonl --head 48211:3f0c...`,
		RunE: func(c *cobra.Command, words []string) error {
			return run(words[0], key, head, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	verify.Flags().StringVar(&key, "key", "", "the public key of the fleet's audit log, PEM")
	verify.Flags().StringVar(&head, "head", "", "a head that was noted earlier and must be in the log")
	cli.File(verify, "key")
	cli.Takes(verify, "head", "SEQ:HASH")
	c.AddCommand(listCommand(), headCommand(), verify)
	return c
}

func run(path, keyFile, head string, out, talk io.Writer) error {
	noted, err := chain.ParseHead(head)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	var key []byte
	if keyFile != "" {
		if key, err = read(keyFile); err != nil {
			return err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	r, err := chain.Verify(f, key, noted, nil)
	if err != nil {
		return fmt.Errorf("audit verify %s: %w", path, err)
	}
	fmt.Fprintf(out, "rows %d to %d, unbroken since %s\nhead %s, signed %s\nkey  %s\n",
		r.First, r.Last, r.Since.UTC().Format(time.RFC3339), r.Tip.Head, r.Tip.At.Format(time.RFC3339), r.Tip.KeyID)
	if key == nil {
		fmt.Fprintln(talk, "the key is the one in the file: compare its id with that of fulmar-fleet audit --public-key on the server, or give --key")
	}
	return nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, maxKey))
}

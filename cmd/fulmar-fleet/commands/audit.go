// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fulmar/fleet"
	"fulmar/fleet/audit"
	"fulmar/internal/cli"
	"fulmar/trust/chain"
)

// auditing is what is asked of the audit log.
type auditing struct {
	verify, public bool
	head, export   string
}

func auditKeeping() keeping {
	return keeping{
		use: "audit", short: "who did what to which board, and whether the log is whole", run: showAudit,
		example: "  fulmar-fleet audit --json | jq -r .what\n  fulmar-fleet audit --verify\n  fulmar-fleet audit --export audit.jsonl",
		flags: func(c *cobra.Command, k *kept) {
			c.Flags().BoolVar(&k.json, "json", false, "as JSON, one row a line")
			c.Flags().BoolVar(&k.audit.verify, "verify", false, "check the chain and its signed heads; fails if a row was changed, taken out or put in")
			c.Flags().StringVar(&k.audit.head, "head", "", "as --verify told it earlier: it must be in the chain")
			c.Flags().StringVar(&k.audit.export, "export", "", "write the whole log, signed, to a new file: fulmar audit verify checks it")
			c.Flags().BoolVar(&k.audit.public, "public-key", false, "print the key that signs the log, for fulmar audit verify --key")
			cli.Takes(c, "head", "SEQ:HASH")
			cli.File(c, "export")
		},
	}
}

// showAudit prints the audit log, checks it, or takes it out.
func showAudit(ctx context.Context, k *kept) error {
	log := k.reg.Audit()
	check := k.audit.verify || k.audit.head != ""
	asked := 0
	for _, one := range []bool{check, k.json, k.audit.export != "", k.audit.public} {
		if one {
			asked++
		}
	}
	switch {
	case asked > 1:
		return fmt.Errorf("%w: --json, --verify or --head, --export and --public-key exclude each other", cli.ErrUsage)
	case check:
		noted, err := chain.ParseHead(k.audit.head)
		if err != nil {
			return fmt.Errorf("%w: --head: %w; audit --verify prints one", cli.ErrUsage, err)
		}
		tip, rows, err := log.Verify(ctx, noted)
		if err != nil {
			return err
		}
		fmt.Fprintln(k.out, tip)
		fmt.Fprintf(k.talk, "%d rows, the chain holds and so do its signed heads. Note the line above elsewhere: --head with it finds a log that was made anew\n", rows)
		return nil
	case k.audit.export != "" || k.audit.public:
		return takeAudit(ctx, k)
	}
	return log.Each(ctx, 0, func(e audit.Entry) error {
		if k.json {
			return json.NewEncoder(k.out).Encode(e)
		}
		_, err := fmt.Fprintf(k.out, "%d  %s  %s  %s  %s  %s\n", e.Seq, e.At.Format(time.DateTime), orDash(e.Board), e.What, e.Who, e.Why)
		return err
	})
}

// takeAudit writes the log or the key that signs it.
func takeAudit(ctx context.Context, k *kept) (err error) {
	book, done, err := fleet.OpenBook(k.data, k.reg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if k.audit.public {
		pub, err := book.PublicKey()
		if err == nil {
			_, err = k.out.Write(pub)
		}
		return err
	}
	f, err := os.OpenFile(k.audit.export, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("export audit log: %w", err)
	}
	tip, err := book.Export(ctx, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(k.audit.export))
	}
	fmt.Fprintln(k.out, tip)
	fmt.Fprintf(k.talk, "%s holds the log up to the row above; at a desk: fulmar audit verify %s --key FILE\n", k.audit.export, k.audit.export)
	return nil
}

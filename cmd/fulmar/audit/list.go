// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// maxList bounds what is listed, in rows: the whole log is for fulmar-fleet audit --export.
const maxList = 100_000

// listCommand is fulmar audit list. The page's audit log names it with the same filters.
func listCommand() *cobra.Command {
	var who, what, board, from, to string
	var limit int
	shared := new(remote.Flags)
	c := remote.Command(shared, true, &cobra.Command{
		Use: "list", Short: "who did what, when and why; newest first", Args: cli.Words(),
		Long: "TIME is as 2026-11-26 or 2026-11-26T08:30:00Z; --from is the first that is listed, --to the\nfirst that is not. A day begins at midnight here. -o name is the numbers of the rows.\n\n" + remote.About,
		Example: "  fulmar audit list --what revoke\n" +
			"  fulmar audit list --who m.kern --from 2026-11-01 --limit 1000 -o tsv >november.tsv",
	}, func(ctx context.Context, k *remote.Call) error {
		q := url.Values{"newest": {"true"}}
		for name, word := range map[string]string{"who": who, "what": what, "board": board} {
			if word != "" {
				q.Set(name, word)
			}
		}
		for name, text := range map[string]string{"from": from, "to": to} {
			at, err := moment(name, text)
			if err != nil {
				return err
			}
			if !at.IsZero() {
				q.Set(name, at.UTC().Format(time.RFC3339Nano))
			}
		}
		if limit < 1 || limit > maxList {
			return fmt.Errorf("%w: --limit takes 1 to %d; the whole log is written by fulmar-fleet audit --export on the server", cli.ErrUsage, maxList)
		}
		return list(ctx, k, q, limit)
	})
	shared.Register(c)
	c.Flags().StringVar(&who, "who", "", "only of this person, program (token NAME) or board (board NAME)")
	c.Flags().StringVar(&what, "what", "", "only of this word, as revoke, approve or log-in")
	c.Flags().StringVar(&board, "board", "", "only of this board")
	c.Flags().StringVar(&from, "from", "", "only from then on")
	c.Flags().StringVar(&to, "to", "", "only before then")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many")
	cli.Takes(c, "who", "NAME")
	cli.Takes(c, "what", "WORD")
	cli.Takes(c, "board", "BOARD")
	cli.Takes(c, "from", "TIME")
	cli.Takes(c, "to", "TIME")
	cli.Takes(c, "limit", "N")
	return c
}

// moment reads a time of the command line; "" is the zero time.
func moment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%w: --%s takes a day as 2026-11-26 or a moment as 2026-11-26T08:30:00Z, not %q", cli.ErrUsage, flag, s)
	}
	return t, nil
}

func list(ctx context.Context, k *remote.Call, q url.Values, limit int) error {
	rows, err := remote.All[rest.AuditEntry](ctx, k.Client, "/api/v1/audit", q, limit)
	if err != nil {
		return err
	}
	type col = show.Column[rest.AuditEntry]
	err = show.Rows(k.Stdout, &k.Format, rows,
		col{Name: "seq", Of: func(e rest.AuditEntry) string { return strconv.FormatInt(e.Seq, 10) }},
		col{Name: "at", Of: func(e rest.AuditEntry) string { return show.At(e.At) }},
		col{Name: "who", Of: func(e rest.AuditEntry) string { return e.Who }},
		col{Name: "what", Of: func(e rest.AuditEntry) string { return e.What }},
		col{Name: "board", Of: func(e rest.AuditEntry) string { return e.Board }},
		col{Name: "hash", Wide: true, Of: func(e rest.AuditEntry) string { return e.Hash }},
		col{Name: "why", Of: func(e rest.AuditEntry) string { return e.Why }},
	)
	if err == nil && len(rows) == limit && !k.Format.Quiet() {
		fmt.Fprintf(k.Stderr, "the newest %d; --limit shows more\n", limit)
	}
	return err
}

// headCommand is fulmar audit head.
func headCommand() *cobra.Command {
	shared := new(remote.Flags)
	c := remote.Command(shared, false, &cobra.Command{
		Use: "head", Short: "the newest row's number and hash, to be noted elsewhere", Args: cli.Words(),
		Long: `The head stands for all rows up to it. Note it where whoever runs the fleet cannot
change it. Later fulmar audit verify FILE --head SEQ:HASH tells whether the log still
has that very row: one that was made anew or cut off before it does not.

` + remote.About,
		Example: "  fulmar audit head >>heads.txt",
	}, head)
	shared.Register(c)
	return c
}

func head(ctx context.Context, k *remote.Call) error {
	var h rest.AuditHead
	if err := k.Get(ctx, "/api/v1/audit/head", nil, &h); err != nil {
		return err
	}
	if h.Broken != "" {
		return fault.New(fault.Refused, "the log is broken, and its head stands for nothing: %s; keep the server's disk as it is and go through the log with fulmar-fleet audit --export and fulmar audit verify", show.Clean(h.Broken))
	}
	if h.Seq < 1 {
		fmt.Fprintln(k.Stderr, "nothing has been written into the audit log yet: there is no head")
		return nil
	}
	fmt.Fprintf(k.Stdout, "%d:%s\n", h.Seq, show.Clean(h.Hash))
	signed := "is not signed"
	if h.Signature != "" {
		signed = "was signed " + show.At(h.At) + " with the key " + show.Clean(h.KeyID)
	}
	checked := "the server has not gone through the log yet"
	if !h.Checked.IsZero() {
		checked = "the server last went through the log " + show.At(h.Checked) + " and found it unbroken"
	}
	fmt.Fprintf(k.Stderr, "it stands for all rows up to %d, of which %d are kept, since %s; it %s; %s\nnote it elsewhere; later fulmar audit verify FILE --head finds a log that was changed before it\n",
		h.Seq, h.Rows, show.At(h.Since), signed, checked)
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/accounts"
	"fulmar/internal/cli"
)

// keeping are the commands about boards for the person on the server. They take words,
// and write what was asked for to out and the rest to talk.
type keeping struct {
	use, short, example string
	words               []string // as many, called so
	flags               func(c *cobra.Command, k *kept)
	run                 func(ctx context.Context, k *kept) error
}

// kept is one such command under way.
type kept struct {
	reg         *registry.Registry
	data        string
	words       []string
	out, talk   io.Writer
	why         string
	json        bool
	audit       auditing
	fingerprint string
}

func keepings() []keeping {
	board := []string{"an ID or a BOARD"}
	return []keeping{
		{
			use: "pin", short: "print what boards and desks know the fleet by", run: pin,
			example: "  export FULMAR_PIN=$(ssh fleet.example fulmar-fleet pin)",
		},
		{
			use: "pending", short: "the boards that ask to join", run: pending, example: "  fulmar-fleet pending",
			flags: func(c *cobra.Command, k *kept) {
				c.Flags().BoolVar(&k.json, "json", false, "as JSON, one board a line")
			},
		},
		{
			use: "approve ID|BOARD", short: "let in a board that asks to join", words: board,
			example: "  fulmar-fleet approve 7 --fingerprint 3f0c61a2b94de805",
			flags: func(c *cobra.Command, k *kept) {
				c.Flags().StringVar(&k.fingerprint, "fingerprint", "", "approve only if the board has this fingerprint")
				cli.Takes(c, "fingerprint", "HEX")
			},
			run: func(ctx context.Context, k *kept) error { return k.decide(ctx, true) },
		},
		{
			use: "refuse ID|BOARD", short: "refuse a board that asks to join", words: board, example: "  fulmar-fleet refuse 7",
			run: func(ctx context.Context, k *kept) error { return k.decide(ctx, false) },
		},
		{
			use: "revoke BOARD", short: "shut a board out, now; its data stays", words: []string{"a BOARD"}, run: revoke,
			example: "  fulmar-fleet revoke dock-1 --why stolen",
			flags: func(c *cobra.Command, k *kept) {
				c.Flags().StringVar(&k.why, "why", "", "the reason, for the audit log")
				cli.Takes(c, "why", "TEXT")
			},
		},
		auditKeeping(),
	}
}

// keepCommand makes a command of one of these.
func (d *desk) keepCommand(g keeping) *cobra.Command {
	k := new(kept)
	c := &cobra.Command{
		Use: g.use, Short: g.short, Example: g.example, Args: cli.Words(g.words...), ValidArgsFunction: cli.Nothing,
		RunE: func(c *cobra.Command, words []string) error {
			k.words, k.data, k.out, k.talk = words, d.data, c.OutOrStdout(), c.ErrOrStderr()
			return d.tool(func(reg *registry.Registry) error {
				k.reg = reg
				return g.run(c.Context(), k)
			})
		},
	}
	if g.flags != nil {
		g.flags(c, k)
	}
	return c
}

// who is the person, for the audit log.
func who() string { return accounts.OnConsole(person()).Who }

// person is the name of who works here, as the system has it.
func person() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// pin prints what a board without a token knows the fleet by.
func pin(_ context.Context, k *kept) error {
	h, err := ca.Pin(filepath.Join(k.data, "ca"))
	if err != nil {
		return err
	}
	fmt.Fprintln(k.out, hex.EncodeToString(h[:]))
	fmt.Fprintln(k.talk, "the SHA-256 of the fleet's authority. A board without a join token wants it as fleet.pin in its config; fulmar board wants it as FULMAR_PIN")
	return nil
}

func pending(ctx context.Context, k *kept) error {
	list, err := k.reg.Pending(ctx, registry.DefaultTenant)
	if err != nil {
		return err
	}
	if k.json {
		for i := range list {
			if err := json.NewEncoder(k.out).Encode(map[string]any{
				"id": list[i].ID, "board": list[i].Board, "fingerprint": list[i].Fingerprint(), "trust": list[i].Trust, "why": list[i].Why,
				"say": list[i].Say, "from": list[i].From, "first": list[i].First, "last": list[i].Last, "decision": list[i].Decision,
			}); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(k.out, 0, 0, 2, ' ', 0)
	for i := range list {
		q := &list[i]
		say := q.Say
		if q.Decision != "" {
			say = q.Decision + " by " + q.DecidedBy + "; the board has not come back yet"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\tfrom %s\tsince %s\t%s\n", q.ID, q.Board, q.Fingerprint(), q.Trust, q.From, q.First.Format(time.DateTime), say)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(k.talk, "no board waits")
		return nil
	}
	fmt.Fprintln(k.talk, "compare the fingerprint with the one that the board tells in its log, then: fulmar-fleet approve ID, or refuse ID")
	return nil
}

// find gives the one request that a word names: its number, or the name of its board.
func (k *kept) find(ctx context.Context, word string) (*registry.Request, error) {
	list, err := k.reg.Pending(ctx, registry.DefaultTenant)
	if err != nil {
		return nil, err
	}
	id, _ := strconv.ParseInt(word, 10, 64)
	var found *registry.Request
	for i := range list {
		q := &list[i]
		switch {
		case q.ID == id:
			return q, nil
		case q.Board != word:
		case found != nil:
			return nil, fmt.Errorf("%s: more than one board asks for this name; see their fingerprints with fulmar-fleet pending and give the number of one", word)
		default:
			found = q
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%s: no board of this name or number waits; see who does with fulmar-fleet pending", word)
	}
	return found, nil
}

func (k *kept) decide(ctx context.Context, yes bool) error {
	q, err := k.find(ctx, k.words[0])
	if err != nil {
		return err
	}
	if k.fingerprint != "" && !strings.EqualFold(k.fingerprint, q.Fingerprint()) {
		return fmt.Errorf("approve %s: its fingerprint is %s, not %s: another board asks for this name; nothing was done", q.Board, q.Fingerprint(), k.fingerprint)
	}
	if !yes {
		if err := k.reg.Refuse(ctx, registry.DefaultTenant, q.ID, who()); err != nil {
			return err
		}
		fmt.Fprintf(k.talk, "%s (fingerprint %s) is refused and told so when it asks again; fulmar-fleet approve %d takes that back\n", q.Board, q.Fingerprint(), q.ID)
		return nil
	}
	if err := k.reg.Approve(ctx, registry.DefaultTenant, q.ID, who()); err != nil {
		return fmt.Errorf("approve %s: %w", q.Board, err)
	}
	fmt.Fprintf(k.talk, "%s (fingerprint %s) is let in when it asks again, within some seconds if it is on; a day from now the approval ends\n", q.Board, q.Fingerprint())
	return nil
}

func revoke(ctx context.Context, k *kept) error {
	board := k.words[0]
	err := k.reg.Revoke(ctx, registry.DefaultTenant, board, who(), k.why)
	if errors.Is(err, registry.ErrUnknown) {
		return fmt.Errorf("revoke %s: no board of this name is enrolled, or it is revoked already", board)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(k.talk, "%s is revoked: its connection ends within five seconds, and neither its name nor its TPM or key comes in again. Its data stays.\n"+
		"To let it in again: fulmar-fleet token --board %s. To remove all of it: fulmar board wipe %s\n", board, board, board)
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package board has the commands of fulmar about the boards of a fleet. They ask its API.
package board

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
)

// boardFlags are the options of one command of fulmar board.
type boardFlags struct {
	format                show.Format
	query, sort           string
	count, dry            bool
	fingerprint, why, yes string
	meta                  metaFlags
	words                 []string
}

// waiting is what the API tells of a board that asks to join.
type waiting struct {
	ID          int64
	Board       string
	Trust       string
	Fingerprint string
	Say         string
	From        string
	First       time.Time
	Decision    string
	DecidedBy   string `json:"decided_by"`
}

const about = remote.About + `

ID is the number of a request that fulmar board list shows, BOARD the name of a board.`

// Command is fulmar board.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "board", Short: "the boards of a fleet: let them in, shut them out", Long: about})
	f := new(remote.Flags)
	f.Register(c)
	for _, k := range commands() {
		c.AddCommand(k.build(f))
	}
	c.AddCommand(tokenCommands(f)...)
	return c
}

type boardFunc func(ctx context.Context, fl *remote.Client, f *boardFlags, stdout, stderr io.Writer) error

// boardCommand is one command of the group.
type boardCommand struct {
	use, short, long, example string
	words                     []string // as many, called so
	optional                  bool     // one BOARD, or none
	do                        boardFunc
	flags                     func(c *cobra.Command, f *boardFlags)
}

func commands() []boardCommand {
	decide := func(c *cobra.Command, f *boardFlags) {
		c.Flags().StringVar(&f.fingerprint, "fingerprint", "", "only the board with this fingerprint, as its log tells it")
		cli.Takes(c, "fingerprint", "HEX")
	}
	why := func(c *cobra.Command, f *boardFlags) {
		c.Flags().StringVar(&f.why, "why", "", "the reason, for the audit log")
		cli.Takes(c, "why", "TEXT")
	}
	return []boardCommand{
		{
			use: "list", short: "the boards of a fleet, and those that ask to join", do: boardList, long: aboutList,
			example: "  fulmar board list\n  fulmar board list -q 'not state=healthy' -o wide\n  fulmar board list -q 'site=hall-4 and seen > 2h ago' -o name",
			flags: func(c *cobra.Command, f *boardFlags) {
				f.format.Register(c)
				c.Flags().StringVarP(&f.query, "query", "q", "", "only boards that it matches")
				c.Flags().StringVar(&f.sort, "sort", "", "name, state, seen, release or site; -seen turns it round")
				c.Flags().BoolVar(&f.count, "count", false, "only how many there are")
				cli.Takes(c, "query", "QUERY")
				cli.Takes(c, "sort", "FIELD")
			},
		},
		{
			use: "show BOARD", short: "all that is known of one board, its cause first", words: []string{"a BOARD"}, do: boardShow,
			example: "  fulmar board show dock-17", flags: func(c *cobra.Command, f *boardFlags) { f.format.Register(c) },
		},
		{
			use: "set [BOARD]", short: "write where boards are and what they are for", do: boardSet, long: aboutSet, optional: true,
			example: "  fulmar board set dock-17 --site hall-4 --label line=4 --power-budget-watt 25\n  fulmar board set -q 'label.line=4' --label shift=night --dry-run",
			flags:   registerMeta,
		},
		{
			use: "approve ID|BOARD", short: "let in a board that asks to join", words: []string{"an ID or a BOARD"}, flags: decide,
			long:    "Compare its fingerprint with the one in the log of the board itself: anybody can\nask for a name.",
			example: "  fulmar board approve dock-1 --fingerprint 3f0c61a2b94de805",
			do: func(ctx context.Context, fl *remote.Client, f *boardFlags, _, stderr io.Writer) error {
				return boardDecide(ctx, fl, f, "approve", stderr)
			},
		},
		{
			use: "refuse ID|BOARD", short: "refuse a board that asks to join", words: []string{"an ID or a BOARD"},
			example: "  fulmar board refuse 7",
			do: func(ctx context.Context, fl *remote.Client, f *boardFlags, _, stderr io.Writer) error {
				return boardDecide(ctx, fl, f, "refuse", stderr)
			},
		},
		{
			use: "revoke BOARD", short: "shut a board out, now; its data stays", words: []string{"a BOARD"}, do: boardRevoke, flags: why,
			example: "  fulmar board revoke dock-1 --why stolen",
		},
		{
			use: "wipe BOARD --yes BOARD", short: "forget a board and remove all that it sent", words: []string{"a BOARD"}, do: boardWipe,
			long:    "Its readings, events and pictures are removed for good, and a ban with\nthem. The board's own disk is not touched.",
			example: "  fulmar board wipe dock-1 --yes dock-1 --why sold",
			flags: func(c *cobra.Command, f *boardFlags) {
				why(c, f)
				c.Flags().StringVar(&f.yes, "yes", "", "the name of the board once more, to say that it is meant")
				cli.Takes(c, "yes", "BOARD")
			},
		},
	}
}

func (k boardCommand) build(shared *remote.Flags) *cobra.Command {
	f := new(boardFlags)
	c := &cobra.Command{
		Use: k.use, Short: k.short, Long: strings.TrimSpace(k.long + "\n\n" + about), Example: k.example,
		Args: cli.Words(k.words...), ValidArgsFunction: cli.Nothing,
	}
	if k.optional {
		c.Args = cobra.MaximumNArgs(1)
	}
	if k.flags != nil {
		k.flags(c, f)
	}
	c.RunE = func(c *cobra.Command, words []string) error {
		f.words = words
		if c.Flags().Lookup("output") != nil {
			if err := f.format.Check(c); err != nil {
				return err
			}
		}
		f.meta.given = func(name string) bool { return c.Flags().Changed(name) }
		fl, err := shared.Open()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := k.do(ctx, fl, f, c.OutOrStdout(), c.ErrOrStderr()); err != nil {
			return fmt.Errorf("board %s: %w", strings.Join(append([]string{c.Name()}, words...), " "), err)
		}
		return nil
	}
	return c
}

func boardDecide(ctx context.Context, fl *remote.Client, f *boardFlags, what string, stderr io.Writer) error {
	asking, err := requests(ctx, fl)
	if err != nil {
		return err
	}
	id, _ := strconv.ParseInt(f.words[0], 10, 64)
	var q *waiting
	for i := range asking {
		switch w := &asking[i]; {
		case w.ID == id:
			q = w
		case w.Board != f.words[0]:
		case q != nil:
			return fault.New(fault.Several, "more than one board asks for this name; compare their fingerprints with fulmar board list and give the ID of one")
		default:
			q = w
		}
	}
	switch {
	case q == nil:
		return fault.New(fault.NoBoard, "no board of this name or ID asks to join; see who does with fulmar board list")
	case f.fingerprint != "" && !strings.EqualFold(f.fingerprint, q.Fingerprint):
		return fault.New(fault.OtherBoard, "the board that asks has fingerprint %s, not %s: it is another one; nothing was done", show.Clean(q.Fingerprint), f.fingerprint)
	}
	if err := fl.Post(ctx, fmt.Sprintf("/api/v1/requests/%d/%s", q.ID, what), nil, nil); err != nil {
		return err
	}
	if what == "refuse" {
		fmt.Fprintf(stderr, "%s (fingerprint %s) is refused, and told so when it asks again; fulmar board approve %d takes that back\n", q.Board, show.Clean(q.Fingerprint), q.ID)
		return nil
	}
	fmt.Fprintf(stderr, "%s (fingerprint %s) is let in when it asks again, within some seconds if it is on; see it come with fulmar board list\n", q.Board, show.Clean(q.Fingerprint))
	return nil
}

func boardRevoke(ctx context.Context, fl *remote.Client, f *boardFlags, _, stderr io.Writer) error {
	name := f.words[0]
	err := fl.Post(ctx, "/api/v1/boards/"+url.PathEscape(name)+"/revoke", map[string]string{"why": f.why}, nil)
	if remote.StatusOf(err) == http.StatusNotFound {
		return fault.New(fault.NoBoard, "no board of this name is enrolled, or it is revoked already; see fulmar board list")
	}
	if err != nil {
		return remote.Unsure(err)
	}
	fmt.Fprintf(stderr, "%s is revoked: its connection ends within five seconds, and neither its name nor its TPM or key comes in again. Its data stays.\n"+
		"to let it in again: fulmar board token --board %[1]s; to remove its data: fulmar board wipe %[1]s --yes %[1]s\n", name)
	return nil
}

func boardWipe(ctx context.Context, fl *remote.Client, f *boardFlags, _, stderr io.Writer) error {
	name := f.words[0]
	if f.yes != name {
		return fmt.Errorf("%w: this removes %s from the fleet with all its readings, events and pictures, for good; say so with --yes %s", cli.ErrUsage, name, name)
	}
	_, err := fl.Do(ctx, remote.Request{
		Method: http.MethodDelete, Path: "/api/v1/boards/" + url.PathEscape(name), Query: url.Values{"confirm": {name}}, Body: map[string]string{"why": f.why},
	}, nil)
	if remote.StatusOf(err) == http.StatusNotFound {
		return fault.New(fault.NoBoard, "the fleet knows no board of this name; see fulmar board list")
	}
	if err != nil {
		return remote.Unsure(err)
	}
	fmt.Fprintf(stderr, "%s is gone from the fleet with all that it sent, and a ban with it. If it is on, it asks to join again as a new board: fulmar board list; "+
		"its own disk is not touched\n", name)
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package board has the commands of fulmar about the boards of a fleet. They ask its API.
package board

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
)

// boardFlags are the options of one command of fulmar board.
type boardFlags struct {
	json                  bool
	fingerprint, why, yes string
	words                 []string
}

// listed and waiting are what the API tells of a board.
type listed struct {
	Board       string
	Trust       string
	Fingerprint string
	Until       time.Time `json:"certificate_until"`
	Revoked     *time.Time
}

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

const about = `It asks a fleet's page, which --fleet or FULMAR_FLEET names, with the API token
in the file that --token-file or FULMAR_TOKEN_FILE names: fulmar-fleet api-token
--scope admin prints one. The server is known by --pin or FULMAR_PIN, which
fulmar-fleet pin prints, by --ca, or without either by the authorities of this
system.

ID is the number of a request that fulmar board list shows, BOARD the name of a board.`

// Command is fulmar board.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "board", Short: "the boards of a fleet: let them in, shut them out", Long: about})
	f := new(fleetFlags)
	f.register(c)
	for _, k := range commands() {
		c.AddCommand(k.build(f))
	}
	return c
}

type boardFunc func(ctx context.Context, fl *fleet, f *boardFlags, stdout, stderr io.Writer) error

// boardCommand is one command of the group.
type boardCommand struct {
	use, short, long, example string
	words                     []string // as many, called so
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
			use: "list", short: "the boards of a fleet, and those that ask to join", do: boardList,
			example: "  fulmar board list\n  fulmar board list --json | jq -r '.boards[].board'",
			flags: func(c *cobra.Command, f *boardFlags) {
				c.Flags().BoolVar(&f.json, "json", false, "as JSON, as the API tells it")
			},
		},
		{
			use: "approve ID|BOARD", short: "let in a board that asks to join", words: []string{"an ID or a BOARD"}, flags: decide,
			long:    "Compare its fingerprint with the one in the log of the board itself: anybody can\nask for a name.",
			example: "  fulmar board approve dock-1 --fingerprint 3f0c61a2b94de805",
			do: func(ctx context.Context, fl *fleet, f *boardFlags, _, stderr io.Writer) error {
				return boardDecide(ctx, fl, f, "approve", stderr)
			},
		},
		{
			use: "refuse ID|BOARD", short: "refuse a board that asks to join", words: []string{"an ID or a BOARD"},
			example: "  fulmar board refuse 7",
			do: func(ctx context.Context, fl *fleet, f *boardFlags, _, stderr io.Writer) error {
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

func (k boardCommand) build(shared *fleetFlags) *cobra.Command {
	f := new(boardFlags)
	c := &cobra.Command{
		Use: k.use, Short: k.short, Long: strings.TrimSpace(k.long + "\n\n" + about), Example: k.example,
		Args: cli.Words(k.words...), ValidArgsFunction: cli.Nothing,
	}
	if k.flags != nil {
		k.flags(c, f)
	}
	c.RunE = func(c *cobra.Command, words []string) error {
		f.words = words
		fl, err := shared.open()
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

// who reads both lists.
func (fl *fleet) who(ctx context.Context) (boards []listed, asking []waiting, err error) {
	var b struct{ Boards []listed }
	var r struct{ Requests []waiting }
	if err := fl.ask(ctx, http.MethodGet, "/api/v1/boards", nil, &b); err != nil {
		return nil, nil, err
	}
	if err := fl.ask(ctx, http.MethodGet, "/api/v1/requests", nil, &r); err != nil {
		return nil, nil, err
	}
	return b.Boards, r.Requests, nil
}

func boardList(ctx context.Context, fl *fleet, f *boardFlags, stdout, stderr io.Writer) error {
	if f.json {
		all := map[string]json.RawMessage{} // as the API tells it
		for _, path := range []string{"/api/v1/boards", "/api/v1/requests"} {
			if err := fl.ask(ctx, http.MethodGet, path, nil, &all); err != nil {
				return err
			}
		}
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	boards, asking, err := fl.who(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BOARD\tSTATE\tKEY\tFINGERPRINT\tREMARK")
	open := 0
	for _, q := range asking {
		state, say := "asks ("+strconv.FormatInt(q.ID, 10)+")", q.Say+" From "+q.From+", since "+q.First.Local().Format(time.DateTime)+"."
		if q.Decision != "" {
			state, say = q.Decision, "by "+q.DecidedBy+"; it has not come back yet"
		} else {
			open++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clean(q.Board), state, clean(q.Trust), clean(q.Fingerprint), clean(say))
	}
	for _, b := range boards {
		state, say := "enrolled", "certificate until "+b.Until.Local().Format(time.DateOnly)
		if b.Revoked != nil {
			state, say = "revoked", "since "+b.Revoked.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clean(b.Board), state, clean(b.Trust), clean(b.Fingerprint), say)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if open > 0 {
		fmt.Fprintf(stderr, "%d boards ask to join: compare the fingerprint with the one in the board's log, then fulmar board approve ID, or refuse ID\n", open)
	}
	return nil
}

// clean keeps what a server sends from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func boardDecide(ctx context.Context, fl *fleet, f *boardFlags, what string, stderr io.Writer) error {
	_, asking, err := fl.who(ctx)
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
		return fault.New(fault.OtherBoard, "the board that asks has fingerprint %s, not %s: it is another one; nothing was done", clean(q.Fingerprint), f.fingerprint)
	}
	if err := fl.ask(ctx, http.MethodPost, fmt.Sprintf("/api/v1/requests/%d/%s", q.ID, what), nil, nil); err != nil {
		return unsure(err)
	}
	if what == "refuse" {
		fmt.Fprintf(stderr, "%s (fingerprint %s) is refused, and told so when it asks again; fulmar board approve %d takes that back\n", q.Board, clean(q.Fingerprint), q.ID)
		return nil
	}
	fmt.Fprintf(stderr, "%s (fingerprint %s) is let in when it asks again, within some seconds if it is on; see it come with fulmar board list\n", q.Board, clean(q.Fingerprint))
	return nil
}

// unsure says of a change that got no answer that it may have been made.
func unsure(err error) error {
	if fault.Is(err, fault.Unreachable) {
		return fmt.Errorf("%w; it may have been done or not: see fulmar board list", err)
	}
	return err
}

func boardRevoke(ctx context.Context, fl *fleet, f *boardFlags, _, stderr io.Writer) error {
	name := f.words[0]
	err := fl.ask(ctx, http.MethodPost, "/api/v1/boards/"+url.PathEscape(name)+"/revoke", map[string]string{"why": f.why}, nil)
	var p *problem
	if errors.As(err, &p) && p.status == http.StatusNotFound {
		return fault.New(fault.NoBoard, "no board of this name is enrolled, or it is revoked already; see fulmar board list")
	}
	if err != nil {
		return unsure(err)
	}
	fmt.Fprintf(stderr, "%s is revoked: its connection ends within five seconds, and neither its name nor its TPM or key comes in again. Its data stays.\n"+
		"to let it in again, on the server: fulmar-fleet token --board %[1]s; to remove its data: fulmar board wipe %[1]s --yes %[1]s\n", name)
	return nil
}

func boardWipe(ctx context.Context, fl *fleet, f *boardFlags, _, stderr io.Writer) error {
	name := f.words[0]
	if f.yes != name {
		return fmt.Errorf("%w: this removes %s from the fleet with all its readings, events and pictures, for good; say so with --yes %s", cli.ErrUsage, name, name)
	}
	err := fl.ask(ctx, http.MethodDelete, "/api/v1/boards/"+url.PathEscape(name)+"?confirm="+url.QueryEscape(name), map[string]string{"why": f.why}, nil)
	var p *problem
	if errors.As(err, &p) && p.status == http.StatusNotFound {
		return fault.New(fault.NoBoard, "the fleet knows no board of this name; see fulmar board list")
	}
	if err != nil {
		return unsure(err)
	}
	fmt.Fprintf(stderr, "%s is gone from the fleet with all that it sent, and a ban with it. If it is on, it asks to join again as a new board: fulmar board list; "+
		"its own disk is not touched\n", name)
	return nil
}

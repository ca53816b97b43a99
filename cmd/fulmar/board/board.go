// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package board has the commands of fulmar about the boards of a fleet. They ask its API.
package board

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
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
)

// Usage are the lines of the commands in fulmar help.
const Usage = `  fulmar board list [--json]            the boards of a fleet, and those that ask to join
  fulmar board approve ID|BOARD [--fingerprint HEX]
  fulmar board refuse  ID|BOARD         decide on a board that asks
  fulmar board revoke  BOARD [--why TEXT]
                                        shut a board out, now; its data stays
  fulmar board wipe    BOARD --yes BOARD [--why TEXT]
                                        forget a board and remove all that it sent
`

// Options are those of their options.
const Options = `
options of fulmar board (or environment)
  --fleet HOST:PORT     the fleet's page (FULMAR_FLEET)
  --token-file FILE     what fulmar-fleet api-token --scope admin printed (FULMAR_TOKEN_FILE)
  --pin HEX             what fulmar-fleet pin printed (FULMAR_PIN), or
  --ca FILE             the authority as PEM; without either, those of this system
`

// boardFlags are the options of fulmar board.
type boardFlags struct {
	fleetFlags
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

// Run runs a command of fulmar board. Its error tells what, and what to do.
func Run(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: board list, approve, refuse, revoke or wipe", ErrUsage)
	}
	name, rest := args[0], args[1:]
	do, words := boardCommand(name)
	if do == nil {
		return fmt.Errorf("%w: board %s: wants list, approve, refuse, revoke or wipe", ErrUsage, name)
	}
	f := new(boardFlags)
	fs := flag.NewFlagSet("board "+name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.register(fs)
	switch name {
	case "list":
		fs.BoolVar(&f.json, "json", false, "")
	case "approve":
		fs.StringVar(&f.fingerprint, "fingerprint", "", "")
	case "wipe":
		fs.StringVar(&f.yes, "yes", "", "")
		fs.StringVar(&f.why, "why", "", "")
	case "revoke":
		fs.StringVar(&f.why, "why", "", "")
	}
	for { // flags before and after the words
		if err := fs.Parse(rest); err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		if rest = fs.Args(); len(rest) == 0 {
			break
		}
		f.words, rest = append(f.words, rest[0]), rest[1:]
	}
	if len(f.words) != words {
		return fmt.Errorf("%w: board %s: which board? one", ErrUsage, name)
	}
	fl, err := f.open()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := do(ctx, fl, f, stdout, stderr); err != nil {
		return fmt.Errorf("board %s: %w", strings.Join(append([]string{name}, f.words...), " "), err)
	}
	return nil
}

type boardFunc func(ctx context.Context, fl *fleet, f *boardFlags, stdout, stderr io.Writer) error

func boardCommand(name string) (do boardFunc, words int) {
	switch name {
	case "list":
		return boardList, 0
	case "approve", "refuse":
		return func(ctx context.Context, fl *fleet, f *boardFlags, _, stderr io.Writer) error {
			return boardDecide(ctx, fl, f, name, stderr)
		}, 1
	case "revoke":
		return boardRevoke, 1
	case "wipe":
		return boardWipe, 1
	}
	return nil, 0
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
			return errors.New("more than one board asks for this name; compare their fingerprints with fulmar board list and give the ID of one")
		default:
			q = w
		}
	}
	switch {
	case q == nil:
		return errors.New("no board of this name or ID asks to join; see who does with fulmar board list")
	case f.fingerprint != "" && !strings.EqualFold(f.fingerprint, q.Fingerprint):
		return fmt.Errorf("the board that asks has fingerprint %s, not %s: it is another one; nothing was done", clean(q.Fingerprint), f.fingerprint)
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
	if errors.Is(err, ErrUnreachable) {
		return fmt.Errorf("%w; it may have been done or not: see fulmar board list", err)
	}
	return err
}

func boardRevoke(ctx context.Context, fl *fleet, f *boardFlags, _, stderr io.Writer) error {
	name := f.words[0]
	err := fl.ask(ctx, http.MethodPost, "/api/v1/boards/"+url.PathEscape(name)+"/revoke", map[string]string{"why": f.why}, nil)
	var p *problem
	if errors.As(err, &p) && p.status == http.StatusNotFound {
		return errors.New("no board of this name is enrolled, or it is revoked already; see fulmar board list")
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
		return fmt.Errorf("%w: this removes %s from the fleet with all its readings, events and pictures, for good; say so with --yes %s", ErrUsage, name, name)
	}
	err := fl.ask(ctx, http.MethodDelete, "/api/v1/boards/"+url.PathEscape(name)+"?confirm="+url.QueryEscape(name), map[string]string{"why": f.why}, nil)
	var p *problem
	if errors.As(err, &p) && p.status == http.StatusNotFound {
		return errors.New("the fleet knows no board of this name; see fulmar board list")
	}
	if err != nil {
		return unsure(err)
	}
	fmt.Fprintf(stderr, "%s is gone from the fleet with all that it sent, and a ban with it. If it is on, it asks to join again as a new board: fulmar board list; "+
		"its own disk is not touched\n", name)
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

const (
	// watchEvery is how often the fleet is asked: a command is done in less, people read
	// no faster.
	watchEvery = 300 * time.Millisecond
	// watchTries is how often no answer is borne before the state is unknown.
	watchTries = 15
	// longer is how much longer than a command is valid its end is waited for.
	longer = 2 * time.Minute
)

const aboutGive = `A value is JSON where it is some, and text otherwise: value=40 camera=gate
sensors=["cpu"]. It waits until each board has said how it ended, but no longer than the
command is valid and two minutes more; it goes on without whoever waits.`

func giveCommand(shared *remote.Flags) *cobra.Command {
	var s rest.CommandSpec
	var valid, timeout time.Duration
	var wait, dry bool
	c := &cobra.Command{
		Use: "give [BOARD] NAME [KEY=VALUE...]", Short: "give a command to a board, or to those of a query", Long: aboutGive,
		Example: "  fulmar command give dock-3 set-valve-position valve=inlet percent=40 --reason 'flush line 2'\n  fulmar command give -q 'site=hall-4' snapshot camera=gate --valid 1m\n  fulmar command give dock-3 trigger-safety-shutdown --wait=false",
		Args: func(_ *cobra.Command, words []string) error {
			if len(words) == 0 {
				return fmt.Errorf("%w: a BOARD and the NAME of a command are missing", cli.ErrUsage)
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.StringVarP(&s.Query, "query", "q", "", "to the boards that match now, as fulmar board list -q; then no BOARD")
	fl.DurationVar(&valid, "valid", 5*time.Minute, "a board may begin it so long, at most 168h")
	fl.StringVar(&s.Reason, "reason", "", "for the audit log, and for those who look")
	fl.BoolVar(&s.DryRun, "check", false, "the boards say what they would refuse, and do nothing")
	fl.BoolVar(&dry, "plan", false, "tell which boards would get it, and give nothing")
	fl.BoolVar(&wait, "wait", true, "wait until it has ended; --wait=false: not")
	fl.DurationVar(&timeout, "timeout", 0, "wait no longer than this; 0: as long as it is valid and two minutes more")
	for flag, v := range map[string]string{"query": "QUERY", "valid": "TIME", "reason": "TEXT", "timeout": "TIME"} {
		cli.Takes(c, flag, v)
	}
	return remote.Command(shared, true, c, func(ctx context.Context, k *remote.Call) error {
		if err := words(&s, k.Words); err != nil {
			return err
		}
		if valid < time.Second {
			return fmt.Errorf("%w: --valid %v is under a second", cli.ErrUsage, valid)
		}
		s.ValidS = int64(valid / time.Second)
		if dry {
			return plan(ctx, k, s)
		}
		var v rest.Command
		if err := k.Post(ctx, "/api/v1/commands", s, &v); err != nil {
			return err
		}
		fmt.Fprintf(k.Stderr, "%s: %s to %s\n%s\n", v.ID, show.Clean(said(v)), boards(v.Total), k.Page("/commands/"+url.PathEscape(v.ID)))
		if !wait {
			fmt.Fprintf(k.Stderr, "next: fulmar command watch %s\n", v.ID)
			if k.Format.Quiet() {
				return k.Format.One(k.Stdout, v.ID, v)
			}
			return nil
		}
		if timeout == 0 {
			timeout = valid + longer
		}
		return watch(ctx, k, v.ID, timeout)
	})
}

func boards(n int) string {
	if n == 1 {
		return "1 board"
	}
	return fmt.Sprintf("%d boards", n)
}

// words reads the board, the name and the arguments.
func words(s *rest.CommandSpec, list []string) error {
	if s.Query == "" {
		if len(list) < 2 || strings.Contains(list[1], "=") {
			return fmt.Errorf("%w: a BOARD and the NAME of a command are wanted, or -q QUERY and a NAME", cli.ErrUsage)
		}
		s.Boards, list = list[:1], list[1:]
	}
	s.Name, list = list[0], list[1:]
	if strings.Contains(s.Name, "=") {
		return fmt.Errorf("%w: the NAME of a command is missing before %q", cli.ErrUsage, s.Name)
	}
	args := map[string]json.RawMessage{}
	for _, w := range list {
		name, text, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return fmt.Errorf("%w: %q is not KEY=VALUE", cli.ErrUsage, w)
		}
		if _, twice := args[name]; twice {
			return fmt.Errorf("%w: %s is given twice", cli.ErrUsage, name)
		}
		args[name] = value(text)
	}
	if len(args) == 0 {
		return nil
	}
	var err error
	s.Args, err = json.Marshal(args)
	return err
}

// value is text as JSON: itself where it is some.
func value(text string) json.RawMessage {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	b, _ := json.Marshal(text) // of a string: never fails
	return b
}

func plan(ctx context.Context, k *remote.Call, s rest.CommandSpec) error {
	var would rest.DryRun
	if _, err := k.Do(ctx, remote.Request{Method: http.MethodPost, Path: "/api/v1/commands", Query: url.Values{"dry_run": {"true"}}, Body: s}, &would); err != nil {
		return err
	}
	if k.Format.Quiet() {
		return show.JSON(k.Stdout, would)
	}
	fmt.Fprintln(k.Stdout, show.Clean(would.Would))
	fmt.Fprintln(k.Stderr, "nothing was given")
	return nil
}

func watchCommand(shared *remote.Flags) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "watch ID", Short: "wait until a command has ended on all boards", Args: cli.Words("an ID"),
		Long: "Ctrl-C ends the watching, never the command.", Example: "  fulmar command watch c-31 --timeout 10m",
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "no longer than this; 0: as long as it takes")
	cli.Takes(c, "timeout", "TIME")
	return remote.Command(shared, true, c, func(ctx context.Context, k *remote.Call) error { return watch(ctx, k, k.Words[0], timeout) })
}

// errStopped: whoever watched had enough; the command goes on.
var errStopped = errors.New("no longer watched; the command goes on")

// watch tells how far a command is until it has ended on all boards, and then its rows.
func watch(ctx context.Context, k *remote.Call, id string, timeout time.Duration) error {
	var end <-chan time.Time
	if timeout > 0 {
		end = time.After(timeout)
	}
	line, silent := "", 0
	var c rest.Command
	for {
		var now rest.Command // a new one: JSON adds to a map that is there
		err := k.Get(ctx, path(id, ""), url.Values{"boards": {"none"}}, &now)
		switch {
		case ctx.Err() != nil:
			return fault.Mark(fault.Unsettled, errStopped)
		case fault.Is(err, fault.Unreachable) && silent < watchTries:
			silent++
		case err != nil:
			return err
		default:
			silent, c = 0, now
			line = progress(k.Stderr, &c, line)
			if over, err := settled(ctx, k, &c); over {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fault.Mark(fault.Unsettled, errStopped)
		case <-end:
			return fault.New(fault.Unsettled, "%v passed; the command goes on: %s", timeout, counts(c.Counts))
		case <-time.After(watchEvery):
		}
	}
}

// progress writes how far it is where that changed: over the last line on a terminal.
func progress(w io.Writer, c *rest.Command, last string) string {
	line := fmt.Sprintf("%s  %s", c.ID, counts(c.Counts))
	if line == last {
		return last
	}
	if here.IsTerminal(w) {
		// Cut: a line that went around the edge could not be written over.
		fmt.Fprintf(w, "\r\x1b[K%s\r", line[:min(len(line), here.Width(w)-1)])
	} else {
		fmt.Fprintf(w, "%s  %s\n", time.Now().Format(time.TimeOnly), line)
	}
	return line
}

// settled tells whether nothing more happens by itself, and as what that counts.
func settled(ctx context.Context, k *remote.Call, c *rest.Command) (bool, error) {
	open := 0
	for s, n := range c.Counts {
		if !rest.CommandFinal(s) {
			open += n
		}
	}
	waits := c.Counts[rest.CommandWaiting]
	if open > waits {
		return false, nil
	}
	if waits > 0 {
		return true, fault.New(fault.CommandWaits, "%s waits for a second person", c.ID)
	}
	var full rest.Command
	if err := k.Get(ctx, path(c.ID, ""), nil, &full); err != nil {
		return true, err
	}
	if here.IsTerminal(k.Stderr) {
		fmt.Fprint(k.Stderr, "\r\x1b[K") // the line of how far it is
	}
	if err := rows(k, full); err != nil {
		return true, err
	}
	said := counts(full.Counts)
	if !k.Format.Quiet() {
		fmt.Fprintf(k.Stderr, "%s is over: %s\nnext: fulmar command show %s\n", c.ID, said, c.ID)
	}
	states := []string{rest.CommandFailed, rest.CommandRefused, rest.CommandExpired, rest.CommandCancelled}
	switch {
	case full.Counts[rest.CommandUnknown] > 0:
		return true, fault.New(fault.CommandUnknown, "%s: %s", c.ID, said)
	case slices.ContainsFunc(states, func(s string) bool { return full.Counts[s] > 0 }):
		return true, fault.New(fault.CommandNotDone, "%s: %s", c.ID, said)
	}
	return true, nil
}

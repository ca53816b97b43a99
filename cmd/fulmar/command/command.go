// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package command has the commands of fulmar that give commands to boards and tell what
// became of them.
package command

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

const about = `A command is signed, numbered and valid for a while. The fleet keeps it and sends it
until each board has said how it ended; a board does it once, whatever is cut or sent
twice. Exit codes: 0 done on every board, 1 not on every one, 6 on some nobody knows
whether it had its effect, 21 it waits for a second person, 124 the time to wait is over.

` + remote.About

// Command is fulmar command.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "command", Short: "have boards do something, and see what became of it", Long: about})
	f := new(remote.Flags)
	f.Register(c)
	c.AddCommand(
		giveCommand(f), listCommand(f),
		remote.Command(f, true, &cobra.Command{
			Use: "show ID", Short: "how far each board of a command is", Args: cli.Words("an ID"), Example: "  fulmar command show c-31",
			Long: "Boards that are not done come first, at most 1,000. ID may be that of one board's, 32\nhex digits, as the journal of the board has it.",
		}, showOne),
		watchCommand(f),
		actCommand(f, "cancel", "end a command where it has not ended", "is cancelled", "A board that has it already is asked to; what it has done stays done."),
		actCommand(f, "approve", "agree to a command that somebody else gave", "is approved", "Nobody approves what they gave themselves, nor by a token of theirs."),
		actCommand(f, "refuse", "refuse a command that somebody else gave", "is refused", ""),
		remote.Command(f, true, &cobra.Command{Use: "kinds", Short: "the commands that boards say they have", Args: cli.Words(), Example: "  fulmar command kinds"}, kinds),
	)
	return c
}

func path(id, more string) string { return "/api/v1/commands/" + url.PathEscape(id) + more }

func listCommand(shared *remote.Flags) *cobra.Command {
	var board, state string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "commands, newest first", Args: cli.Words(), Example: "  fulmar command list --board dock-3\n  fulmar command list --state unknown",
		Long: "Commands that people and rules gave on boards are among them.",
	}
	c.Flags().StringVar(&board, "board", "", "only commands to this board")
	c.Flags().StringVar(&state, "state", "", "only commands with a board in this state")
	c.Flags().IntVar(&limit, "limit", 50, "so many; 0: all that are kept")
	cli.Takes(c, "board", "NAME")
	cli.Takes(c, "state", "STATE")
	cli.Takes(c, "limit", "N")
	cli.Values(c, "state", rest.CommandWaiting, rest.CommandQueued, rest.CommandSent, rest.CommandAccepted, rest.CommandRunning, rest.CommandDone, rest.CommandFailed,
		rest.CommandRefused, rest.CommandExpired, rest.CommandCancelled, rest.CommandUnknown)
	return remote.Command(shared, true, c, func(ctx context.Context, k *remote.Call) error {
		q := url.Values{}
		if board != "" {
			q.Set("board", board)
		}
		if state != "" {
			q.Set("state", state)
		}
		all, err := remote.All[rest.Command](ctx, k.Client, "/api/v1/commands", q, limit)
		if err != nil {
			return err
		}
		type col = show.Column[rest.Command]
		now := time.Now()
		return show.Rows(k.Stdout, &k.Format, all,
			col{Name: "id", Of: func(c rest.Command) string { return c.ID }},
			col{Name: "command", Of: said},
			col{Name: "given", Of: func(c rest.Command) string { return show.Age(c.Given, now) }},
			col{Name: "by", Of: func(c rest.Command) string { return c.Actor }},
			col{Name: "boards", Of: func(c rest.Command) string { return counts(c.Counts) }},
			col{Name: "query", Wide: true, Of: func(c rest.Command) string { return c.Query }},
			col{Name: "reason", Wide: true, Of: func(c rest.Command) string { return c.Reason }},
		)
	})
}

// said is a command's name and arguments in a few words.
func said(c rest.Command) string {
	name := c.Name
	if name == "" {
		name = "(not known here)"
	}
	if c.DryRun {
		name += " (check only)"
	}
	if a := short(c.Args, 60); a != "" && a != "{}" {
		name += " " + a
	}
	return name
}

// short is JSON on one line, at most so many bytes.
func short(text []byte, n int) string {
	s := strings.Join(strings.Fields(string(text)), " ")
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}

// counts lists how many boards are in which state, those that are over last.
func counts(c map[string]int) string {
	var open, over []string
	for _, s := range slices.Sorted(maps.Keys(c)) {
		word := fmt.Sprintf("%d %s", c[s], s)
		if rest.CommandFinal(s) {
			over = append(over, word)
		} else {
			open = append(open, word)
		}
	}
	return strings.Join(append(open, over...), ", ")
}

func showOne(ctx context.Context, k *remote.Call) error {
	var c rest.Command
	if err := k.Get(ctx, path(k.Words[0], ""), nil, &c); err != nil {
		return err
	}
	if k.Format.Quiet() {
		return rows(k, c)
	}
	fmt.Fprintf(k.Stdout, "%s  %s  %s\n", c.ID, show.Clean(said(c)), counts(c.Counts))
	fmt.Fprintf(k.Stdout, "  given by %s at %s%s\n", show.Clean(c.Actor), show.At(c.Given), map[bool]string{true: ", on the board"}[c.Local])
	if c.Reason != "" {
		fmt.Fprintf(k.Stdout, "  because %s\n", show.Clean(c.Reason))
	}
	if !c.Expires.IsZero() {
		fmt.Fprintf(k.Stdout, "  to be begun by %s\n", show.At(c.Expires))
	}
	if a := c.Approval; a != nil {
		switch {
		case a.By == "":
			fmt.Fprintf(k.Stdout, "  a second person has to agree: fulmar command approve %s\n", c.ID)
		case a.Refused:
			fmt.Fprintf(k.Stdout, "  refused by %s at %s  %s\n", show.Clean(a.By), show.At(a.At), show.Clean(a.Reason))
		default:
			fmt.Fprintf(k.Stdout, "  approved by %s at %s  %s\n", show.Clean(a.By), show.At(a.At), show.Clean(a.Reason))
		}
	}
	if c.Query != "" {
		fmt.Fprintf(k.Stdout, "  boards of %s\n", show.Clean(c.Query))
	}
	if len(c.Boards) == 1 {
		for _, e := range c.Boards[0].Events {
			fmt.Fprintf(k.Stdout, "  %s  %-10s %s\n", e.At.Local().Format("15:04:05.000"), show.Clean(e.State), show.Clean(e.Text))
		}
	}
	return rows(k, c)
}

// rows writes a row for each board that the answer holds.
func rows(k *remote.Call, c rest.Command) error {
	type col = show.Column[rest.CommandBoard]
	err := show.Rows(k.Stdout, &k.Format, c.Boards,
		col{Name: "board", Of: func(b rest.CommandBoard) string { return b.Board }},
		col{Name: "state", Of: func(b rest.CommandBoard) string {
			if b.Percent > 0 && !rest.CommandFinal(b.State) {
				return fmt.Sprintf("%s %d %%", b.State, b.Percent)
			}
			return b.State
		}},
		col{Name: "code", Of: func(b rest.CommandBoard) string { return b.Code }},
		col{Name: "id", Wide: true, Of: func(b rest.CommandBoard) string { return b.ID }},
		col{Name: "answer", Of: func(b rest.CommandBoard) string {
			if len(b.Value) > 0 && string(b.Value) != "null" {
				return strings.TrimSpace(short(b.Value, 200) + "  " + b.Text)
			}
			return b.Text
		}},
	)
	if c.Total > len(c.Boards) && err == nil && len(c.Boards) > 0 && !k.Format.Quiet() {
		fmt.Fprintf(k.Stderr, "%d of %d boards are shown, what is not done first\n", len(c.Boards), c.Total)
	}
	return err
}

func kinds(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.CommandKind](ctx, k.Client, "/api/v1/commands/kinds", nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.CommandKind]
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "command", Of: func(c rest.CommandKind) string { return c.Name }},
		col{Name: "boards", Of: func(c rest.CommandKind) string { return fmt.Sprint(c.Boards) }},
		col{Name: "second person", Of: func(c rest.CommandKind) string { return map[bool]string{true: "has to agree", false: ""}[c.Approval] }},
	)
}

func actCommand(shared *remote.Flags, do, shortly, done, long string) *cobra.Command {
	var reason string
	c := &cobra.Command{Use: do + " ID", Short: shortly, Long: long, Args: cli.Words("an ID"), Example: "  fulmar command " + do + " c-31 --reason 'visitors in hall 4'"}
	c.Flags().StringVar(&reason, "reason", "", "for the audit log, and for those who look")
	cli.Takes(c, "reason", "TEXT")
	return remote.Command(shared, false, c, func(ctx context.Context, k *remote.Call) error {
		var v rest.Command
		_, err := k.Do(ctx, remote.Request{Method: http.MethodPost, Path: path(k.Words[0], "/actions"), Body: rest.CommandAction{Action: do, Reason: reason}}, &v)
		if err != nil {
			return remote.Unsure(err)
		}
		if do == "cancel" && slices.ContainsFunc(slices.Collect(maps.Keys(v.Counts)), func(s string) bool { return !rest.CommandFinal(s) }) {
			done = "is being cancelled"
		}
		fmt.Fprintf(k.Stderr, "%s %s: %s\nnext: fulmar command watch %s\n", v.ID, done, counts(v.Counts), v.ID)
		return nil
	})
}

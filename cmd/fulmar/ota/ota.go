// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ota has the commands of fulmar for updates on the board itself: they ask fulmard
// at its own socket (docs/local.md).
package ota

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/local"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/onboard"
)

// call is one command under way.
type call struct {
	board          *local.Board
	json           bool
	watch          bool
	timeout        time.Duration
	words          []string
	stdout, stderr io.Writer
}

// Command is fulmar ota.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "ota", Short: "updates of this board, on the board itself",
		Long: `What is being installed, what was, and a bundle brought to the board. It works without a
network. What a user may do is said by local.operators and local.viewers of fulmard's config.`,
	})
	socket := c.PersistentFlags().String("socket", local.SocketPath, "the socket of fulmard, in its data folder")
	cli.File(c, "socket")
	c.AddCommand(statusCommand(socket), historyCommand(socket), abortCommand(socket), holdCommand(socket), bundleCommand(socket), repairCommand(socket))
	return c
}

func build(socket *string, watches bool, c *cobra.Command, do func(context.Context, *call) error) *cobra.Command {
	k := new(call)
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = cli.Nothing
	}
	c.Flags().BoolVar(&k.json, "json", false, "as JSON, and no talk")
	if watches {
		c.Flags().BoolVar(&k.watch, "watch", false, "follow it until it is over")
		c.Flags().DurationVar(&k.timeout, "timeout", time.Hour, "how long to watch; the board goes on without")
		cli.Takes(c, "timeout", "TIME")
	}
	c.RunE = func(c *cobra.Command, words []string) error {
		k.board, k.words, k.stdout, k.stderr = local.Open(*socket), words, c.OutOrStdout(), c.ErrOrStderr()
		ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := do(ctx, k); err != nil {
			path := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
			return fmt.Errorf("%s: %w", strings.Join(append([]string{path}, words...), " "), err)
		}
		return nil
	}
	return c
}

func (k *call) say(form string, args ...any) {
	if !k.json {
		fmt.Fprintf(k.stderr, form+"\n", args...)
	}
}

func (k *call) state(ctx context.Context) (u onboard.Updates, err error) {
	err = k.board.Ask(ctx, "GET", "/v1/updates", nil, &u)
	return u, err
}

// tell writes how updates stand.
func (k *call) tell(u onboard.Updates) error {
	if k.json {
		return show.JSON(k.stdout, u)
	}
	for _, l := range newView(u, here.Width(k.stdout), here.Painter(k.stdout)).lines() {
		fmt.Fprintln(k.stdout, l)
	}
	return nil
}

func statusCommand(socket *string) *cobra.Command {
	return build(socket, true, &cobra.Command{
		Use: "status", Short: "what runs, what is being installed, and what speaks against it", Args: cli.Words(),
		Example: "  fulmar ota status\n  fulmar ota status --watch\n  fulmar ota status --json | jq .work",
	}, func(ctx context.Context, k *call) error {
		if k.watch {
			return k.follow(ctx, nil)
		}
		u, err := k.state(ctx)
		if err != nil {
			return err
		}
		if err := k.tell(u); err != nil {
			return err
		}
		switch {
		case u.FloorError != "":
			k.say("next: fulmar ota repair-floor, when it is clear who changed it")
		case u.Work != nil:
			k.say("next: fulmar ota status --watch")
		default:
			k.say("next: fulmar ota history")
		}
		return nil
	})
}

func historyCommand(socket *string) *cobra.Command {
	f := new(show.Format)
	c := &cobra.Command{Use: "history", Short: "the updates that are over, the newest first", Args: cli.Words(), ValidArgsFunction: cli.Nothing}
	f.Register(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := f.Check(c); err != nil {
			return err
		}
		var all []onboard.PastUpdate
		if err := local.Open(*socket).Ask(c.Context(), "GET", "/v1/updates/history", nil, &all); err != nil {
			return fmt.Errorf("ota history: %w", err)
		}
		err := show.Rows(c.OutOrStdout(), f, all,
			show.Column[onboard.PastUpdate]{Name: "ended", Of: func(p onboard.PastUpdate) string { return show.At(p.At) }},
			show.Column[onboard.PastUpdate]{Name: "component", Of: func(p onboard.PastUpdate) string { return p.Component }},
			show.Column[onboard.PastUpdate]{Name: "release", Of: func(p onboard.PastUpdate) string { return p.Release }},
			show.Column[onboard.PastUpdate]{Name: "before", Wide: true, Of: func(p onboard.PastUpdate) string { return p.Before }},
			show.Column[onboard.PastUpdate]{Name: "rollout", Of: func(p onboard.PastUpdate) string { return p.Rollout }},
			show.Column[onboard.PastUpdate]{Name: "attempt", Wide: true, Of: func(p onboard.PastUpdate) string { return strconv.FormatUint(p.Attempt, 10) }},
			show.Column[onboard.PastUpdate]{Name: "took", Of: func(p onboard.PastUpdate) string { return (time.Duration(p.Took) * time.Second).String() }},
			show.Column[onboard.PastUpdate]{Name: "result", Of: func(p onboard.PastUpdate) string { return p.Word }},
			show.Column[onboard.PastUpdate]{Name: "path", Wide: true, Of: func(p onboard.PastUpdate) string { return p.Path }},
			show.Column[onboard.PastUpdate]{Name: "reason", Of: func(p onboard.PastUpdate) string { return p.Reason }},
		)
		if err == nil && !f.Quiet() {
			fmt.Fprintln(c.ErrOrStderr(), "next: fulmar ota status")
		}
		return err
	}
	return c
}

func abortCommand(socket *string) *cobra.Command {
	reason := ""
	c := &cobra.Command{
		Use: "abort [COMPONENT]", Short: "end an update; one that is on trial goes back", Args: oneAtMost,
		Long: `Before it is in force it ends at once; one that is on trial is gone back from. One that has
been committed is not undone by this: a rollout or a bundle brings the release before.`,
		Example: "  fulmar ota abort --reason \"line 3 has to run tonight\"\n  fulmar ota abort model/parcels",
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who read the log")
	cli.Takes(c, "reason", "TEXT")
	return build(socket, false, c, func(ctx context.Context, k *call) error {
		in := onboard.Abort{Reason: reason}
		if len(k.words) > 0 {
			in.Component = k.words[0]
		}
		var u onboard.Updates
		if err := k.board.Ask(ctx, "POST", "/v1/updates/abort", in, &u); err != nil {
			return err
		}
		k.say("aborted; this is true now:")
		err := k.tell(u)
		k.say("next: fulmar ota hold 2h keeps the fleet from trying again for that long")
		return err
	})
}

func oneAtMost(_ *cobra.Command, words []string) error {
	if len(words) > 1 {
		return fmt.Errorf("%w: %d words, at most one", cli.ErrUsage, len(words))
	}
	return nil
}

func holdCommand(socket *string) *cobra.Command {
	reason := ""
	c := &cobra.Command{
		Use: "hold TIME|off", Short: "no update begins, and none is put in force, for a while", Args: cli.Words("TIME|off"),
		Long:    "What is on trial goes on; a bundle that a person installs waits too. At most 31 days.",
		Example: "  fulmar ota hold 2h --reason \"acceptance test\"\n  fulmar ota hold off",
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who read the log")
	cli.Takes(c, "reason", "TEXT")
	return build(socket, false, c, func(ctx context.Context, k *call) error {
		in := onboard.HoldUpdates{Reason: reason}
		if k.words[0] != "off" {
			d, err := time.ParseDuration(k.words[0])
			if err != nil || d < time.Minute || d > onboard.MaxHold*time.Second {
				return fmt.Errorf("%w: %q is no time of 1m to 744h, and not off", cli.ErrUsage, k.words[0])
			}
			in.For = int64(d / time.Second)
		}
		var u onboard.Updates
		if err := k.board.Ask(ctx, "POST", "/v1/updates/hold", in, &u); err != nil {
			return err
		}
		err := k.tell(u)
		if in.For > 0 {
			k.say("next: fulmar ota hold off ends it before")
		}
		return err
	})
}

func repairCommand(socket *string) *cobra.Command {
	return build(socket, false, &cobra.Command{
		Use: "repair-floor", Short: "make the record of the lowest release anew, at what the fleet remembers", Args: cli.Words(),
		Long: `Where a disk or the state of a TPM was put back, the board does not know any more which
releases are too old, and installs nothing. This asks the fleet what it remembers of this
board and goes on from there. It wants the link, and a person who knows how that came.`,
	}, func(ctx context.Context, k *call) error {
		var r onboard.RepairedFloor
		if err := k.board.Ask(ctx, "POST", "/v1/updates/floor", struct{}{}, &r); err != nil {
			return err
		}
		if k.json {
			return show.JSON(k.stdout, r)
		}
		fmt.Fprintf(k.stdout, "the floor is at epoch %d; updates go on\n", r.Floor)
		k.say("next: fulmar ota status")
		return nil
	})
}

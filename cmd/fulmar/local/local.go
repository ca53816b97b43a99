// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package local has the commands of fulmar for a person who stands at a board, with or
// without a fleet: they ask fulmard at its own socket (docs/local.md).
package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/local/picture"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/onboard"
)

const about = `It works without a network. What a user may do is said by local.operators and
local.viewers of fulmard's config: members of the group fulmar may look, root and members
of fulmar-operators give commands and set keys. Whoever has a key with the role operator
gives commands with --key.

Exit codes beside the usual ones: 22 refused, 23 failed, 24 too old, 25 cancelled, 6 not
known whether it was done, 124 not over within --timeout.`

// socketPath is where the package's fulmard listens.
const socketPath = "/var/lib/fulmard/" + onboard.Socket

// call is one command under way.
type call struct {
	*board
	format         show.Format
	json           bool // one value, of a command that writes no rows
	words          []string
	stdout, stderr io.Writer
}

// Command is fulmar local.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "local", Short: "see this board and change it, on the board itself", Long: about})
	socket := c.PersistentFlags().String("socket", socketPath, "the socket of fulmard, in its data folder")
	cli.File(c, "socket")
	c.AddCommand(statusCommand(socket), watchCommand(socket), kindsCommand(socket), giveCommand(socket), cancelCommand(socket), logCommand(socket),
		twinCommand(socket), getCommand(socket), setCommand(socket), clearCommand(socket), conflictsCommand(socket), historyCommand(socket))
	return c
}

// quiet tells whether a program reads: nothing is said beside the answer.
func (k *call) quiet() bool { return k.json || k.format.Quiet() }

// form is in what forms a command writes.
type form uint8

const (
	words form = iota // for people alone
	value             // or as JSON
	rows              // or in those of -o
)

// build makes a command that asks the board. Ctrl-C ends it; its errors begin with its name.
func build(socket *string, writes form, c *cobra.Command, do func(context.Context, *call) error) *cobra.Command {
	k := new(call)
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = cli.Nothing
	}
	switch writes {
	case rows:
		k.format.Register(c)
	case value:
		c.Flags().BoolVar(&k.json, "json", false, "as JSON, and no talk")
	}
	c.RunE = func(c *cobra.Command, words []string) error {
		if writes == rows {
			if err := k.format.Check(c); err != nil {
				return err
			}
		}
		k.board, k.words, k.stdout, k.stderr = open(*socket), words, c.OutOrStdout(), c.ErrOrStderr()
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

// say writes talk, which is no answer.
func (k *call) say(form string, args ...any) {
	fmt.Fprintf(k.stderr, form+"\n", args...)
}

// next names the command that a person may want now.
func (k *call) next(command string) {
	if !k.quiet() {
		k.say("next: %s", command)
	}
}

func (k *call) state(ctx context.Context) (s onboard.State, err error) {
	err = k.ask(ctx, "GET", "/v1/state", nil, &s)
	return s, err
}

func statusCommand(socket *string) *cobra.Command {
	return build(socket, value, &cobra.Command{
		Use: "status", Short: "link, autonomy, safety, outputs, rules and the last commands", Args: cli.Words(),
		Example: "  fulmar local status\n  fulmar local status --json | jq .autonomy",
	}, func(ctx context.Context, k *call) error {
		s, err := k.state(ctx)
		if err != nil {
			return err
		}
		if k.quiet() {
			return show.JSON(k.stdout, s)
		}
		log, err := k.recent(ctx, picture.Commands)
		if err != nil {
			return err
		}
		p := picture.Picture{State: s, Log: log, Width: picture.WidthOf(k.stdout), Paint: here.Painter(k.stdout)}
		for _, l := range p.Lines() {
			fmt.Fprintln(k.stdout, l)
		}
		k.next(afterStatus(&s))
		return nil
	})
}

// afterStatus is what a person may want to do with a board in this state.
func afterStatus(s *onboard.State) string {
	switch {
	case s.Safety != nil && s.Safety.Active:
		return "fulmar local give release-safety-shutdown --reason TEXT, when it is safe"
	case s.Conflicts > 0:
		return "fulmar local conflicts"
	case s.You.Role == onboard.RoleOperator:
		return "fulmar local commands"
	}
	return "fulmar local watch"
}

// recent gives the newest commands; none where the board takes none yet.
func (k *call) recent(ctx context.Context, n int) (log []onboard.Entry, err error) {
	err = k.ask(ctx, "GET", fmt.Sprintf("/v1/commands?n=%d", n), nil, &log)
	if notReady(err) {
		return nil, nil
	}
	return log, err
}

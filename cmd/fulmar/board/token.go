// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package board

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

const joinTokens = "/api/v1/join-tokens"

const aboutToken = `The token goes to standard output, and is never shown again. On the board type sudo
fulmar enrol and paste it when it asks, or sudo fulmar enrol TOKEN. It holds the
fleet's address and the fingerprint of its authority, so that the board knows whom it
gives itself to. A board with a TPM needs none: it asks, and you let it in with fulmar
board approve.`

// tokenCommands make, list and end join tokens.
func tokenCommands(shared *remote.Flags) []*cobra.Command {
	spec, life := new(rest.JoinTokenSpec), new(time.Duration)
	issue := remote.Command(shared, false, &cobra.Command{
		Use: "token", Short: "make a join token, with which boards enrol", Args: cli.Words(), Long: aboutToken + "\n\n" + remote.About,
		Example: "  fulmar board token --boards 20 --for 1h >join-token\n  fulmar board token --board dock-9 --for 24h",
	}, func(ctx context.Context, k *remote.Call) error { return makeToken(ctx, k, *spec, *life) })
	issue.Flags().IntVar(&spec.Boards, "boards", 1, "how many boards may enrol with it")
	issue.Flags().StringVar(&spec.Board, "board", "", "only for this board, which may be enrolled already")
	issue.Flags().DurationVar(life, "for", time.Hour, "how long it is good for, at most 720h")
	cli.Takes(issue, "boards", "N")
	cli.Takes(issue, "board", "NAME")
	cli.Takes(issue, "for", "TIME")
	return []*cobra.Command{
		issue,
		remote.Command(shared, true, &cobra.Command{
			Use: "tokens", Short: "the join tokens with which boards can still enrol, never their secrets", Args: cli.Words(), Long: remote.About,
			Example: "  fulmar board tokens",
		}, listTokens),
		remote.Command(shared, false, &cobra.Command{
			Use: "token-revoke ID", Short: "end a join token, now; boards that enrolled with it stay", Args: cli.Words("an ID"), Long: "ID is what fulmar board tokens shows.\n\n" + remote.About,
			Example: "  fulmar board token-revoke 1f0c2d3e4b5a6978",
		}, func(ctx context.Context, k *remote.Call) error {
			if err := k.Remove(ctx, joinTokens+"/"+url.PathEscape(k.Words[0])); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "no board enrols with %s any more; those that did stay: fulmar board revoke shuts one out\n", k.Words[0])
			return nil
		}),
	}
}

func makeToken(ctx context.Context, k *remote.Call, spec rest.JoinTokenSpec, life time.Duration) error {
	switch {
	case life < time.Second:
		return fmt.Errorf("%w: --for takes at least 1s", cli.ErrUsage)
	case spec.Boards < 1:
		return fmt.Errorf("%w: --boards takes at least 1", cli.ErrUsage)
	}
	spec.Seconds = int(life / time.Second)
	var made rest.MadeJoinToken
	if err := k.Post(ctx, joinTokens, spec, &made); err != nil {
		return err
	}
	if made.Token == "" {
		return fault.New(fault.Refused, "the fleet made join token %s and did not tell it: fulmar board token-revoke %[1]s, and make another", show.Clean(made.ID))
	}
	fmt.Fprintln(k.Stdout, made.Token)
	whom := strconv.Itoa(made.Boards) + " boards of any name"
	switch {
	case made.Board != "":
		whom = made.Board + " alone"
	case made.Boards == 1:
		whom = "one board of any name"
	}
	fmt.Fprintf(k.Stderr, "join token %s for %s, good until %s, shown this once; on the board type sudo fulmar enrol and paste it; fulmar board token-revoke %[1]s ends it\n",
		show.Clean(made.ID), show.Clean(whom), show.At(made.Expires))
	return nil
}

func listTokens(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.JoinToken](ctx, k.Client, joinTokens, nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.JoinToken]
	now := time.Now()
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "id", Of: func(t rest.JoinToken) string { return t.ID }},
		col{Name: "boards left", Of: func(t rest.JoinToken) string { return strconv.Itoa(t.Boards) }},
		col{Name: "only for", Of: func(t rest.JoinToken) string { return t.Board }},
		col{Name: "ends", Of: func(t rest.JoinToken) string { return show.Age(t.Expires, now) }},
	)
}

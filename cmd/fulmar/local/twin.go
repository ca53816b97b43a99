// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/local/picture"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/onboard"
)

func path(s string) string { return url.PathEscape(s) }

func notReady(err error) bool { return err != nil && fault.Is(err, fault.NotReady) }

func logCommand(socket *string) *cobra.Command {
	n := 0
	c := &cobra.Command{
		Use: "log", Short: "the last commands and how they ended, newest first", Args: cli.Words(),
		Example: "  fulmar local log -n 5\n  fulmar local log --json | jq -r '.[] | select(.state == \"failed\") | .text'",
	}
	c.Flags().IntVarP(&n, "lines", "n", 20, "so many")
	cli.Takes(c, "lines", "N")
	return build(socket, rows, c, func(ctx context.Context, k *call) error {
		if n < 1 || n > onboard.MaxRecent {
			return fmt.Errorf("%w: --lines %d, wants 1 to %d", cli.ErrUsage, n, onboard.MaxRecent)
		}
		log, err := k.recent(ctx, n)
		if err != nil {
			return err
		}
		type e = onboard.Entry
		at := time.Now()
		return show.Rows(k.stdout, &k.format, log,
			show.Column[e]{Name: "id", Of: func(x e) string { return x.ID }},
			show.Column[e]{Name: "when", Of: func(x e) string { return picture.Clock(picture.Given(&x), at) }},
			show.Column[e]{Name: "command", Of: func(x e) string { return x.Name }},
			show.Column[e]{Name: "state", Of: func(x e) string { return x.State }},
			show.Column[e]{Name: "who", Of: picture.Who},
			show.Column[e]{Name: "why", Of: picture.Why},
			show.Column[e]{Name: "arguments", Wide: true, Of: func(x e) string { return string(x.Args) }},
			show.Column[e]{Name: "answer", Wide: true, Of: func(x e) string { return string(x.Value) }},
		)
	})
}

func twinCommand(socket *string) *cobra.Command {
	return build(socket, rows, &cobra.Command{
		Use: "twin", Short: "the keys that the fleet or somebody at the board has set", Args: cli.Words(),
		Long: "What a key does is told in docs/twin.md. A key that is set on the board holds over the\nfleet's until its lease ends, it is cleared, or its policy decides otherwise.",
	}, func(ctx context.Context, k *call) error {
		var keys []onboard.Key
		if err := k.ask(ctx, "GET", "/v1/twin", nil, &keys); err != nil {
			return err
		}
		err := show.Rows(k.stdout, &k.format, keys,
			show.Column[onboard.Key]{Name: "key", Of: func(x onboard.Key) string { return x.Key }},
			show.Column[onboard.Key]{Name: "value", Of: func(x onboard.Key) string { return string(x.Value) }},
			show.Column[onboard.Key]{Name: "from", Of: func(x onboard.Key) string { return x.From }},
			show.Column[onboard.Key]{Name: "who", Of: func(x onboard.Key) string { return x.Author }},
			show.Column[onboard.Key]{Name: "left", Of: func(x onboard.Key) string { return left(x.Left) }},
			show.Column[onboard.Key]{Name: "why", Of: func(x onboard.Key) string { return strings.TrimPrefix(x.Reason+remarks(&x), "; ") }},
		)
		if err == nil {
			k.next("fulmar local set KEY=VALUE --for TIME --reason TEXT")
		}
		return err
	})
}

// remarks is what else is to be said of a key.
func remarks(x *onboard.Key) string {
	s := ""
	if x.Refused != "" {
		s += "; the fleet's value is not taken: " + x.Refused
	}
	if x.Conflict {
		s += "; in conflict with the fleet's: fulmar local conflicts"
	}
	if x.OnTrial {
		s += "; on trial: the board goes back from it if it falls ill"
	}
	return s
}

func left(s int64) string {
	if s == 0 {
		return ""
	}
	return picture.Span(s)
}

func getCommand(socket *string) *cobra.Command {
	return build(socket, value, &cobra.Command{
		Use: "get KEY", Short: "the value of one key that holds now, as JSON", Args: cli.Words("a KEY"),
		Example: "  fulmar local get sample.fast.period",
	}, func(ctx context.Context, k *call) error {
		var x onboard.Key
		if err := k.ask(ctx, "GET", "/v1/twin/keys/"+path(k.words[0]), nil, &x); err != nil {
			return err
		}
		if k.quiet() {
			return show.JSON(k.stdout, x)
		}
		fmt.Fprintln(k.stdout, show.Clean(string(x.Value)))
		k.say("%s", holds(&x))
		return nil
	})
}

// holds says where a key's value is from and for how long.
func holds(x *onboard.Key) string {
	s := "from the " + show.Clean(x.From)
	if x.From == "" {
		s = "nobody has set it"
	}
	if x.Author != "" {
		s += ", by " + show.Clean(x.Author)
	}
	if x.Left > 0 {
		s += ", for " + picture.Span(x.Left) + " more"
	} else if x.From == "board" {
		s += ", until it is cleared"
	}
	return s + show.Clean(remarks(x))
}

func setCommand(socket *string) *cobra.Command {
	var lease time.Duration
	var reason string
	c := &cobra.Command{
		Use: "set KEY=VALUE", Short: "set a key of the twin on this board, also without the fleet", Args: cli.Words("KEY=VALUE"),
		Long: `VALUE is JSON; what is no JSON is text. With --for the fleet's value holds again after
that time, counted while the board runs; without, until fulmar local clear. The fleet
sees it, and where both have changed a key the key's policy decides.`,
		Example: `  fulmar local set sample.fast.period=5s --for 1h --reason "noisy line"
  fulmar local set 'shed=["lower-rate","pause"]' --reason "fan is broken"`,
	}
	c.Flags().DurationVar(&lease, "for", 0, "the time for which it holds; 0: until it is cleared")
	c.Flags().StringVar(&reason, "reason", "", "why, for those who read the history")
	cli.Takes(c, "for", "TIME")
	cli.Takes(c, "reason", "TEXT")
	return build(socket, value, c, func(ctx context.Context, k *call) error {
		key, text, ok := strings.Cut(k.words[0], "=")
		if !ok || key == "" || text == "" {
			return fmt.Errorf("%w: %q is not of the form KEY=VALUE", cli.ErrUsage, k.words[0])
		}
		if lease != 0 && lease < time.Second {
			return fmt.Errorf("%w: --for %v, wants 1s or more", cli.ErrUsage, lease)
		}
		var x onboard.Key
		if err := k.ask(ctx, "PUT", "/v1/twin/keys/"+path(key), onboard.Set{Value: jsonOf(text), For: int64(lease / time.Second), Reason: reason}, &x); err != nil {
			return err
		}
		if k.quiet() {
			return show.JSON(k.stdout, x)
		}
		fmt.Fprintf(k.stdout, "%s=%s\n", show.Clean(x.Key), show.Clean(string(x.Value)))
		k.say("%s", holds(&x))
		k.next("fulmar local clear " + key)
		return nil
	})
}

// jsonOf takes what a person typed as JSON, or as text if it is none.
func jsonOf(text string) json.RawMessage {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	b, err := json.Marshal(text)
	if err != nil {
		return json.RawMessage(`""`) // a string is always JSON
	}
	return b
}

func clearCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use: "clear KEY", Short: "take back what was set on this board: the fleet's value holds again", Args: cli.Words("a KEY"),
		Example: "  fulmar local clear sample.fast.period",
	}
	return build(socket, value, c, func(ctx context.Context, k *call) error {
		var x onboard.Cleared
		if err := k.ask(ctx, "DELETE", "/v1/twin/keys/"+path(k.words[0]), nil, &x); err != nil {
			return err
		}
		switch {
		case k.quiet():
			return show.JSON(k.stdout, x)
		case !x.Was:
			return fault.New(fault.NotOnBoard, "%s was not set on this board", k.words[0])
		case len(x.Key.Value) > 0:
			fmt.Fprintf(k.stdout, "%s=%s\n", show.Clean(x.Key.Key), show.Clean(string(x.Key.Value)))
		}
		k.say("%s", holds(&x.Key))
		k.next("fulmar local twin")
		return nil
	})
}

func conflictsCommand(socket *string) *cobra.Command {
	return build(socket, rows, &cobra.Command{
		Use: "conflicts", Short: "keys that the fleet and the board set without knowing of each other", Args: cli.Words(),
		Long: "The value in HOLDS is in force until a person decides: in the fleet (fulmar conflict\nlist), or here by setting or clearing the key.",
	}, func(ctx context.Context, k *call) error {
		var all []onboard.Conflict
		if err := k.ask(ctx, "GET", "/v1/twin/conflicts", nil, &all); err != nil {
			return err
		}
		type c = onboard.Conflict
		err := show.Rows(k.stdout, &k.format, all,
			show.Column[c]{Name: "key", Of: func(x c) string { return x.Key }},
			show.Column[c]{Name: "holds", Of: func(x c) string { return string(x.Holds) }},
			show.Column[c]{Name: "fleet", Of: func(x c) string { return edits(x.Fleet) }},
			show.Column[c]{Name: "board", Of: func(x c) string { return edits(pointers(x.Board)...) }},
			show.Column[c]{Name: "policy", Of: func(x c) string { return x.Policy }},
		)
		switch {
		case err != nil || k.format.Quiet():
		case len(all) == 0:
			fmt.Fprintln(k.stderr, "nothing waits for a person: board and fleet agree")
		default:
			k.next("fulmar local set KEY=VALUE, or fulmar local clear KEY for the fleet's")
		}
		return err
	})
}

func pointers(all []onboard.Edit) (out []*onboard.Edit) {
	for i := range all {
		out = append(out, &all[i])
	}
	return out
}

func edits(all ...*onboard.Edit) string {
	var out []string
	for _, e := range all {
		if e == nil {
			continue
		}
		v := string(e.Value)
		if v == "" {
			v = "(deleted)"
		}
		out = append(out, v+" by "+e.Author)
	}
	return strings.Join(out, ", ")
}

func historyCommand(socket *string) *cobra.Command {
	n := 0
	c := &cobra.Command{Use: "history", Short: "who changed which key of the twin, newest first", Args: cli.Words()}
	c.Flags().IntVarP(&n, "lines", "n", 20, "so many")
	cli.Takes(c, "lines", "N")
	return build(socket, rows, c, func(ctx context.Context, k *call) error {
		if n < 1 || n > onboard.MaxRecent {
			return fmt.Errorf("%w: --lines %d, wants 1 to %d", cli.ErrUsage, n, onboard.MaxRecent)
		}
		var all []onboard.Change
		if err := k.ask(ctx, "GET", fmt.Sprintf("/v1/twin/history?n=%d", n), nil, &all); err != nil {
			return err
		}
		type c = onboard.Change
		at := time.Now()
		return show.Rows(k.stdout, &k.format, all,
			show.Column[c]{Name: "when", Of: func(x c) string { return picture.Clock(x.At, at) }},
			show.Column[c]{Name: "what", Of: func(x c) string { return x.Kind }},
			show.Column[c]{Name: "key", Of: func(x c) string { return x.Key }},
			show.Column[c]{Name: "value", Of: func(x c) string { return string(x.Value) }},
			show.Column[c]{Name: "who", Of: func(x c) string { return x.Author }},
			show.Column[c]{Name: "why", Of: func(x c) string { return x.Reason }},
		)
	})
}

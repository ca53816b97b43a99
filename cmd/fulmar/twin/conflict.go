// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// ConflictCommand is fulmar conflict.
func ConflictCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "conflict", Short: "keys set in the fleet and on the board apart, that a person decides",
		Long: "Until it is decided the board's value holds: who is there may see what nobody else does.\n\n" + remote.About,
	})
	f := new(remote.Flags)
	f.Register(c)
	c.AddCommand(remote.Command(f, true, &cobra.Command{
		Use: "list", Short: "what is to be decided, with both values", Args: cli.Words(), Example: "  fulmar conflict list",
	}, listConflicts), decideCommand(f))
	return c
}

func listConflicts(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.TwinConflict](ctx, k.Client, "/api/v1/conflicts", nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.TwinConflict]
	now := time.Now()
	err = show.Rows(k.Stdout, &k.Format, all,
		col{Name: "board", Of: func(c rest.TwinConflict) string { return c.Board }},
		col{Name: "key", Of: func(c rest.TwinConflict) string { return c.Key }},
		col{Name: "fleet", Of: func(c rest.TwinConflict) string {
			if c.Fleet == nil {
				return ""
			}
			return edit(*c.Fleet)
		}},
		col{Name: "board has", Of: func(c rest.TwinConflict) string {
			if len(c.Edits) == 0 {
				return ""
			}
			return edit(c.Edits[0])
		}},
		col{Name: "for", Of: func(c rest.TwinConflict) string { return show.Age(c.Since, now) }},
	)
	switch {
	case err != nil || k.Format.Quiet():
	case len(all) == 0:
		fmt.Fprintln(k.Stderr, "nothing waits for a person: board and fleet agree everywhere")
	default:
		fmt.Fprintf(k.Stderr, "%s for a person; until then the board's value holds\nnext: fulmar conflict decide %s %s --choose fleet\n", plural(len(all), "key waits", "keys wait"), show.Clean(all[0].Board), show.Clean(all[0].Key))
	}
	return err
}

// edit tells of an edit: what, by whom.
func edit(e rest.TwinEdit) string {
	s := cmpNone(e.Value)
	if e.Author != "" {
		s += " by " + e.Author
	}
	return s
}

func decideCommand(shared *remote.Flags) *cobra.Command {
	d := new(rest.TwinDecision)
	value, dry := "", false
	c := &cobra.Command{
		Use: "decide BOARD KEY", Short: "settle one: the fleet's value, the board's, or another", Args: cli.Words("a BOARD", "a KEY"),
		Example: "  fulmar conflict decide dock-1 limit.valve.max --choose board --reason 'asked the shift leader'\n  fulmar conflict decide dock-1 limit.valve.max --value 40",
	}
	fl := c.Flags()
	fl.StringVar(&d.Choose, "choose", "", "fleet or board: whose value holds")
	fl.StringVar(&value, "value", "", "another value, as fulmar twin set takes it")
	fl.StringVar(&d.Reason, "reason", "", "for the history and the audit log")
	fl.BoolVar(&dry, "dry-run", false, "look whether it can be done, and change nothing")
	cli.Values(c, "choose", rest.ChooseFleet, rest.ChooseBoard)
	for flag, takes := range map[string]string{"choose": "WORD", "value": "VALUE", "reason": "TEXT"} {
		cli.Takes(c, flag, takes)
	}
	return remote.Command(shared, false, c, func(ctx context.Context, k *remote.Call) error {
		if (d.Choose != "") == k.Changed("value") {
			return fmt.Errorf("%w: which value? --choose fleet, --choose board, or --value VALUE", cli.ErrUsage)
		}
		if k.Changed("value") {
			d.Choose, d.Value = rest.ChooseValue, asJSON(value)
		}
		d.Board, d.Key = k.Words[0], k.Words[1]
		r := remote.Request{Method: http.MethodPost, Path: "/api/v1/conflicts/decide", Body: d}
		if dry {
			return try(ctx, k, r)
		}
		var t rest.Twin
		if _, err := k.Do(ctx, r, &t); err != nil {
			return remote.Unsure(err)
		}
		fmt.Fprintf(k.Stderr, "%s of %s is decided; the board gets version %d\nnext: fulmar twin show %s\n", d.Key, d.Board, t.Version, d.Board)
		return nil
	})
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package twin has the commands of fulmar about what boards shall be, and about keys
// that were set in the fleet and on the board apart.
package twin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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

const about = `A twin holds what a board shall be: log level, sampling, models, rules, limits, and
app.* for your own. What is set here reaches a board that is away when it comes back.
Somebody on the board may set a key there for a time; the policy of the key says whose
word holds, and a key of policy hold waits for a person: fulmar conflict list.

`

// Command is fulmar twin.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "twin", Short: "what boards shall be, are, and had set on them", Long: about + remote.About})
	f := new(remote.Flags)
	f.Register(c)
	c.AddCommand(showCommand(f), setCommand(f), unsetCommand(f), historyCommand(f))
	return c
}

func path(board string) string { return "/api/v1/boards/" + url.PathEscape(board) + "/twin" }

func showCommand(shared *remote.Flags) *cobra.Command {
	reported := false
	c := remote.Command(shared, true, &cobra.Command{
		Use: "show BOARD", Short: "the keys that are set on a board, and whether it has them", Args: cli.Words("a BOARD"),
		Example: "  fulmar twin show dock-1\n  fulmar twin show dock-1 --reported",
	}, func(ctx context.Context, k *remote.Call) error {
		var t rest.Twin
		if err := k.Get(ctx, path(k.Words[0]), nil, &t); err != nil {
			return err
		}
		if reported {
			return rows(k, t.Reported)
		}
		type col = show.Column[rest.TwinKey]
		err := show.Rows(k.Stdout, &k.Format, t.Keys,
			col{Name: "key", Of: func(x rest.TwinKey) string { return x.Key }},
			col{Name: "value", Of: func(x rest.TwinKey) string { return k.Format.Value(x.Value) }},
			col{Name: "from", Of: func(x rest.TwinKey) string { return x.From }},
			col{Name: "by", Of: by},
			col{Name: "state", Of: func(x rest.TwinKey) string { return x.State }},
			col{Name: "policy", Wide: true, Of: func(x rest.TwinKey) string { return x.Policy }},
			col{Name: "remark", Of: func(x rest.TwinKey) string { return remark(x, t.Reported) }},
		)
		if err == nil && !k.Format.Quiet() {
			fmt.Fprintln(k.Stderr, stands(&t, time.Now()))
		}
		return err
	})
	c.Flags().BoolVar(&reported, "reported", false, "what the board says it is")
	return c
}

// stands tells in a sentence how far a board is, and what to look at next.
func stands(t *rest.Twin, now time.Time) string {
	var not []string
	for _, k := range t.Keys {
		if k.State == "refused" || k.State == "undone" {
			not = append(not, k.Key)
		}
	}
	heard := "heard " + show.Ago(t.Seen, now)
	next := func(s string) string { return "\nnext: fulmar " + s }
	switch {
	case t.Seen.IsZero() && t.Version == 0:
		return t.Board + " has not spoken of its twin, and nothing is set" + next("twin set "+t.Board+" KEY=VALUE")
	case t.Seen.IsZero():
		return fmt.Sprintf("%s has not spoken of its twin; version %d waits for it", t.Board, t.Version) + next("board show "+t.Board)
	case t.Conflicts > 0:
		return fmt.Sprintf("%s: %s for a person; version %d, the board has %d, %s", t.Board, plural(t.Conflicts, "key waits", "keys wait"), t.Version, t.Applied, heard) + next("conflict list")
	case !t.InSync:
		return fmt.Sprintf("%s is not yet as it shall be: version %d, the board has %d, %s", t.Board, t.Version, t.Applied, heard) + next("twin show "+t.Board)
	case len(not) > 0:
		return fmt.Sprintf("%s does not take %s: version %d, %s", t.Board, strings.Join(not, ", "), t.Version, heard) + next("twin history "+t.Board)
	}
	return fmt.Sprintf("%s is as it shall be: version %d, %s", t.Board, t.Version, heard) + next("twin show "+t.Board+" --reported")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// by names who set what holds.
func by(x rest.TwinKey) string {
	switch {
	case x.From == "board" && len(x.Board) > 0:
		return x.Board[0].Author
	case x.Fleet != nil:
		return x.Fleet.Author
	}
	return ""
}

// remark tells why a key is not applied, and what it would be else.
func remark(x rest.TwinKey, reported map[string]json.RawMessage) string {
	is := ""
	if v, ok := reported["config."+x.Key]; ok && x.From == "fleet" {
		is = "; the board has " + string(v)
	}
	switch {
	case x.Refused != "" && x.From == "board" && x.Fleet != nil:
		return "the fleet wants " + cmpNone(x.Fleet.Value) + ", not taken: " + x.Refused
	case x.Refused != "":
		return x.Refused + is
	case x.From == "board" && x.Fleet != nil:
		return "the fleet wants " + cmpNone(x.Fleet.Value)
	case x.From == "board" && len(x.Board) > 0 && x.Board[0].LeaseS > 0:
		return fmt.Sprintf("for %v", time.Duration(x.Board[0].LeaseS)*time.Second)
	case x.Value == nil:
		return "taken away"
	}
	return ""
}

func cmpNone(v json.RawMessage) string {
	if v == nil {
		return "none"
	}
	return string(v)
}

// rows writes what a board reports, by key.
func rows(k *remote.Call, reported map[string]json.RawMessage) error {
	type one struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	var all []one
	for _, key := range slices.Sorted(maps.Keys(reported)) {
		all = append(all, one{key, reported[key]})
	}
	return show.Rows(k.Stdout, &k.Format, all,
		show.Column[one]{Name: "key", Of: func(x one) string { return x.Key }},
		show.Column[one]{Name: "value", Of: func(x one) string { return k.Format.Value(x.Value) }},
	)
}

func historyCommand(shared *remote.Flags) *cobra.Command {
	limit := 0
	c := remote.Command(shared, true, &cobra.Command{
		Use: "history BOARD", Short: "who changed what, newest first", Args: cli.Words("a BOARD"), Example: "  fulmar twin history dock-1 --limit 20",
	}, func(ctx context.Context, k *remote.Call) error {
		all, err := remote.All[rest.TwinEvent](ctx, k.Client, path(k.Words[0])+"/history", nil, limit)
		if err != nil {
			return err
		}
		type col = show.Column[rest.TwinEvent]
		return show.Rows(k.Stdout, &k.Format, all,
			col{Name: "at", Of: func(e rest.TwinEvent) string { return show.At(e.At) }},
			col{Name: "what", Of: func(e rest.TwinEvent) string { return e.Kind }},
			col{Name: "key", Of: func(e rest.TwinEvent) string { return e.Key }},
			col{Name: "value", Of: func(e rest.TwinEvent) string { return k.Format.Value(e.Value) }},
			col{Name: "version", Wide: true, Of: version},
			col{Name: "by", Of: func(e rest.TwinEvent) string { return e.Author }},
			col{Name: "lost", Wide: true, Of: lost},
			col{Name: "reason", Of: func(e rest.TwinEvent) string { return e.Reason }},
		)
	})
	c.Flags().IntVar(&limit, "limit", 0, "so many events; all that are kept")
	cli.Takes(c, "limit", "N")
	return c
}

func version(e rest.TwinEvent) string {
	if e.Version == 0 {
		return ""
	}
	return fmt.Sprint(e.Version)
}

// lost lists what was set and does not hold any more.
func lost(e rest.TwinEvent) string {
	var out []string
	for _, l := range e.Lost {
		out = append(out, cmpNone(l.Value)+" of "+l.Author)
	}
	return strings.Join(out, ", ")
}

// told writes what became of many boards: those that failed, by name.
func told(w io.Writer, all []rest.TwinChanged) (failed int) {
	for _, c := range all {
		if c.Error != "" {
			failed++
			fmt.Fprintf(w, "%s: %s\n", c.Board, show.Clean(c.Error))
		}
	}
	return failed
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// atOnce is how many boards are changed by one request: after each it is told how many
// are through, and an end midway leaves off there.
const atOnce = 500

const aboutSet = `Either one BOARD, or all that -q matches. A value is JSON, and text where it is none:
log.level=debug, app.limit=12.5, model.forklift.paused=true, app.note='"12"'. Boards
that were not changed are named, and do not hold up the others. docs/twin.md lists
the keys; a board says of each key why it does not take it.`

// setFlags are the options of set and unset.
type setFlags struct {
	query, reason string
	dry           bool
}

func (f *setFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVarP(&f.query, "query", "q", "", "all boards that it matches")
	fl.StringVar(&f.reason, "reason", "", "for the history and the audit log")
	fl.BoolVar(&f.dry, "dry-run", false, "say what would change and what may be refused, and change nothing")
	cli.Takes(c, "query", "QUERY")
	cli.Takes(c, "reason", "TEXT")
}

func setCommand(shared *remote.Flags) *cobra.Command {
	f := new(setFlags)
	c := &cobra.Command{
		Use: "set {BOARD | -q QUERY} KEY=VALUE...", Short: "say what boards shall be", Long: aboutSet, Args: cobra.MinimumNArgs(1),
		Example: "  fulmar twin set dock-1 log.level=debug --reason 'looks odd'\n  fulmar twin set -q 'site = hall-4' sample.thermal.period=5s --dry-run",
	}
	f.register(c)
	return remote.Command(shared, false, c, func(ctx context.Context, k *remote.Call) error {
		return change(ctx, k, f, func(word string) (string, json.RawMessage, error) {
			key, value, ok := strings.Cut(word, "=")
			if !ok || key == "" {
				return "", nil, fmt.Errorf("%w: %q is not KEY=VALUE", cli.ErrUsage, word)
			}
			return key, asJSON(value), nil
		})
	})
}

func unsetCommand(shared *remote.Flags) *cobra.Command {
	f := new(setFlags)
	c := &cobra.Command{
		Use: "unset {BOARD | -q QUERY} KEY...", Short: "leave keys to the boards' own config again", Long: "Either one BOARD, or all that -q matches.", Args: cobra.MinimumNArgs(1),
		Example: "  fulmar twin unset dock-1 log.level",
	}
	f.register(c)
	return remote.Command(shared, false, c, func(ctx context.Context, k *remote.Call) error {
		return change(ctx, k, f, func(word string) (string, json.RawMessage, error) {
			if strings.Contains(word, "=") {
				return "", nil, fmt.Errorf("%w: %q is no KEY; fulmar twin set takes KEY=VALUE", cli.ErrUsage, word)
			}
			return word, json.RawMessage("null"), nil
		})
	})
}

// asJSON gives a value as JSON: itself where it is some, else as text.
func asJSON(s string) json.RawMessage {
	if json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	b, _ := json.Marshal(s) // text always does
	return b
}

// change reads the words and does what they say.
func change(ctx context.Context, k *remote.Call, f *setFlags, read func(word string) (string, json.RawMessage, error)) error {
	words, board := k.Words, ""
	if f.query == "" {
		board, words = words[0], words[1:]
	}
	p := rest.TwinPatch{Set: map[string]json.RawMessage{}, Reason: f.reason}
	for _, w := range words {
		key, value, err := read(w)
		if err != nil {
			return err
		}
		if p.Set[key] != nil {
			return fmt.Errorf("%w: %s stands there twice", cli.ErrUsage, key)
		}
		p.Set[key] = value
	}
	if len(p.Set) == 0 || strings.Contains(board, "=") {
		return fmt.Errorf("%w: which boards, and which keys? one BOARD or -q QUERY, then at least one key", cli.ErrUsage)
	}
	if board != "" {
		return one(ctx, k, f, board, p)
	}
	if f.dry {
		return try(ctx, k, remote.Request{Method: http.MethodPost, Path: "/api/v1/twins", Body: rest.TwinBulk{Query: f.query, TwinPatch: p}})
	}
	return many(ctx, k, f, p)
}

// try asks what a request would do.
func try(ctx context.Context, k *remote.Call, r remote.Request) error {
	r.Query = url.Values{"dry_run": {"true"}}
	var d rest.DryRun
	if _, err := k.Do(ctx, r, &d); err != nil {
		return err
	}
	fmt.Fprintf(k.Stderr, "%s\nnothing was changed\n", show.Clean(d.Would))
	return nil
}

func one(ctx context.Context, k *remote.Call, f *setFlags, board string, p rest.TwinPatch) error {
	var t rest.Twin
	etag, err := k.Do(ctx, remote.Request{Path: path(board)}, &t)
	if err != nil {
		return err
	}
	r := remote.Request{Method: http.MethodPatch, Path: path(board), IfMatch: etag, Body: p}
	if f.dry {
		return try(ctx, k, r)
	}
	was := t.Version
	if _, err := k.Do(ctx, r, &t); err != nil {
		return remote.Unsure(err)
	}
	if t.Version == was {
		fmt.Fprintf(k.Stderr, "%s shall be so already: version %d\n", board, was)
		return nil
	}
	fmt.Fprintf(k.Stderr, "%s gets version %d\nnext: fulmar twin show %s, which tells when it has it\n", board, t.Version, board)
	return nil
}

// many changes all boards that match, so many at once.
func many(ctx context.Context, k *remote.Call, f *setFlags, p rest.TwinPatch) error {
	boards, err := remote.All[rest.BoardSummary](ctx, k.Client, "/api/v1/boards", url.Values{"q": {f.query}}, 0)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range boards {
		names = append(names, b.Board)
	}
	if len(names) == 0 {
		return fault.New(fault.NoBoard, "no board matches %q", f.query)
	}
	through, failed := 0, 0
	for part := range slices.Chunk(names, atOnce) {
		var done rest.List[rest.TwinChanged]
		if err := k.Post(ctx, "/api/v1/twins", rest.TwinBulk{Boards: part, TwinPatch: p}, &done); err != nil {
			return fmt.Errorf("after %d of %d boards: %w", through, len(names), err)
		}
		failed += told(k.Stderr, done.Items)
		if through += len(part); len(names) > atOnce {
			fmt.Fprintf(k.Stderr, "%d of %d boards\n", through, len(names))
		}
	}
	if failed > 0 {
		return fault.New(fault.Refused, "%d of %d boards were not changed; they are named above", failed, len(names))
	}
	fmt.Fprintf(k.Stderr, "%d boards are changed; fulmar twin show BOARD tells when one has it\n", len(names))
	return nil
}

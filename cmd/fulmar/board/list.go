// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package board

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/schema/rest"
)

const aboutList = `A query is the same here, on the page and as the target of a rollout:
  site in (a,b) and not state=unreachable and temp.tj > 85 and seen > 2h ago
A bare word is the beginning of a name. docs/query.md has all fields.`

// requests reads which boards ask to join.
func requests(ctx context.Context, fl *remote.Client) ([]waiting, error) {
	var r struct{ Requests []waiting }
	err := fl.Get(ctx, "/api/v1/requests", nil, &r)
	return r.Requests, err
}

func boardList(ctx context.Context, fl *remote.Client, f *boardFlags, stdout, stderr io.Writer) error {
	q := url.Values{}
	if f.query != "" {
		q.Set("q", f.query)
	}
	if f.sort != "" {
		q.Set("sort", f.sort)
	}
	if f.count {
		q.Set("page_size", "1")
		q.Set("count", "true")
		var page rest.List[rest.BoardSummary]
		if err := fl.Get(ctx, "/api/v1/boards", q, &page); err != nil {
			return err
		}
		if page.Total == nil {
			return fault.New(fault.Refused, "the fleet gave no count: it is older than this program")
		}
		_, err := fmt.Fprintln(stdout, *page.Total)
		return err
	}
	boards, err := remote.All[rest.BoardSummary](ctx, fl, "/api/v1/boards", q, 0)
	if err != nil {
		return err
	}
	if !f.format.Quiet() {
		if err := asking(ctx, fl, f, stdout, stderr); err != nil {
			return err
		}
	}
	now := time.Now()
	return show.Rows(stdout, &f.format, boards,
		show.Column[rest.BoardSummary]{Name: "board", Of: func(b rest.BoardSummary) string { return b.Board }},
		show.Column[rest.BoardSummary]{Name: "state", Of: stateOf},
		show.Column[rest.BoardSummary]{Name: "site", Of: func(b rest.BoardSummary) string { return b.Site }},
		show.Column[rest.BoardSummary]{Name: "seen", Of: func(b rest.BoardSummary) string { return show.Age(b.LastSeen, now) }},
		show.Column[rest.BoardSummary]{Name: "release", Of: func(b rest.BoardSummary) string { return b.Release }},
		show.Column[rest.BoardSummary]{Name: "key", Wide: true, Of: func(b rest.BoardSummary) string { return b.Trust }},
		show.Column[rest.BoardSummary]{Name: "fingerprint", Wide: true, Of: func(b rest.BoardSummary) string { return b.Fingerprint }},
		show.Column[rest.BoardSummary]{Name: "certificate until", Wide: true, Of: func(b rest.BoardSummary) string { return day(b.Until) }},
		show.Column[rest.BoardSummary]{Name: "cause", Of: func(b rest.BoardSummary) string { return b.Cause }},
	)
}

func stateOf(b rest.BoardSummary) string {
	if !b.Revoked.IsZero() {
		return "revoked"
	}
	return b.State
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateOnly)
}

// asking shows who asks to join, before the boards that are in: a person waits for an
// answer. Who may not decide that is not told.
func asking(ctx context.Context, fl *remote.Client, f *boardFlags, stdout, stderr io.Writer) error {
	if f.query != "" {
		return nil
	}
	all, err := requests(ctx, fl)
	if remote.StatusOf(err) == http.StatusForbidden {
		return nil
	}
	if err != nil || len(all) == 0 {
		return err
	}
	open := 0
	for _, q := range all {
		if q.Decision == "" {
			open++
		}
	}
	err = show.Rows(stdout, &f.format, all,
		show.Column[waiting]{Name: "asks to join", Of: func(q waiting) string { return q.Board }},
		show.Column[waiting]{Name: "id", Of: func(q waiting) string { return strconv.FormatInt(q.ID, 10) }},
		show.Column[waiting]{Name: "key", Of: func(q waiting) string { return q.Trust }},
		show.Column[waiting]{Name: "fingerprint", Of: func(q waiting) string { return q.Fingerprint }},
		show.Column[waiting]{Name: "remark", Of: func(q waiting) string {
			if q.Decision != "" {
				return q.Decision + " by " + q.DecidedBy + "; it has not come back yet"
			}
			return q.Say + " From " + q.From + ", since " + show.At(q.First) + "."
		}},
	)
	if err != nil {
		return err
	}
	if open > 0 {
		fmt.Fprintf(stderr, "%d boards ask to join: compare the fingerprint with the one in the board's log, then fulmar board approve ID, or refuse ID\n", open)
	}
	_, err = fmt.Fprintln(stdout)
	return err
}

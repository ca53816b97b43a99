// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"strconv"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// joinRow is a join token in the list.
type joinRow struct {
	rest.JoinToken
	For, Ends string
}

// joinView is how boards join, and the tokens with which they still can.
type joinView struct {
	Rows []joinRow
	Form *form.Form
}

func (p *pages) joins(ctx context.Context, s *live.Sheet, by access.Caller, f *form.Form) (*joinView, error) {
	list, err := p.cfg.Joins.JoinTokens(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	v := &joinView{Form: f}
	for _, t := range list {
		r := joinRow{JoinToken: t, For: words.Plural(t.Boards, "more board", "more boards") + " of any name", Ends: words.Stamp(t.Expires.In(s.At.Location()), s.At)}
		if t.Board != "" {
			r.For = t.Board + " alone"
		}
		v.Rows = append(v.Rows, r)
	}
	return v, nil
}

// changeJoins makes a join token, or ends one.
func (p *pages) changeJoins(ctx context.Context, by access.Caller, f *form.Form) (*secret, error) {
	switch f.Raw("do") {
	case "revoke":
		id := f.Need("id", maxUserName)
		if !f.OK() {
			return nil, nil
		}
		return nil, p.cfg.Joins.RevokeJoinToken(ctx, by, id)
	case "make":
	default:
		return nil, errNothing
	}
	board := f.Line("board", maxUserName)
	n := f.Whole("boards", 1, 10_000, 1)
	hours, err := strconv.Atoi(f.OneOf("hours", "1", "24", "168"))
	if err != nil || !f.OK() {
		return nil, nil
	}
	life := time.Duration(hours) * time.Hour
	note := "For " + words.Plural(n, "board", "boards") + " of any name, for " + words.Span(life) + "."
	if board != "" {
		n, note = 1, "For "+board+" alone, once. It may replace the key that the board had."
	}
	made, err := p.cfg.Joins.MakeJoinToken(ctx, by, rest.JoinTokenSpec{Boards: n, Board: board, Seconds: int(life / time.Second)})
	if err != nil {
		return nil, err
	}
	return &secret{Title: "On the board", Text: "sudo fulmar enrol " + made.Token, Note: note + " The board appears in the fleet by itself when it has joined."}, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts/route"
	"fulmar/schema/rest"
)

// Twins keeps what boards shall be, and what they say they are. Whether a board is there,
// and the caller's, is looked at before.
type Twins interface {
	// Twin gives an empty one where nothing was said or set.
	Twin(ctx context.Context, tenant, board string) (rest.Twin, error)
	// Patch changes it where its version is ifVersion; -1 is any.
	Patch(ctx context.Context, by access.Caller, board string, p rest.TwinPatch, ifVersion int64) (rest.Twin, error)
	// PatchMany tells of each board what became of it; progress may be nil.
	PatchMany(ctx context.Context, by access.Caller, boards []string, p rest.TwinPatch, progress func(done int)) ([]rest.TwinChanged, error)
	// Check tells of each key what a patch would do, and changes nothing.
	Check(ctx context.Context, by access.Caller, board string, p rest.TwinPatch) ([]rest.TwinCheck, error)
	// History gives events with a number below before, newest first; 0 is from the newest.
	History(ctx context.Context, tenant, board string, before int64, limit int) ([]rest.TwinEvent, error)
	Conflicts(ctx context.Context, tenant string) ([]rest.TwinConflict, error)
	// Conflict gives the one of a key.
	Conflict(ctx context.Context, tenant, board, key string) (*rest.TwinConflict, error)
	Decide(ctx context.Context, by access.Caller, d rest.TwinDecision) (rest.Twin, error)
}

// manyTimeout bounds a change of many boards: 10,000 take some ten seconds.
const manyTimeout = 2 * time.Minute

// twins are the routes of what boards shall be.
type twins struct {
	t     Twins
	looks *look.Looks
}

func (t *twins) mount(d *door.Door) {
	g := route.Group{Tag: "twins", Read: rest.BoardsRead, Edit: rest.CommandsSend}
	many := g.Route("patch-twins", http.MethodPost, "twins", "Change what many boards shall be; each is told of by name")
	many.Timeout = manyTimeout
	door.Handle(d, g.Route("get-twin", http.MethodGet, "boards/{board}/twin", "What a board shall be, is, and had set on it"), t.get)
	door.Handle(d, g.Route("patch-twin", http.MethodPatch, "boards/{board}/twin", "Change what a board shall be; null takes a key away"), t.patch)
	door.Handle(d, g.Route("list-twin-events", http.MethodGet, "boards/{board}/twin/history", "Who changed what of a board, newest first"), t.history)
	door.Handle(d, many, t.patchMany)
	door.Handle(d, g.Route("list-conflicts", http.MethodGet, "conflicts", "Keys that were set in the fleet and on the board, and that a person has to decide"), t.conflicts)
	door.Handle(d, g.Route("decide-conflict", http.MethodPost, "conflicts/decide", "Decide one"), t.decide)
}

type twinOut struct {
	Tag  string `header:"ETag"`
	Body rest.Twin
}

// tagOf is the ETag of a twin: it changes with what the fleet wants, not with what the
// board says.
func tagOf(t *rest.Twin) string { return door.Tag(int64(min(t.Version, 1<<62))) }

func twinOf(t rest.Twin, err error) (*twinOut, error) { return &twinOut{tagOf(&t), t}, err }

func (t *twins) there(ctx context.Context, by access.Caller, board string) error {
	_, err := t.looks.Board(ctx, by, board)
	return err
}

type boardIn struct {
	Board string `path:"board" doc:"Its name"`
}

func (t *twins) get(ctx context.Context, by access.Caller, in *boardIn) (*twinOut, error) {
	if err := t.there(ctx, by, in.Board); err != nil {
		return nil, err
	}
	return twinOf(t.t.Twin(ctx, by.Tenant, in.Board))
}

type patchTwinIn struct {
	Board string `path:"board" doc:"Its name"`
	Match string `header:"If-Match" doc:"The ETag of the twin that is changed; * is whatever there is"`
	Dry   bool   `query:"dry_run" doc:"Check all, tell of each key what the board is likely to say, and change nothing"`
	Body  rest.TwinPatch
}

func (t *twins) patch(ctx context.Context, by access.Caller, in *patchTwinIn) (*twinOut, error) {
	version, err := door.Version(in.Match)
	if err == nil {
		err = t.there(ctx, by, in.Board)
	}
	if err != nil {
		return nil, err
	}
	if version >= 0 {
		now, err := t.t.Twin(ctx, by.Tenant, in.Board)
		if err != nil {
			return nil, err
		}
		if tag := tagOf(&now); tag != door.Tag(version) {
			return nil, door.Stale(int64(now.Version))
		}
	}
	if in.Dry {
		checks, err := t.t.Check(ctx, by, in.Board, in.Body)
		if err != nil {
			return nil, err
		}
		return nil, door.Would(wouldSet(1, checks))
	}
	return twinOf(t.t.Patch(ctx, by, in.Board, in.Body, version))
}

type historyIn struct {
	Board     string `path:"board" doc:"Its name"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"Events of one page"`
	PageToken string `query:"page_token" maxLength:"20" doc:"next of the page before"`
}

func (t *twins) history(ctx context.Context, by access.Caller, in *historyIn) (*route.ListOut[rest.TwinEvent], error) {
	if err := t.there(ctx, by, in.Board); err != nil {
		return nil, err
	}
	before := int64(0)
	if in.PageToken != "" {
		var err error
		if before, err = strconv.ParseInt(in.PageToken, 10, 64); err != nil || before < 1 {
			return nil, door.Fail(rest.CodePageToken, "")
		}
	}
	list, err := t.t.History(ctx, by.Tenant, in.Board, before, in.PageSize)
	out, err := route.ListOf(list, err)
	if len(list) == in.PageSize {
		out.Body.Next = strconv.FormatInt(list[len(list)-1].Seq, 10)
	}
	return out, err
}

type bulkIn struct {
	Dry  bool `query:"dry_run" doc:"Check all, tell of each key what boards are likely to say, and change nothing"`
	Body rest.TwinBulk
}

func (t *twins) patchMany(ctx context.Context, by access.Caller, in *bulkIn) (*route.ListOut[rest.TwinChanged], error) {
	boards, err := t.targets(ctx, by, in.Body.Boards, in.Body.Query)
	if err != nil {
		return nil, err
	}
	door.Patient(ctx, manyTimeout)
	if !in.Dry {
		return route.ListOf(t.t.PatchMany(ctx, by, boards, in.Body.TwinPatch, nil))
	}
	var all []rest.TwinCheck
	for _, b := range boards {
		checks, err := t.t.Check(ctx, by, b, in.Body.TwinPatch)
		if err != nil {
			return nil, err
		}
		all = append(all, checks...)
	}
	return nil, door.Would(wouldSet(len(boards), all))
}

// targets gives the boards that are named, or that a query matches; one of both.
func (t *twins) targets(ctx context.Context, by access.Caller, named []string, query string) ([]string, error) {
	if (len(named) > 0) == (query != "") {
		return nil, door.WrongField("/boards", "name boards, or give a query: one of both")
	}
	seen, err := t.looks.See(ctx, by, query)
	if err != nil {
		return nil, err
	}
	for _, b := range named {
		if _, err := seen.Board(b); err != nil {
			return nil, &door.Error{Code: rest.CodeTargetEmpty, Detail: "boards names one that is not there: " + b, Cause: err}
		}
	}
	if len(named) > 0 {
		return named, nil
	}
	var out []string
	for b := range seen.Each {
		out = append(out, b.Name)
	}
	if len(out) == 0 {
		return nil, door.Fail(rest.CodeTargetEmpty, "")
	}
	return out, nil
}

// maxNamed bounds the boards that a sentence names.
const maxNamed = 5

// wouldSet puts what a patch would do into sentences: one for each key and reason.
func wouldSet(boards int, checks []rest.TwinCheck) string {
	type what struct{ key, does, why string }
	of := map[what][]string{}
	var order []what
	for _, c := range checks {
		w := what{c.Key, c.Does, c.Why}
		if of[w] == nil {
			order = append(order, w)
		}
		of[w] = append(of[w], c.Board)
	}
	slices.SortStableFunc(order, func(a, b what) int { return strings.Compare(a.key, b.key) })
	var say []string
	for _, w := range order {
		s := w.key + " " + map[string]string{
			"set": "would be set", "delete": "would be taken away", "nothing": "is so already", "doubtful": "would be set, and may be refused: " + w.why,
		}[w.does]
		if names := of[w]; len(names) < boards {
			s = fmt.Sprintf("%d boards (%s%s): %s", len(names), strings.Join(names[:min(len(names), maxNamed)], ", "), map[bool]string{true: ", ..."}[len(names) > maxNamed], s)
		}
		say = append(say, s+".")
	}
	return "Of " + strings.TrimSuffix(fmt.Sprintf("%d boards", boards), map[bool]string{true: "s"}[boards == 1]) + ": " + strings.Join(say, " ")
}

func (t *twins) conflicts(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.TwinConflict], error) {
	seen, err := t.looks.Names(ctx, by)
	if err != nil {
		return nil, err
	}
	all, err := t.t.Conflicts(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	out := []rest.TwinConflict{}
	for i := range all {
		if seen == nil || seen(all[i].Board) {
			out = append(out, all[i])
		}
	}
	return route.ListOf(out, nil)
}

type decideIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and change nothing"`
	Body rest.TwinDecision
}

func (t *twins) decide(ctx context.Context, by access.Caller, in *decideIn) (*twinOut, error) {
	if err := t.there(ctx, by, in.Body.Board); err != nil {
		return nil, err
	}
	if !in.Dry {
		return twinOf(t.t.Decide(ctx, by, in.Body))
	}
	c, err := t.t.Conflict(ctx, by.Tenant, in.Body.Board, in.Body.Key)
	if err != nil {
		return nil, err
	}
	return nil, door.Would(fmt.Sprintf("%s of %s would be settled with: %s.", c.Key, c.Board, in.Body.Choose))
}

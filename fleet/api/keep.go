// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/registry"
	"fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// wipeTimeout is how long the removal of a board's data may take: 500 rows a commit.
const wipeTimeout = 10 * time.Minute

// Keeper knows which boards belong to the fleet, and changes that. who and why go into
// the audit log.
type Keeper interface {
	Boards(ctx context.Context, tenant string) ([]registry.Board, error)
	Pending(ctx context.Context, tenant string) ([]registry.Request, error)
	Approve(ctx context.Context, tenant string, id int64, who string) error
	Refuse(ctx context.Context, tenant string, id int64, who string) error
	Revoke(ctx context.Context, tenant, board, who, why string) error
	// Wipe forgets a board and removes all that it sent.
	Wipe(ctx context.Context, tenant, board, who, why string) error
}

// keep are the routes with which boards are let in, shut out and forgotten.
type keep struct {
	k     Keeper
	looks *look.Looks
	ops   *operations
}

func (k *keep) mount(d *door.Door) {
	route := func(id, method, path, summary string) door.Route {
		return door.Route{ID: id, Method: method, Path: path, Tag: "admission", Summary: summary, Right: rest.BoardsAdmit}
	}
	asking := route("list-requests", http.MethodGet, "requests", "Boards that ask to join")
	asking.Right, asking.Whole = rest.BoardsRead, true
	door.Handle(d, asking, k.requests)
	yes, no := route("approve-request", http.MethodPost, "requests/{id}/approve", "Let a board in"), route("refuse-request", http.MethodPost, "requests/{id}/refuse", "Turn a board down")
	yes.Whole, no.Whole = true, true
	door.Handle(d, yes, func(ctx context.Context, by access.Caller, in *decideIn) (*struct{}, error) {
		return k.decide(ctx, by, in, "let in", k.k.Approve)
	})
	door.Handle(d, no, func(ctx context.Context, by access.Caller, in *decideIn) (*struct{}, error) {
		return k.decide(ctx, by, in, "turned down", k.k.Refuse)
	})
	door.Handle(d, route("revoke-board", http.MethodPost, "boards/{board}/revoke", "Shut a board out, now; its data stays"), k.revoke)
	wipe := route("wipe-board", http.MethodDelete, "boards/{board}", "Forget a board and remove all that it sent")
	wipe.Timeout = wipeTimeout
	door.Handle(d, wipe, k.wipe, func(op *huma.Operation) {
		op.DefaultStatus = http.StatusNoContent
		op.Responses["202"] = &huma.Response{Description: "It was begun; Location is the operation", Content: map[string]*huma.MediaType{
			"application/json": {Schema: d.SchemaOf(rest.Operation{})},
		}}
	})
	door.Handle(d, route("get-operation", http.MethodGet, "operations/{id}", "How far a long change is"), k.operation)
}

// reason is the body of a change that a person gives a reason for.
type reason struct {
	Why string `json:"why,omitempty" maxLength:"400" doc:"The reason, for the audit log"`
}

func (r *reason) text() (string, error) {
	if r == nil {
		return "", nil
	}
	if len(r.Why) > 400 { // maxLength counts characters
		return "", door.WrongField("/why", "takes at most 400 bytes")
	}
	return r.Why, nil
}

type decideIn struct {
	ID   int64   `path:"id" doc:"The number of the request"`
	Dry  bool    `query:"dry_run" doc:"Check all and change nothing"`
	Body *reason `required:"false"`
}

func (k *keep) decide(ctx context.Context, by access.Caller, in *decideIn, done string, do func(context.Context, string, int64, string) error) (*struct{}, error) {
	if _, err := in.Body.text(); err != nil {
		return nil, err
	}
	if !in.Dry {
		return nil, kept(do(ctx, by.Tenant, in.ID, by.Who))
	}
	pending, err := k.k.Pending(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(pending, func(q registry.Request) bool { return q.ID == in.ID && q.Decision == "" })
	if i < 0 {
		return nil, web.ErrNotFound
	}
	return nil, door.Would("Board " + pending[i].Board + " would be " + done + ".")
}

type boardChangeIn struct {
	Board string  `path:"board" doc:"Its name"`
	Dry   bool    `query:"dry_run" doc:"Check all and change nothing"`
	Body  *reason `required:"false"`
}

// there checks that the caller sees the board and that it is one.
func (k *keep) there(ctx context.Context, by access.Caller, board string) error {
	if schema.CheckBoard(board) != nil {
		return web.ErrNotFound
	}
	if by.Boards == "" {
		return nil // who changes it says whether it is there
	}
	s, err := k.looks.See(ctx, by, "")
	if err != nil {
		return err
	}
	_, err = s.Board(board)
	return err
}

// would checks that a board is there, for a dry run.
func (k *keep) would(ctx context.Context, by access.Caller, board, what string) error {
	s, err := k.looks.See(ctx, by, "")
	if err != nil {
		return err
	}
	if _, err := s.Board(board); err != nil {
		return err
	}
	return door.Would("Board " + board + " would be " + what + ".")
}

func (k *keep) revoke(ctx context.Context, by access.Caller, in *boardChangeIn) (*struct{}, error) {
	why, err := in.Body.text()
	if err == nil {
		err = k.there(ctx, by, in.Board)
	}
	switch {
	case err != nil:
		return nil, err
	case in.Dry:
		return nil, k.would(ctx, by, in.Board, "shut out; its data would stay")
	}
	return nil, kept(k.k.Revoke(ctx, by.Tenant, in.Board, by.Who, why))
}

type wipeIn struct {
	Board   string  `path:"board" doc:"Its name"`
	Dry     bool    `query:"dry_run" doc:"Check all and change nothing"`
	Body    *reason `required:"false"`
	Confirm string  `query:"confirm" maxLength:"64" doc:"The name of the board once more"`
	Prefer  string  `header:"Prefer" doc:"respond-async: answer 202 and do it meanwhile"`
}

type wipeOut struct {
	Status   int
	Location string `header:"Location"`
	Body     *rest.Operation
}

// wipe removes a board and all its data. It goes on when the client has gone: half of a
// wipe helps nobody.
func (k *keep) wipe(ctx context.Context, by access.Caller, in *wipeIn) (*wipeOut, error) {
	why, err := in.Body.text()
	if err == nil {
		err = k.there(ctx, by, in.Board)
	}
	switch {
	case err != nil:
		return nil, err
	case in.Confirm != in.Board:
		return nil, door.Fail(rest.CodeConfirm, "")
	case in.Dry:
		return nil, k.would(ctx, by, in.Board, "forgotten, and all that it sent removed")
	}
	do := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wipeTimeout)
		defer cancel()
		return kept(k.k.Wipe(ctx, by.Tenant, in.Board, by.Who, why))
	}
	if in.Prefer != "respond-async" {
		door.Patient(ctx, wipeTimeout)
		return &wipeOut{Status: http.StatusNoContent}, do(ctx)
	}
	op, err := k.ops.begin(ctx, by.Tenant, rest.Operation{What: "wipe", Board: in.Board}, do)
	if err != nil {
		return nil, err
	}
	return &wipeOut{http.StatusAccepted, "/api/v1/operations/" + op.ID, &op}, nil
}

type operationIn struct {
	ID string `path:"id" maxLength:"64" doc:"Of the operation"`
}

type operationOut struct{ Body rest.Operation }

func (k *keep) operation(ctx context.Context, by access.Caller, in *operationIn) (*operationOut, error) {
	op, ok := k.ops.get(by.Tenant, in.ID)
	if !ok {
		return nil, web.ErrNotFound
	}
	if err := k.there(ctx, by, op.Board); err != nil && op.State == running { // a wiped board is seen by nobody
		return nil, err
	}
	return &operationOut{op}, nil
}

// kept puts the registry's errors into the API's.
func kept(err error) error {
	switch {
	case errors.Is(err, registry.ErrUnknown):
		return web.ErrNotFound
	case errors.Is(err, registry.ErrElsewhere):
		return &door.Error{Code: rest.CodeElsewhere, Cause: err}
	case errors.Is(err, registry.ErrTooMany):
		return &door.Error{Code: rest.CodeFull, Detail: err.Error(), Cause: err}
	}
	return err
}

// requestReply is a board that waits for a person.
type requestReply struct {
	ID          int64             `json:"id"`
	Board       string            `json:"board"`
	Trust       string            `json:"trust"` // what it would have
	Fingerprint string            `json:"fingerprint"`
	TPM         *look.TPM         `json:"tpm,omitempty"`
	Facts       map[string]string `json:"facts,omitempty"`
	Why         string            `json:"why"` // new, ak, ek, key, to-software, to-tpm or elsewhere
	Say         string            `json:"say"` // why, as a sentence
	From        string            `json:"from"`
	First       time.Time         `json:"first"`
	Last        time.Time         `json:"last"`
	Asked       int               `json:"asked"`
	Decision    string            `json:"decision,omitempty"` // approved or refused
	DecidedBy   string            `json:"decided_by,omitempty"`
}

type requestsOut struct {
	Body struct {
		Requests []requestReply `json:"requests"`
	}
}

func (k *keep) requests(ctx context.Context, by access.Caller, _ *struct{}) (*requestsOut, error) {
	pending, err := k.k.Pending(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	o := new(requestsOut)
	o.Body.Requests = make([]requestReply, len(pending))
	for i := range pending {
		q := &pending[i]
		o.Body.Requests[i] = requestReply{
			ID: q.ID, Board: q.Board, Trust: q.Trust, Fingerprint: q.Fingerprint(), Facts: q.Facts, Why: string(q.Why), Say: q.Say,
			From: q.From, First: q.First, Last: q.Last, Asked: q.Asked, Decision: q.Decision, DecidedBy: q.DecidedBy,
		}
		if len(q.EKHash) > 0 {
			o.Body.Requests[i].TPM = &look.TPM{Kind: q.TPMKind, Maker: q.TPMMaker, Firmware: q.TPMFirmware, Note: q.EKNote}
		}
	}
	return o, nil
}

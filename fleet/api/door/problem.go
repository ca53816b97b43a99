// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/idem"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// ErrNotLoggedIn is what Config.Caller answers where it lets nobody in.
var ErrNotLoggedIn = errors.New("not logged in")

// maxDetail bounds the words of an error in an answer, in bytes.
const maxDetail = 600

// Error is an error of a class of the table. Its words are ours: they hold nothing that
// came with the request.
type Error struct {
	Code   rest.Code
	Detail string
	Do     string // "" is what the table says
	Faults []rest.Fault
	Header http.Header // of the answer
	Cause  error       // for the log alone
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Detail, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Detail)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Fail makes an error.
func Fail(code rest.Code, detail string) *Error { return &Error{Code: code, Detail: detail} }

// Wrong makes the error of a parameter, which takes what say says.
func Wrong(parameter, say string) *Error {
	return &Error{Code: rest.CodeParameter, Faults: []rest.Fault{{Pointer: parameter, Detail: say}}}
}

// WrongField makes the error of a field of the body.
func WrongField(pointer, say string) *Error {
	return &Error{Code: rest.CodeBody, Faults: []rest.Fault{{Pointer: pointer, Detail: say}}}
}

// Known says which code an error of a part of the fleet has. Where Say is set the
// words of the error are the detail of the answer: parts whose errors are sentences for
// people about the thing that was asked for.
type Known struct {
	Err  error
	Code rest.Code
	Say  bool
}

// problem is a rest.Problem as huma writes it.
type problem struct {
	rest.Problem
	header http.Header
}

// Error implements error.
func (p *problem) Error() string { return p.Title }

// GetStatus implements [huma.StatusError].
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders implements [huma.HeadersError].
func (p *problem) GetHeaders() http.Header { return p.header }

// ContentType implements [huma.ContentTypeFilter].
func (p *problem) ContentType(string) string { return "application/problem+json" }

// problemOf puts an error into the words of the table.
func (d *Door) problemOf(ctx context.Context, err error) *problem {
	e := d.classOf(ctx, err)
	row := e.Code.Row()
	p := &problem{header: e.Header, Problem: rest.Problem{
		Type: e.Code.Type(), Code: string(e.Code), Title: row.Title, Status: row.Status,
		Detail: cut(e.Detail), Do: row.Do, Request: requestID(ctx), Errors: e.Faults,
	}}
	if e.Do != "" {
		p.Do = cut(e.Do)
	}
	if p.header == nil {
		p.header = http.Header{}
	}
	switch e.Code {
	case rest.CodeNotLoggedIn:
		p.header.Set("WWW-Authenticate", `Bearer realm="fulmar"`)
	case rest.CodeInternal:
		d.cfg.Log.Error("request failed", "request_id", p.Request, "route", routeID(ctx), "error", err.Error())
	}
	return p
}

// Problem puts an error into the words of the table.
func (d *Door) Problem(ctx context.Context, err error) rest.Problem {
	return d.problemOf(ctx, err).Problem
}

// classOf finds the class of an error.
func (d *Door) classOf(ctx context.Context, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if d.cfg.Fault != nil {
		if f, ok := d.cfg.Fault(err); ok {
			f.Detail = cut(f.Detail)
			out := &Error{Code: rest.CodeRefused, Faults: []rest.Fault{f}, Cause: err}
			for _, k := range d.cfg.Known {
				if errors.Is(err, k.Err) {
					out.Code = k.Code
					break
				}
			}
			return out
		}
	}
	for _, k := range d.cfg.Known {
		if !errors.Is(err, k.Err) {
			continue
		}
		out := &Error{Code: k.Code, Cause: err}
		if k.Say {
			out.Detail = err.Error()
		}
		return out
	}
	for _, k := range [...]Known{
		{Err: ErrNotLoggedIn, Code: rest.CodeNotLoggedIn},
		{Err: access.ErrNotAllowed, Code: rest.CodeNotAllowed},
		{Err: web.ErrNotFound, Code: rest.CodeNotFound},
		{Err: idem.ErrOther, Code: rest.CodeKeyReused},
		{Err: idem.ErrInFlight, Code: rest.CodeKeyInFlight},
		{Err: idem.ErrSpent, Code: rest.CodeKeySpent},
		{Err: idem.ErrFull, Code: rest.CodeKeysFull},
	} {
		if errors.Is(err, k.Err) {
			return &Error{Code: k.Code, Cause: err}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Code: rest.CodeSlowRequest, Cause: err}
	}
	return &Error{Code: rest.CodeInternal, Cause: err}
}

// cut bounds a text without splitting a character.
func cut(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	n := 0
	for i := range s {
		if i > maxDetail-3 {
			break
		}
		n = i
	}
	return s[:n] + "..."
}

// Fail answers a request with an error. What has been written already stays.
func (d *Door) Fail(w http.ResponseWriter, r *http.Request, err error) {
	p := d.problemOf(r.Context(), err)
	h := w.Header()
	for k, v := range p.header {
		h[k] = v
	}
	h.Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that has gone is no error of ours
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"time"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

// known is what is known of a request, in its context.
type known struct {
	id    string
	route string
	by    access.Caller
	w     http.ResponseWriter
}

type knownKey struct{}

func knownOf(ctx context.Context) known {
	k, _ := ctx.Value(knownKey{}).(known)
	return k
}

func requestID(ctx context.Context) string       { return knownOf(ctx).id }
func routeID(ctx context.Context) string         { return knownOf(ctx).route }
func callerOf(ctx context.Context) access.Caller { return knownOf(ctx).by }

func withRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, knownKey{}, known{id: id})
}

func newRequestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}

// mount puts a route behind the door.
func (d *Door) mount(route Route, next http.HandlerFunc) {
	if route.Timeout == 0 {
		route.Timeout = Timeout
	}
	d.routes = append(d.routes, route)
	d.mux.HandleFunc(route.Method+" "+prefix+route.Path, func(w http.ResponseWriter, r *http.Request) {
		by, err := d.letIn(w, r, route)
		k := known{requestID(r.Context()), route.ID, by, w}
		r = r.WithContext(context.WithValue(r.Context(), knownKey{}, k))
		if err != nil {
			d.Fail(w, r, err)
			return
		}
		if route.Stream {
			next(w, r)
			return
		}
		d.within(w, r, route, next)
	})
}

// within serves a request that ends, in a place among those under way.
func (d *Door) within(w http.ResponseWriter, r *http.Request, route Route, next http.HandlerFunc) {
	if err := d.place(r.Context()); err != nil {
		w.Header().Set("Retry-After", "2")
		d.Fail(w, r, err)
		return
	}
	defer func() { <-d.places }()
	ctx, cancel := context.WithTimeout(r.Context(), route.Timeout)
	defer cancel()
	r = r.WithContext(ctx)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		next(w, r)
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		d.Fail(w, r, err)
		return
	}
	d.once(w, r, route, body, next)
	k := knownOf(ctx)
	d.cfg.Log.Debug("api", "request_id", k.id, "route", route.ID, "tenant", k.by.Tenant, "who", k.by.Who)
}

// letIn finds who asks, and whether they may.
func (d *Door) letIn(w http.ResponseWriter, r *http.Request, route Route) (by access.Caller, err error) {
	if route.Open {
		return by, nil
	}
	if by, err = d.cfg.Caller(r); err != nil {
		return by, err
	}
	left := d.callers.take(by.Tenant+"/"+by.Who, time.Now())
	d.callers.tell(w.Header(), left)
	if left < 0 {
		w.Header().Set("Retry-After", "1")
		return by, Fail(rest.CodeTooMany, "")
	}
	if route.Right != "" {
		if err := by.May(route.Right); err != nil {
			return by, &Error{Code: rest.CodeNotAllowed, Detail: "it wants the right " + string(route.Right), Cause: err}
		}
	}
	if route.Whole && by.Boards != "" {
		return by, Fail(rest.CodeLimited, "")
	}
	return by, nil
}

// Again tells whether who sent r may still do what route wants: for answers that last.
func (d *Door) Again(r *http.Request, right rest.Right) (access.Caller, error) {
	by, err := d.cfg.Caller(r)
	if err == nil {
		err = by.May(right)
	}
	return by, err
}

// Patient lets the answer to a request come as late as d from now, where the server's
// own bound is shorter.
func Patient(ctx context.Context, d time.Duration) {
	if w := knownOf(ctx).w; w != nil {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + Timeout)) // a writer without deadlines needs none
	}
}

// place waits for a place among the requests under way.
func (d *Door) place(ctx context.Context) error {
	select {
	case d.places <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(maxPatience)
	defer wait.Stop()
	select {
	case d.places <- struct{}{}:
		return nil
	case <-wait.C:
		return Fail(rest.CodeBusy, "")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readBody takes the body in whole, so that it can be hashed and then read again.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, Fail(rest.CodeTooLarge, "a body has at most 64 KiB")
	case err != nil:
		return nil, &Error{Code: rest.CodeBody, Detail: "the body was cut off", Cause: err}
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return b, nil
}

// Underway counts the requests under way.
func (d *Door) Underway() int { return len(d.places) }

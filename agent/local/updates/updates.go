// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package updates is what people at a board see and do of its updates, behind the board's
// own socket (package local, which knows who they are).
package updates

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"fulmar/schema"
	"fulmar/schema/onboard"
)

// bundleTime bounds a bundle on its way: 20 GiB from a slow stick. A reader that stands
// still is left after bundleQuiet. doTime bounds what waits for a step of an update, or for
// the fleet.
const (
	bundleTime  = 6 * time.Hour
	bundleQuiet = 30 * time.Second
	doTime      = 90 * time.Second
)

// Names of acts on updates, for the board's policy of being alone (autonomy.allow).
const (
	actAbort  = "ota-abort"
	actHold   = "ota-hold"
	actBundle = "ota-install-bundle"
	actRepair = "ota-repair-floor"
)

// Updates is the board's updates: agent/update. Errors are sentences for people.
type Updates interface {
	State(ctx context.Context) onboard.Updates
	History() ([]onboard.PastUpdate, error)
	// Abort ends an update, whichever is in work for "".
	Abort(ctx context.Context, component, who, why string) error
	// Hold keeps updates away for a while, 0 ends that.
	Hold(d time.Duration, who string) error
	// Bundle takes a release bundle in: its signatures first, before anything is kept.
	Bundle(ctx context.Context, r io.Reader, who string) (onboard.Taken, error)
	// RepairFloor makes the floor anew, at what the fleet remembers.
	RepairFloor(ctx context.Context, who string) (uint64, error)
}

// Call is one request of somebody who may make it.
type Call struct {
	Updates Updates
	Request *http.Request
	Actor   string
	// Patience sets until when the request may be read and the answer written; zero leaves one
	// as it is.
	Patience func(read, write time.Time)
	// Allow is the board's policy; nil: all may.
	Allow func(actor, name string) error
	Log   *slog.Logger
}

// Route is one thing to see or do.
type Route struct {
	Pattern string
	Need    onboard.Role
	Do      func(*Call) (any, error)
}

// Refused is a request that is not done, with its status of HTTP.
type Refused struct {
	Status     int
	Code, Text string
}

func (r *Refused) Error() string { return r.Text }

// Routes are all of them.
func Routes() []Route {
	return []Route{
		{"GET /v1/updates", onboard.RoleViewer, func(c *Call) (any, error) { return c.Updates.State(c.Request.Context()), nil }},
		{"GET /v1/updates/history", onboard.RoleViewer, func(c *Call) (any, error) {
			all, err := c.Updates.History()
			return append([]onboard.PastUpdate{}, all...), err
		}},
		{"POST /v1/updates/abort", onboard.RoleOperator, abort},
		{"POST /v1/updates/hold", onboard.RoleOperator, hold},
		{"POST /v1/updates/floor", onboard.RoleOperator, repair},
		{"POST " + onboard.BundlePath, onboard.RoleOperator, bundle},
	}
}

func bad(text string) error {
	return &Refused{http.StatusBadRequest, onboard.BadRequest, text}
}

// read reads the only value of a request; what is not known is refused.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return bad("the request is not what is wanted here: " + err.Error()[:min(len(err.Error()), 200)])
	}
	return nil
}

// act does what a person wants: allowed by the policy, within a time, told in the log.
func (c *Call) act(name, reason string, within time.Duration, do func(context.Context) (any, error)) (any, error) {
	if len(reason) > schema.MaxFact {
		return nil, bad("the reason is too long")
	}
	if c.Allow != nil {
		if err := c.Allow(c.Actor, name); err != nil {
			return nil, err
		}
	}
	c.Patience(time.Time{}, time.Now().Add(within+5*time.Second))
	ctx, stop := context.WithTimeout(c.Request.Context(), within)
	defer stop()
	v, err := do(ctx)
	c.Log.Info("local act on updates", "actor", c.Actor, "act", name, "reason", reason, "err", err)
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return v, err
	}
	return nil, &Refused{http.StatusConflict, onboard.NotDone, err.Error()}
}

func abort(c *Call) (any, error) {
	var in onboard.Abort
	if err := read(c.Request, &in); err != nil {
		return nil, err
	}
	return c.act(actAbort, in.Reason, doTime, func(ctx context.Context) (any, error) {
		if err := c.Updates.Abort(ctx, in.Component, c.Actor, in.Reason); err != nil {
			return nil, err
		}
		return c.Updates.State(ctx), nil
	})
}

func hold(c *Call) (any, error) {
	var in onboard.HoldUpdates
	if err := read(c.Request, &in); err != nil {
		return nil, err
	}
	if in.For < 0 || in.For > onboard.MaxHold {
		return nil, bad("for_s is not 0 (no hold) to 2678400")
	}
	return c.act(actHold, in.Reason, doTime, func(ctx context.Context) (any, error) {
		if err := c.Updates.Hold(time.Duration(in.For)*time.Second, c.Actor); err != nil {
			return nil, err
		}
		return c.Updates.State(ctx), nil
	})
}

func repair(c *Call) (any, error) {
	return c.act(actRepair, "", doTime, func(ctx context.Context) (any, error) {
		n, err := c.Updates.RepairFloor(ctx, c.Actor)
		return onboard.RepairedFloor{Floor: n}, err
	})
}

// bundle takes a bundle as the body of the request: it was opened by the person's own
// process, and fulmard may read neither /media nor anybody's home.
func bundle(c *Call) (any, error) {
	c.Log.Info("bundle offered", "actor", c.Actor, "bytes", c.Request.ContentLength)
	return c.act(actBundle, "", bundleTime, func(ctx context.Context) (any, error) {
		return c.Updates.Bundle(ctx, &steady{c}, c.Actor)
	})
}

// steady gives each read its time: who brings a bundle and stops keeps nobody.
type steady struct{ c *Call }

func (s *steady) Read(b []byte) (int, error) {
	s.c.Patience(time.Now().Add(bundleQuiet), time.Time{})
	return s.c.Request.Body.Read(b)
}

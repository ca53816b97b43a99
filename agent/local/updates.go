// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"fulmar/schema"
	"fulmar/schema/onboard"
)

// bundleTime bounds a bundle on its way: 20 GiB from a slow stick. A reader that stands
// still is left after bundleQuiet.
const (
	bundleTime  = 6 * time.Hour
	bundleQuiet = 30 * time.Second
	doTime      = 90 * time.Second // what waits for a step of an update, or for the fleet
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

func (s *Server) updates() (Updates, error) {
	if s.cfg.Updates != nil {
		if u := s.cfg.Updates(); u != nil {
			return u, nil
		}
	}
	return nil, refuse(http.StatusServiceUnavailable, onboard.NotReady, "this board has no part for updates running")
}

func (s *Server) updateState(a *answer, r *http.Request, _ caller) error {
	u, err := s.updates()
	if err != nil {
		return err
	}
	return a.json(u.State(r.Context()))
}

func (s *Server) updateHistory(a *answer, _ *http.Request, _ caller) error {
	u, err := s.updates()
	if err != nil {
		return err
	}
	all, err := u.History()
	if err != nil {
		return err
	}
	return a.json(append([]onboard.PastUpdate{}, all...))
}

// acts runs what a person does to updates: allowed by the policy, with a bound in time, and
// told in the log.
func (s *Server) acts(a *answer, r *http.Request, c caller, name, reason string, do func(ctx context.Context, u Updates) (any, error)) error {
	u, err := s.updates()
	if err != nil {
		return err
	}
	if len(reason) > schema.MaxFact {
		return refuse(http.StatusBadRequest, onboard.BadRequest, "a reason of %d bytes, at most %d", len(reason), schema.MaxFact)
	}
	if s.cfg.Allow != nil {
		if err := s.cfg.Allow(c.actor(), name); err != nil {
			return err
		}
	}
	_ = a.c.SetWriteDeadline(time.Now().Add(doTime + s.times.write))
	ctx, stop := context.WithTimeout(r.Context(), doTime)
	defer stop()
	v, err := do(ctx, u)
	s.cfg.Log.Info("local act on updates", "actor", c.actor(), "act", name, "reason", reason, "err", err)
	if err != nil {
		return notDone(err)
	}
	return a.json(v)
}

// notDone is an act that the board could not or would not do.
func notDone(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return refuse(http.StatusConflict, onboard.NotDone, "%s", err)
}

func (s *Server) abortUpdate(a *answer, r *http.Request, c caller) error {
	var in onboard.Abort
	if err := read(r, &in); err != nil {
		return err
	}
	return s.acts(a, r, c, actAbort, in.Reason, func(ctx context.Context, u Updates) (any, error) {
		if err := u.Abort(ctx, in.Component, c.actor(), in.Reason); err != nil {
			return nil, err
		}
		return u.State(ctx), nil
	})
}

func (s *Server) holdUpdates(a *answer, r *http.Request, c caller) error {
	var in onboard.HoldUpdates
	if err := read(r, &in); err != nil {
		return err
	}
	if in.For < 0 || in.For > onboard.MaxHold {
		return refuse(http.StatusBadRequest, onboard.BadRequest, "for_s: %d, wants 0 (no hold) to %d", in.For, onboard.MaxHold)
	}
	return s.acts(a, r, c, actHold, in.Reason, func(ctx context.Context, u Updates) (any, error) {
		if err := u.Hold(time.Duration(in.For)*time.Second, c.actor()); err != nil {
			return nil, err
		}
		return u.State(ctx), nil
	})
}

func (s *Server) repairFloor(a *answer, r *http.Request, c caller) error {
	return s.acts(a, r, c, actRepair, "", func(ctx context.Context, u Updates) (any, error) {
		n, err := u.RepairFloor(ctx, c.actor())
		return onboard.RepairedFloor{Floor: n}, err
	})
}

// bundle takes a bundle as the body of the request: it was opened by the person's own
// process, and fulmard may read neither /media nor anybody's home.
func (s *Server) bundle(a *answer, r *http.Request, c caller) error {
	u, err := s.updates()
	if err != nil {
		return err
	}
	if s.cfg.Allow != nil {
		if err := s.cfg.Allow(c.actor(), actBundle); err != nil {
			return err
		}
	}
	_ = a.c.SetWriteDeadline(time.Now().Add(bundleTime + s.times.write))
	ctx, stop := context.WithTimeout(r.Context(), bundleTime)
	defer stop()
	s.cfg.Log.Info("bundle offered", "actor", c.actor(), "bytes", r.ContentLength)
	taken, err := u.Bundle(ctx, &steady{r: r.Body, a: a}, c.actor())
	s.cfg.Log.Info("bundle taken in", "actor", c.actor(), "release", taken.Release, "components", taken.Components, "err", err)
	if err != nil {
		return notDone(err)
	}
	return a.json(taken)
}

// steady gives each read its time: who brings a bundle and stops keeps nobody.
type steady struct {
	r io.Reader
	a *answer
}

func (s *steady) Read(b []byte) (int, error) {
	_ = s.a.c.SetReadDeadline(time.Now().Add(bundleQuiet))
	return s.r.Read(b)
}

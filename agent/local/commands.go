// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"fulmar/command"
	"fulmar/schema"
	"fulmar/schema/onboard"
)

// takeTime is how long the board may take to write a command down: longer than a bad disk.
const takeTime = 15 * time.Second

// beat is how often a line comes while nothing happens, so that both ends know that the
// other is there.
const beat = 5 * time.Second

func (s *Server) commands() (Commands, error) {
	if c := s.cfg.Commands(); c != nil {
		return c, nil
	}
	return nil, refuse(http.StatusServiceUnavailable, onboard.NotReady, "this board takes no commands yet: it gets its name with its enrolment")
}

func (s *Server) kinds(a *answer, _ *http.Request, _ caller) error {
	cs, err := s.commands()
	if err != nil {
		return err
	}
	return a.json(cs.Kinds())
}

func (s *Server) recent(a *answer, r *http.Request, _ caller) error {
	cs, err := s.commands()
	if err != nil {
		return err
	}
	n, err := number(r, "n", onboard.MaxRecent)
	if err != nil {
		return err
	}
	out := []onboard.Entry{}
	for _, e := range cs.Recent(n) {
		out = append(out, entryOf(e))
	}
	return a.json(out)
}

// give takes a command of a person whose user may.
func (s *Server) give(a *answer, r *http.Request, c caller) error {
	cs, err := s.commands()
	if err != nil {
		return err
	}
	var in onboard.Order
	if err := read(r, &in); err != nil {
		return err
	}
	args, err := encode(cs.Kinds(), in.Name, in.Args)
	if err != nil {
		return err
	}
	o := Order{Actor: c.actor(), Name: in.Name, Args: args, Reason: in.Reason, DryRun: in.DryRun}
	if _, err := rand.Read(o.ID[:]); err != nil {
		return err
	}
	return s.order(a, r, cs, o, in.Wait)
}

// encode checks the arguments of a command against what it takes. A name that is not known
// here goes on as it is, to be refused and written down where all refusals are.
func encode(kinds []onboard.Kind, name string, args json.RawMessage) ([]byte, error) {
	k := onboard.Kind{Name: name}
	if i := slices.IndexFunc(kinds, func(k onboard.Kind) bool { return k.Name == name }); i >= 0 {
		k = kinds[i]
	} else {
		return nil, refuse(http.StatusNotFound, command.CodeUnknown, "this board has no command %.64q", name)
	}
	b, err := k.Encode(args)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, command.CodeArgs, "%s", clip(err.Error()))
	}
	if len(b) > command.MaxArgs {
		return nil, refuse(http.StatusRequestEntityTooLarge, onboard.TooLarge, "arguments of %d bytes, at most %d", len(b), command.MaxArgs)
	}
	return b, nil
}

// order has a command done and tells how it goes.
func (s *Server) order(a *answer, r *http.Request, cs Commands, o Order, wait int64) error {
	if len(o.Reason) > schema.MaxFact {
		return refuse(http.StatusBadRequest, onboard.BadRequest, "a reason of %d bytes, at most %d", len(o.Reason), schema.MaxFact)
	}
	patience, err := seconds(wait)
	if err != nil {
		return err
	}
	if s.cfg.Allow != nil {
		if err := s.cfg.Allow(o.Actor, o.Name); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), takeTime)
	defer cancel()
	follow, end := context.WithTimeout(r.Context(), patience)
	defer end()
	var steps <-chan command.Result
	if patience > 0 {
		steps = cs.Watch(follow) // before it is given: no step is missed
	}
	res, err := cs.Give(ctx, o)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("local command", "actor", o.Actor, "command", o.Name, "id", res.ID.String(), "check_only", o.DryRun, "state", res.State.String(), "code", res.Code, "reason", o.Reason)
	if patience <= 0 {
		return a.json(stepOf(&res, o.Name))
	}
	return tell(follow, a, cs, res, o.Name, steps)
}

func seconds(wait int64) (time.Duration, error) {
	if wait < 0 || wait > int64(onboard.MaxWait/time.Second) {
		return 0, refuse(http.StatusBadRequest, onboard.BadRequest, "wait_s: %d, wants 0 to %d", wait, int64(onboard.MaxWait/time.Second))
	}
	return time.Duration(wait) * time.Second, nil
}

// tell writes the steps of a command, one a line, until it is over or ctx ends: then the
// last line is not final, and the command goes on.
func tell(ctx context.Context, a *answer, cs Commands, res command.Result, name string, steps <-chan command.Result) error {
	last := res
	if err := a.line(stepOf(&res, name)); err != nil || res.State.Final() {
		return err
	}
	over := make(chan command.Result, 1)
	go func() { // it ends with ctx
		if r, err := cs.Wait(ctx, res.ID); err == nil && r.State.Final() {
			over <- r
		}
	}()
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-over:
			return a.line(stepOf(&r, name))
		case r, open := <-steps:
			if !open {
				steps = nil // the last word comes all the same
				continue
			}
			if r.ID != res.ID || r.State.Final() {
				continue
			}
			last = r
		case <-t.C:
		}
		if err := a.line(stepOf(&last, name)); err != nil {
			return err
		}
	}
}

// command tells of one command, or with ?wait_s= follows it.
func (s *Server) command(a *answer, r *http.Request, _ caller) error {
	cs, id, err := s.named(r)
	if err != nil {
		return err
	}
	most := int(onboard.MaxWait / time.Second)
	if r.URL.Query().Has("wait_s") {
		if most, err = number(r, "wait_s", most); err != nil {
			return err
		}
		ctx, end := context.WithTimeout(r.Context(), time.Duration(most)*time.Second)
		defer end()
		steps := cs.Watch(ctx)
		e, known := cs.Known(id)
		if !known {
			return notKnown(id)
		}
		return tell(ctx, a, cs, e.Result, nameOf(e), steps)
	}
	e, known := cs.Known(id)
	if !known {
		return notKnown(id)
	}
	return a.json(entryOf(e))
}

func (s *Server) named(r *http.Request) (Commands, command.ID, error) {
	cs, err := s.commands()
	if err != nil {
		return nil, command.ID{}, err
	}
	id, err := command.ParseID(r.PathValue("id"))
	if err != nil {
		return nil, id, refuse(http.StatusBadRequest, onboard.BadRequest, "%s", err)
	}
	return cs, id, nil
}

func notKnown(id command.ID) error {
	no := refuse(http.StatusNotFound, onboard.NotKnown, "no command %s is known here", id)
	no.Do = "fulmar local log shows those that are"
	return no
}

func (s *Server) cancel(a *answer, r *http.Request, c caller) error {
	cs, id, err := s.named(r)
	if err != nil {
		return err
	}
	var in onboard.Cancel
	if err := read(r, &in); err != nil {
		return err
	}
	if len(in.Reason) > schema.MaxFact {
		return refuse(http.StatusBadRequest, onboard.BadRequest, "a reason of %d bytes, at most %d", len(in.Reason), schema.MaxFact)
	}
	ctx, stop := context.WithTimeout(r.Context(), takeTime)
	defer stop()
	by := c.actor()
	if in.Reason != "" {
		by += ": " + in.Reason
	}
	res, err := cs.Cancel(ctx, id, by)
	if errors.Is(err, command.ErrNotKnown) {
		return notKnown(id)
	}
	if err != nil {
		return err
	}
	s.cfg.Log.Info("local cancel", "actor", c.actor(), "id", id.String(), "state", res.State.String(), "reason", in.Reason)
	e, _ := cs.Known(id)
	return a.json(stepOf(&res, nameOf(e)))
}

func nameOf(e Entry) string {
	if e.Command == nil {
		return ""
	}
	return e.Command.Name
}

func stepOf(r *command.Result, name string) onboard.Step {
	return onboard.Step{
		ID: r.ID.String(), Name: name, State: r.State.String(), Code: r.Code, Text: r.Text, Percent: int(r.Percent),
		Value: onboard.JSON(r.Value), At: wall(r.Time), Final: r.State.Final(),
	}
}

func entryOf(e Entry) onboard.Entry {
	out := onboard.Entry{Step: stepOf(&e.Result, nameOf(e)), Given: wall(e.Given), Begun: wall(e.Begun), Told: e.Told}
	if c := e.Command; c != nil {
		out.Args, out.Actor, out.By, out.Reason, out.DryRun = onboard.JSON(c.Args), c.Actor, c.By, c.Reason, c.DryRun
	}
	return out
}

// wall is a time of the board by the clock on its wall; none for none.
func wall(t schema.Time) time.Time {
	if t.Wall == 0 {
		return time.Time{}
	}
	return time.UnixMilli(t.Wall).UTC()
}

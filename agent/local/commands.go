// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"fulmar/agent/commands"
	"fulmar/command"
	"fulmar/command/dispatch"
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
	return a.json(append([]command.Kind{}, cs.Kinds()...))
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
	all, err := list(r.Context(), cs, n)
	if err != nil {
		return err
	}
	out := []onboard.Entry{}
	for _, e := range slices.Backward(all) {
		out = append(out, entryOf(e))
	}
	return a.json(out)
}

func list(ctx context.Context, cs Commands, n int) ([]command.Report, error) {
	ctx, stop := context.WithTimeout(ctx, takeTime)
	defer stop()
	return cs.List(ctx, n)
}

// known finds one command that the board remembers.
func known(ctx context.Context, cs Commands, id command.ID) (command.Report, error) {
	all, err := list(ctx, cs, maxKnown)
	if err != nil {
		return command.Report{}, err
	}
	i := slices.IndexFunc(all, func(r command.Report) bool { return r.Result.ID == id })
	if i < 0 {
		return command.Report{}, notKnown(id)
	}
	return all[i], nil
}

// maxKnown is more than a board remembers.
const maxKnown = 1 << 12

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
	o := commands.Options{Reason: in.Reason, DryRun: in.DryRun}
	return s.order(a, r, cs, order{actor: c.actor(), name: in.Name, wait: in.Wait, reason: in.Reason, give: func(ctx context.Context) (command.Result, error) {
		return cs.Local(ctx, c.actor(), in.Name, args, o)
	}})
}

// encode checks the arguments of a command against what it takes. What does not fit never
// comes to the journal: it is a slip of somebody who types.
func encode(kinds []command.Kind, name string, args json.RawMessage) ([]byte, error) {
	i := slices.IndexFunc(kinds, func(k command.Kind) bool { return k.Name == name })
	if i < 0 {
		return nil, refuse(http.StatusNotFound, command.CodeUnknown, "this board has no command %.64q", name)
	}
	b, err := command.FromJSON(args)
	if err == nil {
		_, err = kinds[i].Parse(b)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, command.CodeArgs, "%s: %s", name, err)
	}
	return b, nil
}

// order is a command on its way.
type order struct {
	actor, name, reason string
	wait                int64 // seconds
	give                func(ctx context.Context) (command.Result, error)
}

// order has a command done and tells how it goes.
func (s *Server) order(a *answer, r *http.Request, cs Commands, o order) error {
	if len(o.reason) > schema.MaxFact {
		return refuse(http.StatusBadRequest, onboard.BadRequest, "a reason of %d bytes, at most %d", len(o.reason), schema.MaxFact)
	}
	patience, err := seconds(o.wait)
	if err != nil {
		return err
	}
	if s.cfg.Allow != nil {
		if err := s.cfg.Allow(o.actor, o.name); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), takeTime)
	defer cancel()
	follow, end := context.WithTimeout(r.Context(), patience)
	defer end()
	var steps <-chan command.Report
	if patience > 0 {
		steps = cs.Watch(follow) // before it is given: no step is missed
	}
	res, err := o.give(ctx)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("local command", "actor", o.actor, "command", o.name, "id", res.ID.String(), "state", res.State.String(), "code", res.Code, "reason", o.reason)
	if patience <= 0 {
		return a.json(stepOf(&res, o.name))
	}
	return tell(follow, a, cs, res, o.name, steps)
}

func seconds(wait int64) (time.Duration, error) {
	if wait < 0 || wait > int64(onboard.MaxWait/time.Second) {
		return 0, refuse(http.StatusBadRequest, onboard.BadRequest, "wait_s: %d, wants 0 to %d", wait, int64(onboard.MaxWait/time.Second))
	}
	return time.Duration(wait) * time.Second, nil
}

// tell writes the steps of a command, one a line, until it is over or ctx ends: then the
// last line is not final, and the command goes on.
func tell(ctx context.Context, a *answer, cs Commands, res command.Result, name string, steps <-chan command.Report) error {
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
			if r.Result.ID != res.ID || r.Result.State.Final() {
				continue
			}
			last = r.Result
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
		e, err := known(ctx, cs, id)
		if err != nil {
			return err
		}
		return tell(ctx, a, cs, e.Result, nameOf(e), steps)
	}
	e, err := known(r.Context(), cs, id)
	if err != nil {
		return err
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
	if errors.Is(err, dispatch.ErrNotKnown) {
		return notKnown(id)
	}
	if err != nil {
		return err
	}
	s.cfg.Log.Info("local cancel", "actor", c.actor(), "id", id.String(), "state", res.State.String(), "reason", in.Reason)
	e, _ := known(ctx, cs, id) // its name is all that would be missing
	return a.json(stepOf(&res, nameOf(e)))
}

func nameOf(e command.Report) string {
	if e.Command == nil {
		return ""
	}
	return e.Command.Name
}

func stepOf(r *command.Result, name string) onboard.Step {
	v, err := command.ToJSON(r.Value)
	if err != nil {
		v = nil // a handler's answer that is no CBOR: the text says how it ended
	}
	return onboard.Step{
		ID: r.ID.String(), Name: name, State: r.State.String(), Code: r.Code, Text: r.Text, Percent: int(r.Percent),
		Value: v, At: wall(r.Time), Final: r.State.Final(),
	}
}

func entryOf(e command.Report) onboard.Entry {
	out := onboard.Entry{Step: stepOf(&e.Result, nameOf(e)), Given: wall(e.Given), Begun: wall(e.Begun)}
	if c := e.Command; c != nil {
		out.Actor, out.By, out.Reason, out.DryRun = c.Actor, c.By, c.Reason, c.DryRun
		if args, err := command.ToJSON(c.Args); err == nil {
			out.Args = args
		}
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

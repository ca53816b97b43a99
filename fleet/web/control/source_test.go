// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

var (
	errStale = errors.New("twin: stale")
	errNone  = errors.New("none")
)

type refusal struct{ pointer, detail string }

func (r *refusal) Error() string { return r.detail }

// problem puts these into words, as the server does.
func problem(err error) (rest.Problem, bool) {
	var no *refusal
	switch {
	case errors.Is(err, errStale):
		return rest.Problem{Status: 412, Title: "Somebody changed it meanwhile", Do: "look at what changed, then do it again"}, true
	case errors.Is(err, errNone):
		return rest.Problem{Status: 404, Title: "There is no such command"}, true
	case errors.As(err, &no):
		return rest.Problem{Status: 422, Title: "It was refused as it stands", Errors: []rest.Fault{{Pointer: no.pointer, Detail: no.detail}}}, true
	}
	return rest.Problem{}, false
}

// parts keeps commands and twins in memory.
type parts struct {
	mu        sync.Mutex
	commands  []rest.Command
	twins     map[string]*rest.Twin
	conflicts []rest.TwinConflict
	given     []rest.CommandSpec
	did       []string
	err       error
}

func (p *parts) List(_ context.Context, _ access.Caller, board string, limit int) (out []rest.Command, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.commands {
		if board == "" || slices.ContainsFunc(c.Boards, func(b rest.CommandBoard) bool { return b.Board == board }) {
			out = append(out, clone(c))
		}
	}
	return out[:min(len(out), limit)], p.err
}

func clone(c rest.Command) rest.Command {
	c.Boards, c.Counts = slices.Clone(c.Boards), maps.Clone(c.Counts)
	return c
}

func (p *parts) Get(_ context.Context, _ access.Caller, id string) (*rest.Command, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.commands {
		if c.ID == id {
			c = clone(c)
			return &c, p.err
		}
	}
	return nil, errNone
}

func (p *parts) Kinds(context.Context, access.Caller) ([]rest.CommandKind, error) {
	return []rest.CommandKind{{Name: "set-valve-position", Boards: 50}, {Name: "trigger-safety-shutdown", Boards: 51, Approval: true}}, p.err
}

func (p *parts) Give(_ context.Context, by access.Caller, s rest.CommandSpec) (*rest.Command, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Name == "fly" {
		return nil, &refusal{"/name", "no board has a command of this name"}
	}
	p.given = append(p.given, s)
	c := rest.Command{ID: "c-new", Name: s.Name, Args: s.Args, Actor: "user/" + by.Author, Given: time.Now(), Expires: time.Now().Add(time.Minute), Counts: map[string]int{rest.CommandQueued: 1}, Total: 1, Boards: []rest.CommandBoard{{Board: "dock-1", State: rest.CommandQueued}}}
	p.commands = append(p.commands, c)
	return &c, nil
}

func (p *parts) Act(_ context.Context, by access.Caller, id string, a rest.CommandAction) (*rest.Command, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.commands {
		c := &p.commands[i]
		if c.ID != id {
			continue
		}
		if a.Action == "approve" && c.Actor == "user/"+by.Author {
			return nil, access.ErrNotAllowed
		}
		p.did = append(p.did, a.Action+" "+a.Reason)
		c.Counts, c.Boards[0].State = map[string]int{rest.CommandCancelled: c.Total}, rest.CommandCancelled
		return c, nil
	}
	return nil, errNone
}

func (p *parts) Twin(_ context.Context, _ access.Caller, board string) (*rest.Twin, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.twins[board]
	if !ok {
		return nil, errNone
	}
	c := *t
	return &c, p.err
}

func (p *parts) Patch(_ context.Context, _ access.Caller, board string, version uint64, patch rest.TwinPatch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.twins[board]
	if t.Version != version {
		return errStale
	}
	for k, v := range patch.Set {
		if k == "log.level" && string(v) == `"loud"` {
			return &refusal{"/set/log.level", "wants debug, info, warn or error"}
		}
		p.did = append(p.did, "set "+k+" "+string(v)+" "+patch.Reason)
	}
	t.Version++
	t.InSync = false
	return nil
}

func (p *parts) History(context.Context, access.Caller, string, int) ([]rest.TwinEvent, error) {
	return []rest.TwinEvent{
		{Seq: 2, At: time.Now().Add(-time.Minute), Kind: "undone", Author: "board"},
		{Seq: 1, At: time.Now().Add(-time.Hour), Kind: "set", Key: "log.level", Version: 3, Author: "m.kern", Reason: "looking for the leak", Value: json.RawMessage(`"debug"`)},
	}, p.err
}

func (p *parts) Conflicts(context.Context, access.Caller) ([]rest.TwinConflict, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.conflicts), p.err
}

func (p *parts) Decide(_ context.Context, _ access.Caller, board, key, side string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.conflicts)
	p.conflicts = slices.DeleteFunc(p.conflicts, func(c rest.TwinConflict) bool { return c.Board == board && c.Key == key })
	if len(p.conflicts) == n {
		return &refusal{"", "this conflict is decided already"}
	}
	p.did = append(p.did, "decide "+board+" "+key+" "+side)
	return nil
}

// newParts is a fleet in which all that can be seen is there to be seen.
func newParts(now time.Time) *parts {
	ev := func(ago time.Duration, state string) rest.CommandEvent {
		return rest.CommandEvent{State: state, At: now.Add(-ago)}
	}
	many := rest.Command{
		ID: "c-3", Name: "set-valve-position", Args: json.RawMessage(`{"valve":"main","percent":40}`), Actor: "user/m.kern", Reason: "less pressure for the night", Query: "site=hall-4",
		Given: now.Add(-40 * time.Second), Expires: now.Add(4 * time.Minute), Total: 50, Counts: map[string]int{rest.CommandDone: 44, rest.CommandRunning: 3, rest.CommandQueued: 2, rest.CommandRefused: 1},
	}
	for i, s := range []string{rest.CommandRefused, rest.CommandRunning, rest.CommandQueued, rest.CommandDone} {
		b := rest.CommandBoard{ID: "00", Board: "hall4-press-00" + string(rune('1'+i)), State: s, Events: []rest.CommandEvent{ev(40*time.Second, "queued"), ev(39900*time.Millisecond, "sent")}}
		switch s {
		case rest.CommandRefused:
			b.Code, b.Text = "interlocked", "the door of press 1 is open"
		case rest.CommandRunning:
			b.Percent, b.Text = 60, "moving"
		case rest.CommandDone:
			b.Value = json.RawMessage(`{"percent":40}`)
			b.Events = append(b.Events, ev(39800*time.Millisecond, "accepted"), ev(39*time.Second, "running"), ev(36*time.Second, "done"))
		}
		many.Boards = append(many.Boards, b)
	}
	return &parts{
		commands: []rest.Command{
			{ID: "c-4", Name: "trigger-safety-shutdown", Actor: "user/j.roth", Reason: "smoke at press 2", Given: now.Add(-time.Minute), Expires: now.Add(4 * time.Minute), Approval: &rest.CommandApproval{Wanted: true}, Counts: map[string]int{rest.CommandWaiting: 1}, Total: 1, Boards: []rest.CommandBoard{{Board: "dock-1", State: rest.CommandWaiting, Events: []rest.CommandEvent{ev(time.Minute, "waiting-approval")}}}},
			many,
			{ID: "c-2", Name: "set-valve-position", Args: json.RawMessage(`{"valve":"main","percent":0}`), Actor: "rule/alone-close", Local: true, Given: now.Add(-time.Hour), Counts: map[string]int{rest.CommandDone: 1}, Total: 1, Boards: []rest.CommandBoard{{Board: "dock-1", State: rest.CommandDone, Text: "the valve is closed", Events: []rest.CommandEvent{ev(time.Hour, "done")}}}},
			{ID: "c-1", Name: "restart", Args: json.RawMessage(`{"part":"worker"}`), Actor: "token 7", Given: now.Add(-2 * time.Hour), Counts: map[string]int{rest.CommandUnknown: 1}, Total: 1, Boards: []rest.CommandBoard{{Board: "dock-2", State: rest.CommandUnknown, Code: "interrupted", Text: "the board died while it ran; look whether it had its effect"}}},
		},
		twins: map[string]*rest.Twin{
			"dock-1": {
				Board: "dock-1", Version: 4, Applied: 3, Seen: now.Add(-3 * time.Second), Conflicts: 0,
				Keys: []rest.TwinKey{
					{Key: "log.level", Value: json.RawMessage(`"debug"`), From: "fleet", State: "applied", Fleet: &rest.TwinEdit{Value: json.RawMessage(`"debug"`), Author: "m.kern", Reason: "looking for the leak"}},
					{Key: "sample.fast.period", Value: json.RawMessage(`"1s"`), From: "fleet", State: "refused", Refused: "1ms: wants 10ms to 24h", Fleet: &rest.TwinEdit{Author: "m.kern"}},
					{Key: "app.setpoint", Value: json.RawMessage(`40`), From: "board", State: "applied", Board: []rest.TwinEdit{{Value: json.RawMessage(`40`), Author: "local/eva", Reason: "too loud", LeaseS: 3600}}},
				},
				Reported: map[string]json.RawMessage{
					"output.main": json.RawMessage(`{"kind":"simulated","value":39.499999999998664,"unit":"percent","min":0,"max":100,"safe":0,"state":"set","by":"token/7"}`),
					"output.lamp": json.RawMessage(`{"kind":"gpio","value":null,"min":0,"max":1,"state":"failed","why":"the line is held by another program"}`),
					"output.gate": json.RawMessage(`{"kind":"gpio","unit":"","min":0,"max":1,"state":"unknown"}`),
					"safety":      json.RawMessage(`{"active":true,"by":"rule/too-hot"}`), "autonomy": json.RawMessage(`{"state":"connected"}`),
					"rule.too-hot": json.RawMessage(`{"state":"on","fired":2}`), "commands": json.RawMessage(`["set-output","restart"]`), "config.log.level": json.RawMessage(`"debug"`), "twin.refused": json.RawMessage(`{}`),
				},
			},
			"dock-2": {Board: "dock-2"},
			"dock-4": {
				Board: "dock-4", Version: 3, Applied: 3, InSync: true, Seen: now, Reported: map[string]json.RawMessage{"config.camera.belt.fps": json.RawMessage(`4.0`)},
				Keys: []rest.TwinKey{{Key: "camera.belt.fps", Value: json.RawMessage(`500`), From: "fleet", State: "refused", Refused: "wants a number from 0.001 to 240; is 500", Fleet: &rest.TwinEdit{Value: json.RawMessage(`500`), Author: "m.kern"}}},
			},
			"dock-5": {
				Board: "dock-5", Version: 3, Applied: 3, InSync: true, Seen: now, Reported: map[string]json.RawMessage{"autonomy": json.RawMessage(`{"state":"connected","leases":{},"stays":"main","why":""}`)},
				Keys: []rest.TwinKey{{
					Key: "camera.belt.fps", Value: json.RawMessage(`10`), From: "board", State: "applied", Fleet: &rest.TwinEdit{Value: json.RawMessage(`4`), Author: "m.kern"},
					Board: []rest.TwinEdit{{Value: json.RawMessage(`10`), Author: "local/eva"}},
				}},
			},
			"dock-3": {Board: "dock-3", Version: 2, Applied: 2, InSync: true, Seen: now, Conflicts: 1},
		},
		conflicts: []rest.TwinConflict{{
			Board: "dock-3", Key: "app.setpoint", Holds: json.RawMessage(`55`), Since: now.Add(-10 * time.Minute),
			Fleet: &rest.TwinEdit{Value: json.RawMessage(`40`), Author: "m.kern", Reason: "night shift"},
			Edits: []rest.TwinEdit{{Value: json.RawMessage(`55`), Author: "local/eva", Reason: "the belt stalls below 50"}},
		}},
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package told puts twins into words for people and programs: what is in one, what a
// message or an edit has changed, and what of a patch a board is likely to refuse. It
// reads JSON as values of a twin, and writes them as JSON.
package told

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"fulmar/fleet/registry/twinrows"
	"fulmar/schema/rest"
	"fulmar/twin"
)

// Kinds of events beside those of rest.TwinEvent that the board tells.
const (
	KindSet        = "set"        // by the fleet
	KindDeleted    = "deleted"    // by the fleet
	kindOverridden = "overridden" // on the board
	kindCleared    = "cleared"    // on the board, or a lease ended there
	kindReplaced   = "replaced"   // of the board's, by the fleet who knew of it
	kindHeld       = "held"
	kindDecided    = "decided"
	kindRefused    = "refused"
	kindApplied    = "applied"
)

// maxTold bounds the events of one message: a board that comes back from hours alone
// has so many keys in a bad case, and one that plays with its keys fills no history.
const maxTold = 32

// refusedKey is the key of reported in which a board says what it does not take, a map of
// reasons by key.
const refusedKey = "twin.refused"

// State is what of a twin people are told of.
type State struct {
	Version, Applied uint64            // newest desired version, and the one that the board has
	Known            []twin.Known      // by key
	Refused          map[string]string // why the board does not take what the fleet set, by key
	Held             []twin.Conflict   // keys that a person has to decide
	reported         int
}

// Of reads it from a twin.
func Of(f *twin.Fleet) State {
	s := State{Known: f.Known()}
	s.Version, s.Applied = f.Version()
	reported := f.Reported()
	s.reported, s.Refused = len(reported), refused(reported[refusedKey])
	for _, c := range f.Conflicts() {
		if c.Policy == twin.PolicyHold { // all else is decided on the board, at once
			s.Held = append(s.Held, c)
		}
	}
	return s
}

// Empty tells whether nobody has said or set anything yet.
func (s *State) Empty() bool { return s.Version == 0 && len(s.Known) == 0 && s.reported == 0 }

// refused reads the reasons by key.
func refused(v twin.Value) map[string]string {
	if len(v) == 0 {
		return nil
	}
	a, err := v.Any()
	m, ok := a.(map[any]any)
	if err != nil || !ok {
		return nil
	}
	out := map[string]string{}
	for k, why := range m {
		if key, ok := k.(string); ok {
			out[key], _ = why.(string)
		}
	}
	return out
}

// Between tells what a message has changed, as far as the sections show it. That a lease
// ended, or that a policy decided, is in the board's own reports.
func Between(was, now *State) (out []rest.TwinEvent) {
	before := map[string]twin.Known{}
	for _, k := range was.Known {
		before[k.Key] = k
	}
	for _, k := range now.Known {
		b := before[k.Key]
		delete(before, k.Key)
		out = append(out, overridden(&b, &k)...)
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		b := before[key]
		out = append(out, overridden(&b, &twin.Known{Key: key})...)
	}
	for _, c := range now.Held {
		if !slices.ContainsFunc(was.Held, func(o twin.Conflict) bool { return o.Key == c.Key }) {
			e := rest.TwinEvent{Kind: kindHeld, Key: c.Key, Value: JSON(c.Holds), Lost: edits(c.Board)}
			if c.Fleet != nil {
				e.Lost = append(e.Lost, editOf(*c.Fleet))
			}
			out = append(out, e)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(now.Refused)) {
		if why, before := was.Refused[key]; !before || why != now.Refused[key] {
			out = append(out, rest.TwinEvent{Kind: kindRefused, Key: key, Version: now.Version, Reason: now.Refused[key]})
		}
	}
	if now.Applied != was.Applied && now.Applied == now.Version && now.Version > 0 {
		out = append(out, rest.TwinEvent{Kind: kindApplied, Version: now.Applied})
	}
	return out[:min(len(out), maxTold)]
}

// overridden tells what happened to a key on the board.
func overridden(was, now *twin.Known) (out []rest.TwinEvent) {
	for _, e := range now.Board {
		if !has(was.Board, e) {
			out = append(out, rest.TwinEvent{Kind: kindOverridden, Key: now.Key, Author: e.Author, Reason: e.Reason, Value: JSON(e.Value)})
		}
	}
	for _, e := range was.Board {
		if has(now.Board, e) || len(now.Board) > 0 { // set anew says so
			continue
		}
		kind := kindCleared
		if was.Replaced {
			kind = kindReplaced
		}
		out = append(out, rest.TwinEvent{Kind: kind, Key: was.Key, Value: JSON(now.Holds), Lost: []rest.TwinEdit{editOf(e)}})
	}
	return out
}

func has(list []twin.Edit, e twin.Edit) bool {
	return slices.ContainsFunc(list, func(o twin.Edit) bool {
		return bytes.Equal(o.Value, e.Value) && o.Author == e.Author && o.Reason == e.Reason && o.LeaseMs == e.LeaseMs
	})
}

// Own puts what the fleet's own side tells into events: what was edited before and after
// a restore from a backup.
func Own(list []twin.Event) (out []rest.TwinEvent) {
	for _, e := range list {
		ev := rest.TwinEvent{Kind: kindDecided, Key: e.Key, Reason: e.Why, Lost: edits(e.Lost)}
		if e.Won != nil {
			ev.Value, ev.Author = JSON(e.Won.Value), e.Won.Author
		}
		out = append(out, ev)
	}
	return out
}

func edits(list []twin.Edit) (out []rest.TwinEdit) {
	for _, e := range list {
		out = append(out, editOf(e))
	}
	return out
}

func editOf(e twin.Edit) rest.TwinEdit {
	return rest.TwinEdit{Value: JSON(e.Value), Author: e.Author, Reason: e.Reason, LeaseS: int64(e.LeaseMs / 1000)}
}

// event is a rest.TwinEvent as it is kept: what the row says is left out.
type event struct {
	Kind    string          `json:"kind"`
	Key     string          `json:"key,omitempty"`
	Version uint64          `json:"version,omitempty"`
	Author  string          `json:"author,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	Lost    []rest.TwinEdit `json:"lost,omitempty"`
}

// Encode writes an event as it is kept.
func Encode(e *rest.TwinEvent) ([]byte, error) {
	return json.Marshal(event{e.Kind, e.Key, e.Version, e.Author, e.Reason, e.Value, e.Lost})
}

// Decode reads an event that was kept.
func Decode(r *twinrows.Event) (rest.TwinEvent, error) {
	var e event
	err := json.Unmarshal(r.Body, &e)
	return rest.TwinEvent{
		Seq: r.ID, At: r.At, Board: r.Board, Kind: e.Kind, Key: e.Key, Version: e.Version, Author: e.Author, Reason: e.Reason, Value: e.Value, Lost: e.Lost,
	}, err
}

// Conflicts gives the keys that a person has to decide, and whether they are others than
// before, or otherwise in conflict.
func Conflicts(k twinrows.Key, was, now *State, at time.Time) (settle bool, out []twinrows.Conflict, err error) {
	same := slices.EqualFunc(was.Held, now.Held, func(a, b twin.Conflict) bool {
		fleet := (a.Fleet == nil) == (b.Fleet == nil) && (a.Fleet == nil || has([]twin.Edit{*a.Fleet}, *b.Fleet))
		return a.Key == b.Key && fleet && bytes.Equal(a.Holds, b.Holds) && slices.EqualFunc(a.Board, b.Board, func(a, b twin.Edit) bool { return has([]twin.Edit{a}, b) })
	})
	if same {
		return false, nil, nil
	}
	for _, c := range now.Held {
		body, err := json.Marshal(conflict(k.Board, &c))
		if err != nil {
			return false, nil, err
		}
		out = append(out, twinrows.Conflict{Board: k.Board, Key: c.Key, Since: at, Body: body})
	}
	return true, out, nil
}

// Conflict gives a key that a person has to decide; [ErrNoConflict] where it is none.
func (s *State) Conflict(board, key string) (*rest.TwinConflict, error) {
	i := slices.IndexFunc(s.Held, func(c twin.Conflict) bool { return c.Key == key })
	if i < 0 {
		return nil, fmt.Errorf("%.96s of %s: %w", key, board, ErrNoConflict)
	}
	c := conflict(board, &s.Held[i])
	return &c, nil
}

func conflict(board string, c *twin.Conflict) rest.TwinConflict {
	out := rest.TwinConflict{Board: board, Key: c.Key, Edits: edits(c.Board), Holds: JSON(c.Holds)}
	if c.Fleet != nil {
		e := editOf(*c.Fleet)
		out.Fleet = &e
	}
	return out
}

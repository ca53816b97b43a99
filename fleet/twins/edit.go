// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/twinrows"
	"fulmar/fleet/twins/told"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/twin"
)

const (
	// MaxBoards bounds the boards of one patch: the largest fleet that a person changes
	// in one go.
	MaxBoards = 10_000
	// editBatch is how many boards are changed in one transaction: 30 ms in which their
	// own words wait.
	editBatch = 100
	// anyVersion stands for whatever version there is.
	anyVersion = -1
)

// edit is a patch, read.
type edit struct {
	by     access.Caller
	values map[string]twin.Value // nil deletes
	reason string
	say    string // of the audit log
	// still refuses where what was decided about is no longer so; nil: never.
	still func(*told.State) error
}

func read(by access.Caller, p rest.TwinPatch) (*edit, error) {
	if err := by.May(rest.CommandsSend); err != nil {
		return nil, fmt.Errorf("change a twin: %w: wants the right %s", err, rest.CommandsSend)
	}
	values, err := told.Values(p)
	if err != nil {
		return nil, err
	}
	var said []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		word := key + "=" + string(told.JSON(values[key]))
		if values[key] == nil {
			word = key + " unset"
		}
		said = append(said, word)
	}
	say := strings.Join(said, ", ")
	if p.Reason != "" {
		say = p.Reason + ": " + say
	}
	return &edit{by: by, values: values, reason: p.Reason, say: say}, nil
}

// Patch changes a board's twin, if its version is ifVersion; -1 is whatever there is. That
// the board exists, and that the caller may touch this one ([access.Caller] Boards), is
// looked at by who knows the boards.
func (x *Twins) Patch(ctx context.Context, by access.Caller, board string, p rest.TwinPatch, ifVersion int64) (rest.Twin, error) {
	e, err := read(by, p)
	if err != nil {
		return rest.Twin{}, err
	}
	return x.patch(ctx, e, board, ifVersion)
}

func (x *Twins) patch(ctx context.Context, e *edit, board string, ifVersion int64) (rest.Twin, error) {
	done, err := x.batch(ctx, e, []string{board}, ifVersion)
	if err == nil {
		err = done[0].err
	}
	if err != nil {
		return rest.Twin{}, err
	}
	return x.Twin(ctx, e.by.Tenant, board)
}

// PatchMany changes the twins of many boards: each or not, as the answer says of it by
// name. An error means that no board was changed by this call; where the context ends
// midway, the boards that were not reached say so. progress hears how many are through.
func (x *Twins) PatchMany(ctx context.Context, by access.Caller, boards []string, p rest.TwinPatch, progress func(done int)) ([]rest.TwinChanged, error) {
	e, err := read(by, p)
	if err != nil {
		return nil, err
	}
	boards = slices.Compact(slices.Sorted(slices.Values(boards)))
	if len(boards) == 0 || len(boards) > MaxBoards {
		return nil, fmt.Errorf("%w: %d boards at once, wants 1 to %d", ErrInvalid, len(boards), MaxBoards)
	}
	out := make([]rest.TwinChanged, 0, len(boards))
	for part := range slices.Chunk(boards, editBatch) {
		done, err := x.batch(ctx, e, part, anyVersion)
		if err != nil && len(out) == 0 && ctx.Err() == nil && len(boards) <= editBatch {
			return nil, err
		}
		for i, board := range part {
			c := rest.TwinChanged{Board: board}
			switch {
			case err != nil:
				c.Error = "was not changed: " + err.Error()
			case done[i].err != nil:
				c.Error = done[i].err.Error()
			default:
				c.Version = done[i].version
			}
			out = append(out, c)
		}
		if progress != nil {
			progress(len(out))
		}
	}
	return out, nil
}

// done is what became of one board.
type done struct {
	version uint64
	err     error
}

// batch changes boards, which are in order, in one transaction: all that can be changed,
// or with an error none.
func (x *Twins) batch(ctx context.Context, ed *edit, boards []string, ifVersion int64) ([]done, error) {
	out := make([]done, len(boards))
	type one struct {
		e *entry
		f *twin.Fleet
		c *twinrows.Change
	}
	var all []one
	defer func() {
		for _, o := range all {
			x.release(o.e)
		}
	}()
	var names []string
	for i, board := range boards {
		k := twinrows.Key{Tenant: ed.by.Tenant, Board: board}
		o := one{e: x.hold(k)} // in order, so that two who do so never wait for each other
		all = append(all, o)
		f, c, err := x.edited(ctx, k, o.e, ed, ifVersion)
		if out[i].err = err; err != nil {
			continue
		}
		if out[i].version, _ = f.Version(); c == nil {
			continue // it is so already
		}
		all[i].f, all[i].c = f, c
		names = append(names, board)
	}
	if len(names) == 0 {
		return out, nil
	}
	for i := range all {
		if all[i].c != nil {
			all[i].e.read = false // until it is known to stand
		}
	}
	err := x.commit(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for i := range all {
			if all[i].c == nil {
				continue
			}
			if err := x.cfg.Rows.Put(ctx, tx, all[i].c); err != nil {
				return err
			}
		}
		return audit.Append(ctx, tx, ed.entry(names))
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		if c := all[i].c; c != nil {
			x.n.edits.Add(1)
			x.stands(all[i].e, c)
			x.has(c.Key)
			x.push(c.Key, all[i].e, all[i].f)
		}
	}
	return out, nil
}

// entry is the row of the audit log: one for each transaction, as a change of a whole
// fleet would fill it otherwise. Each board's history has the change by itself.
func (ed *edit) entry(names []string) audit.Entry {
	a := audit.Entry{Who: ed.by.Who, Tenant: ed.by.Tenant, What: "set-twin", Why: ed.say}
	if len(names) == 1 {
		a.Board = names[0]
		return a
	}
	a.Why = fmt.Sprintf("%d boards, %s to %s: %s", len(names), names[0], names[len(names)-1], ed.say)
	return a
}

// edited makes the change of one board, nil where all is so already; e is held.
func (x *Twins) edited(ctx context.Context, k twinrows.Key, e *entry, ed *edit, ifVersion int64) (*twin.Fleet, *twinrows.Change, error) {
	f, err := x.open(ctx, k, e, !e.sure)
	if err != nil {
		return nil, nil, err
	}
	was := told.Of(f)
	if ifVersion != anyVersion && uint64(ifVersion) != was.Version {
		return nil, nil, fmt.Errorf("the twin of %s: %w: it is of version %d, not %d", k.Board, ErrStale, was.Version, ifVersion)
	}
	if ed.still != nil {
		if err := ed.still(&was); err != nil {
			return nil, nil, err
		}
	}
	values := told.News(was.Known, ed.values)
	if len(values) == 0 {
		return f, nil, nil
	}
	version, err := f.Edit(clipped(ed.by.Who, schema.MaxName), ed.reason, values)
	if errors.Is(err, twin.ErrFull) {
		err = fmt.Errorf("%w: %w; unset what is not needed any more", ErrInvalid, err)
	}
	if err != nil {
		return nil, nil, err
	}
	now := told.Of(f)
	c, err := change(k, e.head, f, &was, &now)
	if err != nil {
		return nil, nil, err
	}
	c.Agreed = nil
	for _, key := range slices.Sorted(maps.Keys(values)) {
		ev := rest.TwinEvent{Kind: told.KindSet, Key: key, Version: version, Author: ed.by.Who, Reason: ed.reason, Value: told.JSON(values[key])}
		if values[key] == nil {
			ev.Kind = told.KindDeleted
		}
		b, err := told.Encode(&ev)
		if err != nil {
			return nil, nil, err
		}
		c.Events = append(c.Events, b)
	}
	return f, c, nil
}

// clipped bounds a text, in bytes, without splitting a character.
func clipped(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// Decide settles a conflict with the fleet's value, the board's newest, or another.
func (x *Twins) Decide(ctx context.Context, by access.Caller, d rest.TwinDecision) (rest.Twin, error) {
	c, err := x.Conflict(ctx, by.Tenant, d.Board, d.Key)
	if err != nil {
		return rest.Twin{}, err
	}
	return x.settle(ctx, by, d, c)
}

// settle decides a conflict that was seen.
func (x *Twins) settle(ctx context.Context, by access.Caller, d rest.TwinDecision, c *rest.TwinConflict) (rest.Twin, error) {
	value, err := chosen(c, d)
	if err != nil {
		return rest.Twin{}, err
	}
	p := rest.TwinPatch{Set: map[string]json.RawMessage{d.Key: value}, Reason: d.Reason}
	ed, err := read(by, p)
	if err != nil {
		return rest.Twin{}, err
	}
	ed.still = func(now *told.State) error {
		if again, err := now.Conflict(d.Board, d.Key); err != nil || !reflect.DeepEqual(c, again) {
			return fmt.Errorf("%s of %s: %w: look at it again", d.Key, d.Board, ErrStale)
		}
		return nil
	}
	return x.patch(ctx, ed, d.Board, anyVersion)
}

// Conflict gives a key of a board that a person has to decide.
func (x *Twins) Conflict(ctx context.Context, tenant, board, key string) (*rest.TwinConflict, error) {
	s, _, _, err := x.view(ctx, twinrows.Key{Tenant: tenant, Board: board})
	if err != nil {
		return nil, err
	}
	return s.Conflict(board, key)
}

// chosen gives the value of a decision, null where it deletes.
func chosen(c *rest.TwinConflict, d rest.TwinDecision) (json.RawMessage, error) {
	null := json.RawMessage("null")
	switch d.Choose {
	case rest.ChooseFleet:
		if c.Fleet == nil || c.Fleet.Value == nil {
			return null, nil
		}
		return c.Fleet.Value, nil
	case rest.ChooseBoard:
		if len(c.Edits) == 0 || c.Edits[0].Value == nil {
			return null, nil
		}
		return c.Edits[0].Value, nil
	case rest.ChooseValue:
		if len(d.Value) == 0 {
			return nil, &told.KeyError{Key: d.Key, Detail: "no value is given"}
		}
		return d.Value, nil
	}
	return nil, fmt.Errorf("%w: choose is %.32q, wants %s, %s or %s", ErrInvalid, d.Choose, rest.ChooseFleet, rest.ChooseBoard, rest.ChooseValue)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/twinrows"
	"fulmar/fleet/twins/told"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/twin"
)

const (
	// maxConflicts bounds a list of conflicts: people decide them one by one.
	maxConflicts = 1000
	// maxHistory bounds one page of a history.
	maxHistory = 200
)

// view reads what people see of a twin; there is none in a board's first hour.
func (x *Twins) view(ctx context.Context, k twinrows.Key) (*told.State, *twin.Fleet, twinrows.Head, error) {
	h, body, ok, err := x.cfg.Rows.Get(ctx, k)
	if err != nil {
		return nil, nil, h, err
	}
	if !ok {
		body = nil
	}
	f, err := x.load(k, cmp.Or(h.Life, newLife()), body)
	if err != nil {
		return nil, nil, h, err
	}
	s := told.Of(f)
	return &s, f, h, nil
}

// Twin gives a board's twin; an empty one where nothing was said or set yet.
func (x *Twins) Twin(ctx context.Context, tenant, board string) (rest.Twin, error) {
	k := twinrows.Key{Tenant: tenant, Board: board}
	s, f, h, err := x.view(ctx, k)
	if err != nil {
		return rest.Twin{}, err
	}
	out := rest.Twin{
		Board: board, Version: s.Version, Applied: s.Applied, InSync: len(h.Agreed) > 0 && s.Version == s.Applied,
		Keys: []rest.TwinKey{}, Reported: map[string]json.RawMessage{}, Conflicts: len(s.Held),
	}
	if out.Seen, err = x.seen(ctx, k); err != nil {
		return rest.Twin{}, err
	}
	for key, v := range f.Reported() {
		out.Reported[key] = told.JSON(v)
	}
	for i := range s.Known {
		out.Keys = append(out.Keys, s.Key(&s.Known[i]))
	}
	return out, nil
}

func (x *Twins) seen(ctx context.Context, k twinrows.Key) (time.Time, error) {
	x.mu.Lock()
	at, ok := x.spoke[k]
	x.mu.Unlock()
	if ok {
		return at, nil
	}
	return x.cfg.Rows.Seen(ctx, k)
}

// Conflicts lists the keys of a tenant's boards that a person has to decide.
func (x *Twins) Conflicts(ctx context.Context, tenant string) ([]rest.TwinConflict, error) {
	rows, err := x.cfg.Rows.Conflicts(ctx, tenant, maxConflicts)
	if err != nil {
		return nil, err
	}
	out := make([]rest.TwinConflict, len(rows))
	for i, r := range rows {
		if err := json.Unmarshal(r.Body, &out[i]); err != nil {
			return nil, fmt.Errorf("conflict of %s about %s: %w", r.Board, r.Key, err)
		}
		out[i].Since = r.Since
	}
	return out, nil
}

// History gives the events of a board's twin, newest first, at most limit and 200; before
// is the number of the oldest that the caller has, 0 for none.
func (x *Twins) History(ctx context.Context, tenant, board string, before int64, limit int) ([]rest.TwinEvent, error) {
	rows, err := x.cfg.Rows.History(ctx, twinrows.Key{Tenant: tenant, Board: board}, before, min(max(limit, 1), maxHistory))
	if err != nil {
		return nil, err
	}
	out := make([]rest.TwinEvent, len(rows))
	for i := range rows {
		if out[i], err = told.Decode(&rows[i]); err != nil {
			return nil, fmt.Errorf("history of the twin of %s: %w", board, err)
		}
	}
	return out, nil
}

// Open is how a twin stands that is not settled.
type Open struct{ Conflict, Pending bool }

// Unsettled gives a tenant's boards whose twin is in conflict, or that have not said that
// they have the newest version.
func (x *Twins) Unsettled(ctx context.Context, tenant string) (map[string]Open, error) {
	heads, err := x.cfg.Rows.Open(ctx, tenant)
	if err != nil {
		return nil, err
	}
	out := make(map[string]Open, len(heads))
	for board, h := range heads {
		out[board] = Open{Conflict: h.Conflicts > 0, Pending: h.Applied < h.Version}
	}
	return out, nil
}

// Check tells what a patch would do to each key of a board, as far as the fleet knows:
// what of the board's own words speaks against it. Nothing is changed.
func (x *Twins) Check(ctx context.Context, by access.Caller, board string, p rest.TwinPatch) ([]rest.TwinCheck, error) {
	if err := by.May(rest.CommandsSend); err != nil {
		return nil, fmt.Errorf("change a twin: %w: wants the right %s", err, rest.CommandsSend)
	}
	values, err := told.Values(p)
	if err != nil {
		return nil, err
	}
	k := twinrows.Key{Tenant: by.Tenant, Board: board}
	s, f, _, err := x.view(ctx, k)
	if err != nil {
		return nil, err
	}
	out := s.Check(board, f.Reported(), values)
	if anew := told.News(s.Known, values); len(anew) > 0 {
		if _, err := f.Edit(clipped(by.Who, schema.MaxName), p.Reason, anew); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return out, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package book keeps rollouts: it turns what fleet/rollout decides into rows of the
// registry and back. What one event changes is one transaction, with its entries in
// the audit log; a server that is killed goes on from the last of them.
package book

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// ErrUnknown: there is no such rollout.
var ErrUnknown = rollouts.ErrUnknown

// stepsShown bounds the steps that a view holds.
const stepsShown = 200

// Book is the kept rollouts.
type Book struct {
	table *rollouts.Table
	tell  Tell
}

// New keeps rollouts in the table. tell hears what happened to them; nil: nobody does.
func New(t *rollouts.Table, tell Tell) *Book { return &Book{t, tell} }

// Number reads a rollout's id: r-31.
func Number(id string) (int64, error) {
	digits, ok := strings.CutPrefix(id, "r-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 1 || id != Name(n) {
		return 0, fmt.Errorf("%w: ids look like r-31", ErrUnknown)
	}
	return n, nil
}

// Name gives the id of a number.
func Name(n int64) string { return "r-" + strconv.FormatInt(n, 10) }

// Epoch gives a number that no rollout was given before.
func (b *Book) Epoch(ctx context.Context) (uint64, error) { return b.table.Epoch(ctx) }

// Create keeps a new rollout and gives it its id. who plans it, for the audit log.
func (b *Book) Create(ctx context.Context, r *state.Rollout, who string) error {
	return b.table.Create(ctx, r.Tenant, func(id int64) (rollouts.Change, error) {
		r.ID, r.Version = Name(id), 1
		c, err := change(r, rollout.Effects{})
		if err != nil {
			return c, err
		}
		if c.Plan, err = pack(r); err != nil {
			return c, err
		}
		c.Row.Spec, err = json.Marshal(r.Spec)
		c.Note, c.Who = fmt.Sprintf("planned %s %s for %d boards", r.Spec.Component, r.Spec.Release, len(r.Boards)), who
		return c, err
	})
}

// Save keeps what an event has changed. claim takes the boards for the rollout; they
// are let go when it is over. The version rises with each step, not with each board.
func (b *Book) Save(ctx context.Context, r *state.Rollout, fx rollout.Effects, claim bool) error {
	if len(fx.Steps) > 0 {
		r.Version++
	}
	c, err := change(r, fx)
	if err != nil {
		return err
	}
	if claim && !r.State.Over() {
		for i := range r.Boards {
			if r.Boards[i].State != state.BoardOut {
				c.Claim = append(c.Claim, r.Boards[i].Name)
			}
		}
	}
	c.Release = r.State.Over() && len(fx.Steps) > 0
	c.Tell = b.telling(r, fx.Steps)
	return b.table.Save(ctx, c)
}

func change(r *state.Rollout, fx rollout.Effects) (c rollouts.Change, err error) {
	n, err := Number(r.ID)
	if err != nil {
		return c, err
	}
	head := *r
	head.Spec, head.Boards = rest.RolloutSpec{}, nil
	c.Row = rollouts.Row{Tenant: r.Tenant, ID: n, Version: r.Version, Over: r.State.Over()}
	c.Component = r.Spec.Component
	if c.Row.Head, err = json.Marshal(&head); err != nil {
		return c, fmt.Errorf("encode rollout %s: %w", r.ID, err)
	}
	for i := range fx.Changed {
		body, err := json.Marshal(&r.Boards[i])
		if err != nil {
			return c, fmt.Errorf("encode a board of rollout %s: %w", r.ID, err)
		}
		c.Boards = append(c.Boards, rollouts.Board{N: i, Body: body})
		switch b := &r.Boards[i]; b.State {
		case state.BoardGood, state.BoardFailed, state.BoardUndone, state.BoardStuck, state.BoardUnreached:
			c.Attempts = append(c.Attempts, rollouts.Attempt{Board: b.Name, Attempt: b.Attempt, At: b.Since, State: b.State.String(), Say: b.Reason})
		}
	}
	for _, s := range fx.Steps {
		c.Steps = append(c.Steps, rollouts.Step{At: s.At, Who: s.Who, Was: s.From, Now: s.To, Say: s.Say})
	}
	return c, nil
}

// Get reads a rollout with its boards.
func (b *Book) Get(ctx context.Context, tenant, id string) (*state.Rollout, error) {
	n, err := Number(id)
	if err != nil {
		return nil, err
	}
	row, err := b.table.Get(ctx, tenant, n)
	if err != nil {
		return nil, err
	}
	return b.read(ctx, row)
}

// Open reads all rollouts that are not over.
func (b *Book) Open(ctx context.Context) (out []*state.Rollout, err error) {
	rows, err := b.table.Open(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		r, err := b.read(ctx, row)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Heads reads a tenant's rollouts without their boards, newest first: enough for a view
// of those that are over.
func (b *Book) Heads(ctx context.Context, tenant string) (out []*state.Rollout, err error) {
	rows, err := b.table.List(ctx, tenant)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		r, err := head(row)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func head(row rollouts.Row) (*state.Rollout, error) {
	r := new(state.Rollout)
	if err := errors.Join(json.Unmarshal(row.Head, r), json.Unmarshal(row.Spec, &r.Spec)); err != nil {
		return nil, fmt.Errorf("read rollout r-%d: %w", row.ID, err)
	}
	r.ID, r.Tenant, r.Version = Name(row.ID), row.Tenant, row.Version
	return r, r.Wake()
}

func (b *Book) read(ctx context.Context, row rollouts.Row) (*state.Rollout, error) {
	r, err := head(row)
	if err != nil {
		return nil, err
	}
	n := row.ID
	packed, err := b.table.Plan(ctx, row.Tenant, n)
	if err == nil {
		err = unpack(packed, r)
	}
	if err == nil {
		err = b.table.Boards(ctx, row.Tenant, n, func(x rollouts.Board) error {
			if x.N < 0 || x.N >= len(r.Boards) {
				return fmt.Errorf("board %d of %d", x.N, len(r.Boards))
			}
			r.Boards[x.N] = state.Board{}
			return json.Unmarshal(x.Body, &r.Boards[x.N])
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read rollout r-%d: %w", n, err)
	}
	return r, r.Wake()
}

// Steps gives the newest steps of a rollout.
func (b *Book) Steps(ctx context.Context, tenant, id string) (out []rest.RolloutStep, err error) {
	n, err := Number(id)
	if err != nil {
		return nil, err
	}
	steps, err := b.table.Steps(ctx, tenant, n, stepsShown)
	for _, s := range steps {
		out = append(out, rest.RolloutStep{At: s.At, Who: s.Who, From: s.Was, To: s.Now, Say: s.Say})
	}
	return out, err
}

// Past gives how the attempts of each board ended, newest first.
func (b *Book) Past(ctx context.Context, tenant, id string) (map[string][]rest.RolloutStep, error) {
	n, err := Number(id)
	if err != nil {
		return nil, err
	}
	list, err := b.table.Attempts(ctx, tenant, n)
	out := map[string][]rest.RolloutStep{}
	for _, a := range list {
		out[a.Board] = append(out[a.Board], rest.RolloutStep{At: a.At, Who: a.Board, To: a.State, Say: a.Say})
	}
	return out, err
}

// Others gives the boards of which another rollout has the component now, and those that
// another one has had since.
func (b *Book) Others(ctx context.Context, tenant, id, component string) (has map[string]string, had map[string]bool, err error) {
	own := int64(0)
	if id != "" {
		if own, err = Number(id); err != nil {
			return nil, nil, err
		}
	}
	active, last, err := b.table.Claims(ctx, tenant, component)
	has, had = map[string]string{}, map[string]bool{}
	for board, n := range active {
		if n != own {
			has[board] = Name(n)
		}
	}
	for board, n := range last {
		if n != own {
			had[board] = true
		}
	}
	return has, had, err
}

// Tried tells whether an attempt of the board in a rollout has ended or was given up.
func (b *Book) Tried(ctx context.Context, tenant, id, board string) (bool, error) {
	n, err := Number(id)
	if err != nil {
		return false, err
	}
	return b.table.Tried(ctx, tenant, n, board)
}

// State tells how a rollout stands, "" where there is none.
func (b *Book) State(ctx context.Context, tenant, id string) (state.State, error) {
	n, err := Number(id)
	if err != nil {
		return "", err
	}
	head, ok, err := b.table.State(ctx, tenant, n)
	if err != nil || !ok {
		return "", err
	}
	var h struct {
		State state.State `json:"state"`
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return "", fmt.Errorf("read rollout %s: %w", id, err)
	}
	return h.State, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package director signs what each board shall run, and what is newest.
//
// A TPM signs a few times a second and a wave has thousands of boards, so assignments that
// come within a short time are one batch with one signature (trust.SignBatch), and so are
// the answers to boards' nonces. An attempt's directive is signed once and sent as often
// as the assignment is: what a board has checked it knows again. Before an attempt goes
// out it is noted durably, so that freshness never tells of less than was sent.
package director

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fulmar/fleet/registry/releaserows"
	"fulmar/internal/run"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/trust"
)

const (
	// linger is how long assignments wait for others, freshLinger nonces: a board that asks
	// has nothing else to do.
	linger      = 200 * time.Millisecond
	freshLinger = 50 * time.Millisecond
	// maxSigned bounds the directives that are remembered: two waves of every board that a
	// fleet is made for. What is forgotten is signed anew.
	maxSigned = 2 * trust.MaxBatch
)

// ErrFull: more waits to be signed than a batch holds.
var ErrFull = errors.New("too much waits to be signed")

// Config joins the director to the rest.
type Config struct {
	// Directives and Fresh sign statements, all with one signature each.
	Directives, Fresh func(statements [][]byte) ([]trust.Proof, error)
	Rows              *releaserows.Table
	KeySet            uint64 // version in force
	// Want gives the hash of the manifest, and patches for what the board runs (before).
	Want func(tenant, component, name, before string) (release.Hash, []release.Patch, error)
	// Send gives a board an encoded ota.Assignment, Answer an answer to its nonce.
	Send   func(tenant, board string, payload []byte) error
	Answer func(tenant, board string, d *ota.Down) error
	Log    *slog.Logger
}

// Director is the two signers. Its methods may be called from any goroutine.
type Director struct {
	cfg Config

	mu      sync.Mutex
	waiting map[part]ota.Assignment
	signed  map[part]signed
	nonces  map[board][]byte // the newest of each board
	newest  map[board]map[string]uint64
	floors  map[board]uint64
	more    chan struct{}
	asked   chan struct{}
}

type board struct{ tenant, name string }

type part struct {
	board
	component string
}

// signed is the directive of an attempt.
type signed struct {
	attempt uint64
	act     uint8
	word    *ota.Proven
}

// New makes a director that knows what was told before.
func New(ctx context.Context, cfg Config) (*Director, error) {
	d := &Director{
		cfg: cfg, waiting: map[part]ota.Assignment{}, signed: map[part]signed{}, nonces: map[board][]byte{}, newest: map[board]map[string]uint64{},
		floors: map[board]uint64{}, more: make(chan struct{}, 1), asked: make(chan struct{}, 1),
	}
	attempts, err := cfg.Rows.Attempts(ctx)
	if err != nil {
		return nil, fmt.Errorf("open director: %w", err)
	}
	for _, a := range attempts {
		d.raise(part{board{a.Tenant, a.Board}, a.Component}, a.Attempt)
	}
	floors, err := cfg.Rows.Floors(ctx)
	if err != nil {
		return nil, fmt.Errorf("open director: %w", err)
	}
	for _, f := range floors {
		d.floors[board{f.Tenant, f.Board}] = f.Epoch
	}
	return d, nil
}

// raise notes an attempt; d.mu is held, or nobody else knows d.
func (d *Director) raise(p part, attempt uint64) {
	if attempt == 0 {
		return
	}
	by := d.newest[p.board]
	if by == nil {
		by = map[string]uint64{}
		d.newest[p.board] = by
	}
	by[p.component] = max(by[p.component], attempt)
}

// Floor notes an epoch that a board has committed, for freshness; it is kept by the caller.
func (d *Director) Floor(tenant, name string, epoch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := board{tenant, name}
	d.floors[b] = max(d.floors[b], epoch)
}

// Assign sends an assignment with its directive, which is signed first if it is new.
func (d *Director) Assign(tenant, name string, a ota.Assignment) error {
	p := part{board{tenant, name}, a.Component}
	d.mu.Lock()
	if s, ok := d.signed[p]; ok && s.attempt == a.Attempt && s.act == a.Act {
		d.mu.Unlock()
		a.Directive = s.word
		return d.send(p, &a)
	}
	defer d.mu.Unlock()
	if _, ok := d.waiting[p]; !ok && len(d.waiting) >= trust.MaxBatch {
		return fmt.Errorf("%w: %d assignments", ErrFull, len(d.waiting))
	}
	d.waiting[p] = a
	tell(d.more)
	return nil
}

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (d *Director) send(p part, a *ota.Assignment) error {
	payload, err := schema.Encode(a)
	if err != nil {
		return err
	}
	return d.cfg.Send(p.tenant, p.name, payload)
}

// Nonce asks what is newest for a board. It does not wait: the answer goes to the board.
func (d *Director) Nonce(tenant, name string, nonce []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := board{tenant, name}
	if _, ok := d.nonces[b]; !ok && len(d.nonces) >= trust.MaxBatch {
		return // the board asks again
	}
	d.nonces[b] = append([]byte{}, nonce...)
	tell(d.asked)
}

// Run signs until the context ends.
func (d *Director) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("directives", func(ctx context.Context) error { return after(ctx, d.more, linger, d.direct) })
	g.Go("freshness", func(ctx context.Context) error { return after(ctx, d.asked, freshLinger, d.freshen) })
	return g.Wait(time.Second)
}

// after does fn a while after each time it is wanted.
func after(ctx context.Context, want chan struct{}, wait time.Duration, fn func(context.Context)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-want:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		fn(ctx)
	}
}

// direct signs and sends what waits.
func (d *Director) direct(ctx context.Context) {
	d.mu.Lock()
	batch := d.waiting
	d.waiting = map[part]ota.Assignment{}
	d.mu.Unlock()
	var parts []part
	var statements [][]byte
	for p, a := range batch {
		b, err := d.statement(p, &a)
		if err != nil {
			d.cfg.Log.Warn("board not told; told again", "rollout", a.Rollout, "board", p.name, "error", err.Error())
			continue
		}
		parts, statements = append(parts, p), append(statements, b)
	}
	if len(parts) == 0 {
		return
	}
	if err := d.sign(ctx, batch, parts, statements); err != nil {
		d.cfg.Log.Error("boards not told; told again", "boards", len(parts), "error", err.Error())
		return
	}
	for _, p := range parts {
		a := batch[p]
		d.mu.Lock()
		s := d.signed[p]
		d.mu.Unlock()
		if s.attempt != a.Attempt {
			continue
		}
		a.Directive = s.word
		if err := d.send(p, &a); err != nil {
			d.cfg.Log.Warn("board not told; told again", "rollout", a.Rollout, "board", p.name, "error", err.Error())
		}
	}
}

// sign signs a batch, and notes its attempts before anything of it goes out.
func (d *Director) sign(ctx context.Context, batch map[part]ota.Assignment, parts []part, statements [][]byte) error {
	proofs, err := d.cfg.Directives(statements)
	if err != nil {
		return err
	}
	rows := make([]releaserows.Attempt, len(parts))
	for i, p := range parts {
		rows[i] = releaserows.Attempt{Tenant: p.tenant, Board: p.name, Component: p.component, Attempt: batch[p].Attempt}
	}
	if err := d.cfg.Rows.Raise(ctx, rows); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.signed)+len(parts) > maxSigned {
		clear(d.signed)
	}
	for i, p := range parts {
		a := batch[p]
		d.raise(p, a.Attempt)
		d.signed[p] = signed{a.Attempt, a.Act, proven(statements[i], proofs[i])}
	}
	return nil
}

// proven puts a statement and its proof into the words of the wire.
func proven(statement []byte, p trust.Proof) *ota.Proven {
	return &ota.Proven{Statement: statement, Proof: ota.Proof{Envelope: p.Envelope, Index: uint32(p.Index), Count: uint32(p.Count), Path: p.Path}}
}

// statement makes the directive of an assignment.
func (d *Director) statement(p part, a *ota.Assignment) ([]byte, error) {
	s := &release.Directive{V: 1, Tenant: p.tenant, Board: p.name, Rollout: a.Rollout, Component: a.Component, Release: a.Release, Attempt: a.Attempt, Act: acts(a.Act)}
	if release.Name(a.Before) { // a program may call itself anything
		s.Before = a.Before
	}
	if a.Act != ota.Undo {
		var err error
		if s.Manifest, s.Patches, err = d.cfg.Want(p.tenant, a.Component, a.Release, a.Before); err != nil {
			return nil, err
		}
	}
	b, err := s.Encode()
	if err != nil && len(s.Patches) > 0 {
		s.Patches = nil // the board takes whole files
		b, err = s.Encode()
	}
	return b, err
}

func acts(act uint8) string {
	switch act {
	case ota.Install:
		return release.ActInstall
	case ota.Shadow:
		return release.ActShadow
	}
	return release.ActUndo
}

// freshen answers the nonces that wait.
func (d *Director) freshen(context.Context) {
	d.mu.Lock()
	batch := d.nonces
	d.nonces = map[board][]byte{}
	var boards []board
	var statements [][]byte
	now := time.Now().UnixMilli()
	for b, nonce := range batch {
		s := &release.Fresh{V: 1, Tenant: b.tenant, Board: b.name, Nonce: hex.EncodeToString(nonce), Time: now, KeySet: d.cfg.KeySet, Floor: d.floors[b], Attempts: d.newest[b]}
		text, err := s.Encode()
		if err != nil {
			d.cfg.Log.Warn("a board is not told what is newest", "board", b.name, "error", err.Error())
			continue
		}
		boards, statements = append(boards, b), append(statements, text)
	}
	d.mu.Unlock()
	if len(boards) == 0 {
		return
	}
	proofs, err := d.cfg.Fresh(statements)
	if err != nil {
		d.cfg.Log.Error("boards are not told what is newest; they ask again", "boards", len(boards), "error", err.Error())
		return
	}
	for i, b := range boards {
		if err := d.cfg.Answer(b.tenant, b.name, &ota.Down{V: schema.Version, Fresh: proven(statements[i], proofs[i])}); err != nil {
			d.cfg.Log.Warn("a board is not told what is newest", "board", b.name, "error", err.Error())
		}
	}
}

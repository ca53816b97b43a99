// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"fulmar/fleet/api"
	"fulmar/fleet/audit"
	"fulmar/fleet/enrol"
	"fulmar/fleet/ingest"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
	"fulmar/schema"
)

// dropTimeout bounds the wait for a wiped board's connection to end: the commit under
// way and its answer.
const dropTimeout = 10 * time.Second

// keeper is the registry, and what has to be done beside it when a board goes.
type keeper struct {
	*registry.Registry
	s   *Server
	src *store.Store
}

// seen lets the next look see what was done.
func (k keeper) seen(tenant string) { k.src.Stale(tenant) }

var _ api.Keeper = keeper{}

// Approve implements [api.Keeper].
func (k keeper) Approve(ctx context.Context, tenant string, id int64, who string) error {
	defer k.seen(tenant)
	return k.Registry.Approve(ctx, tenant, id, who)
}

// Refuse implements [api.Keeper].
func (k keeper) Refuse(ctx context.Context, tenant string, id int64, who string) error {
	defer k.seen(tenant)
	return k.Registry.Refuse(ctx, tenant, id, who)
}

// Revoke implements [api.Keeper].
func (k keeper) Revoke(ctx context.Context, tenant, board, who, why string) error {
	defer k.seen(tenant)
	return k.Registry.Revoke(ctx, tenant, board, who, why)
}

// Forget implements [api.Keeper].
func (k keeper) Forget(ctx context.Context, tenant, board, who, why string) error {
	defer k.seen(tenant)
	if err := k.Registry.Forget(ctx, tenant, board, who, why); err != nil {
		return err
	}
	return k.s.orders.Gone(ctx, tenant, board) // another board may get its name
}

// Wipe implements [api.Keeper]. A wipe that was broken off is taken up by the next one.
func (k keeper) Wipe(ctx context.Context, tenant, board, who, why string) error {
	k.s.wiping.Lock() // one at a time: the other boards' commits come between
	defer k.s.wiping.Unlock()
	defer k.seen(tenant)
	key := ingest.BoardKey{Tenant: tenant, Board: board}
	err := k.Forget(ctx, tenant, board, who, why)
	if errors.Is(err, registry.ErrUnknown) {
		k.seen(tenant)
		_, err = k.src.Board(ctx, tenant, board) // of a wipe that was broken off, or of a foreign broker
	}
	if err != nil {
		return err
	}
	drop, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	if err := k.s.gate.Drop(drop, key); err != nil {
		return err
	}
	if err := k.s.ingest.Wipe(ctx, key); err != nil {
		return fmt.Errorf("wipe board %s: %w", board, err)
	}
	k.s.clones.Forget(key)
	if err := k.s.shadow.Forget(ctx, tenant, board); err != nil {
		return fmt.Errorf("wipe board %s: %w", board, err)
	}
	return k.Note(ctx, audit.Entry{Who: who, Tenant: tenant, Board: board, What: "wipe", Why: why})
}

// desk lets the next look see a board that has just got its certificate: what lets it in
// may say at once where it stands.
type desk struct {
	*enrol.Desk
	seen func(tenant string)
}

var _ api.Desk = desk{}

// Claim implements [api.Desk].
func (d desk) Claim(ctx context.Context, from netip.Addr, req *schema.EnrolRequest) (*enrol.Answer, error) {
	a, err := d.Desk.Claim(ctx, from, req)
	d.issued(a)
	return a, err
}

// Prove implements [api.Desk].
func (d desk) Prove(ctx context.Context, from netip.Addr, p *schema.ProveRequest) (*enrol.Answer, error) {
	a, err := d.Desk.Prove(ctx, from, p)
	d.issued(a)
	return a, err
}

func (d desk) issued(a *enrol.Answer) {
	if a != nil && a.Leaf != nil {
		d.seen(a.Tenant)
	}
}

// hello notes a board's new connection, and watches for two with one identity.
func (s *Server) hello(key ingest.BoardKey, h *schema.Hello) {
	s.proofs.Hello(key.Tenant, key.Board, h)
	s.rolls.Connected(key.Tenant, key.Board)
	if !s.clones.Heard(key, h.Now.Boot) {
		return
	}
	s.log.Warn("two boards use one identity: a disk was copied; revoke the board and enrol each anew", "tenant", key.Tenant, "board", key.Board)
	s.twins.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	err := s.reg.Note(ctx, audit.Entry{
		Who: "server", Tenant: key.Tenant, Board: key.Board, What: "clone",
		Why: "Two boards take turns with this identity: boots that were over came back.",
	})
	if err != nil {
		s.log.Error("audit log not written", "error", err.Error())
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"time"

	"fulmar/fleet/registry"
	"fulmar/fleet/web/trust"
)

// askAgain is how often connected boards are looked through for attestations that are
// no longer fresh: often against a day, and it asks memory alone for the others.
const askAgain = 10 * time.Minute

// decider is the registry as the page wants it.
type decider struct {
	reg *registry.Registry
	// seen lets the next look see what was decided: a person looks right after.
	seen func(tenant string)
}

var _ trust.Keeper = decider{}

func (d decider) Pending(ctx context.Context, tenant string) ([]trust.Request, error) {
	pending, err := d.reg.Pending(ctx, tenant)
	if err != nil {
		return nil, err
	}
	out := make([]trust.Request, len(pending))
	for i := range pending {
		q := &pending[i]
		out[i] = trust.Request{
			ID: q.ID, Board: q.Board, Why: string(q.Why), Say: q.Say, Other: q.Other, How: q.Trust, Fingerprint: q.Fingerprint(),
			Kind: q.TPMKind, Maker: q.TPMMaker, Firmware: q.TPMFirmware, Note: q.EKNote, Facts: q.Facts,
			From: q.From, First: q.First, Last: q.Last, Decision: q.Decision, By: q.DecidedBy, DecidedAt: q.DecidedAt,
		}
	}
	return out, nil
}

// onPage turns the registry's errors into the page's.
func onPage(err error) error {
	for _, p := range [][2]error{{registry.ErrUnknown, trust.ErrGone}, {registry.ErrElsewhere, trust.ErrElsewhere}} {
		if errors.Is(err, p[0]) {
			return p[1]
		}
	}
	return err
}

func (d decider) Approve(ctx context.Context, tenant string, id int64, who string) error {
	defer d.seen(tenant)
	return onPage(d.reg.Approve(ctx, tenant, id, who))
}

func (d decider) Refuse(ctx context.Context, tenant string, id int64, who string) error {
	defer d.seen(tenant)
	return onPage(d.reg.Refuse(ctx, tenant, id, who))
}

func (d decider) Revoke(ctx context.Context, tenant, board, who, why string) error {
	defer d.seen(tenant)
	return onPage(d.reg.Revoke(ctx, tenant, board, who, why))
}

func (d decider) Forget(ctx context.Context, tenant, board, who, why string) error {
	defer d.seen(tenant)
	return onPage(d.reg.Forget(ctx, tenant, board, who, why))
}

// keepAsking asks boards anew whose connections outlast their attestations.
func (s *Server) keepAsking(ctx context.Context) error {
	t := time.NewTicker(askAgain)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.gate.AskAgain()
		}
	}
}

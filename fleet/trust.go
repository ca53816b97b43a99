// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"time"

	"fulmar/fleet/clones"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
	"fulmar/fleet/web/trust"
)

// askAgain is how often connected boards are looked through for attestations that are
// no longer fresh: often against a day, and it asks memory alone for the others.
const askAgain = 10 * time.Minute

// enrolled lists boards for the store, with all that is known of how they prove who
// they are.
func (s *Server) enrolled(ctx context.Context, tenant string) ([]store.Enrolled, error) {
	boards, err := s.reg.Boards(ctx, tenant)
	if err != nil {
		return nil, err
	}
	kept, err := s.reg.Proofs().All(ctx, tenant)
	if err != nil {
		return nil, err
	}
	pending, err := s.reg.Pending(ctx, tenant)
	if err != nil {
		return nil, err
	}
	asking := make(map[string]*registry.Request, len(pending)) // the oldest undecided one of a name
	for i := range pending {
		if q := &pending[i]; q.Decision == "" && asking[q.Board] == nil {
			asking[q.Board] = q
		}
	}
	silent, twins := s.proofs.Silent(tenant), map[string]clones.Clone{}
	for _, c := range s.clones.Clones(tenant) {
		twins[c.Board] = c
	}
	out := make([]store.Enrolled, len(boards))
	for i := range boards {
		b := &boards[i]
		p := kept[b.Name]
		t := &trust.Trust{
			How: b.Trust, Fingerprint: b.Fingerprint(), Enrolled: b.EnrolledAt, Until: b.NotAfter, Revoked: b.RevokedAt,
			Kind: b.TPMKind, Maker: b.TPMMaker, Firmware: b.TPMFirmware, Note: b.EKNote,
			Level: proof.Claimed, Silent: silent[b.Name], Clones: twins[b.Name].Since,
		}
		if t.InTPM() { // of a board that went back to a file nothing older counts
			t.Good, t.Since, t.Boots, t.Report = p.Good, p.Since, p.Boots(), p.Report
			t.Refused, t.RefusedAt, t.Why = p.Refused, p.RefusedAt, proof.Say(p.Why)
			if !p.Good.IsZero() {
				t.Level = p.Level
			}
		}
		if q := asking[b.Name]; q != nil {
			t.Asks, t.AsksAt = string(q.Why), q.First
		}
		out[i] = store.Enrolled{Name: b.Name, KeyMode: b.KeyMode, Facts: b.Facts, At: b.EnrolledAt, Revoked: b.Revoked, Trust: t}
	}
	return out, nil
}

// decider is the registry as the page wants it.
type decider struct{ reg *registry.Registry }

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
	return onPage(d.reg.Approve(ctx, tenant, id, who))
}

func (d decider) Refuse(ctx context.Context, tenant string, id int64, who string) error {
	return onPage(d.reg.Refuse(ctx, tenant, id, who))
}

func (d decider) Revoke(ctx context.Context, tenant, board, who, why string) error {
	return onPage(d.reg.Revoke(ctx, tenant, board, who, why))
}

func (d decider) Forget(ctx context.Context, tenant, board, who, why string) error {
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

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"fulmar/fleet/clones"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
	"fulmar/fleet/web/trust"
)

// maxRolls bounds the tenants whose boards are remembered.
const maxRolls = 1000

// rollCall remembers the boards of each tenant as long as nothing changes of them: reading
// 10,000 of them anew for each look would take a tenth of each second.
type rollCall struct {
	mu sync.Mutex
	by map[string]*called
}

// called is one tenant's boards. The list is the store's too: it is never changed.
type called struct {
	at     int64 // registry.Roll
	list   []store.Enrolled
	silent map[string]time.Time
	twins  []clones.Clone
}

// enrolled lists boards for the store, with all that is known of how they prove who
// they are.
func (s *Server) enrolled(ctx context.Context, tenant string) ([]store.Enrolled, error) {
	// Before reading: what changes meanwhile is read once more the next time.
	at, err := s.reg.Roll(ctx)
	if err != nil {
		return nil, err
	}
	now := &called{at: at, silent: s.proofs.Silent(tenant), twins: s.clones.Clones(tenant)}
	s.roll.mu.Lock()
	defer s.roll.mu.Unlock()
	if c := s.roll.by[tenant]; c != nil && c.at == at && maps.Equal(c.silent, now.silent) && slices.Equal(c.twins, now.twins) {
		return c.list, nil
	}
	if now.list, err = s.callRoll(ctx, tenant, now); err != nil {
		return nil, err
	}
	if s.roll.by == nil || len(s.roll.by) >= maxRolls {
		s.roll.by = map[string]*called{}
	}
	s.roll.by[tenant] = now
	return now.list, nil
}

// callRoll reads all of a tenant's boards.
func (s *Server) callRoll(ctx context.Context, tenant string, now *called) ([]store.Enrolled, error) {
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
	twins := map[string]clones.Clone{}
	for _, c := range now.twins {
		twins[c.Board] = c
	}
	told, err := s.reg.Meta().All(ctx, tenant)
	if err != nil {
		return nil, err
	}
	out := make([]store.Enrolled, len(boards))
	for i := range boards {
		b := &boards[i]
		p := kept[b.Name]
		t := &trust.Trust{
			How: b.Trust, Fingerprint: b.Fingerprint(), Enrolled: b.EnrolledAt, Until: b.NotAfter, Revoked: b.RevokedAt,
			Kind: b.TPMKind, Maker: b.TPMMaker, Firmware: b.TPMFirmware, Note: b.EKNote,
			Level: proof.Claimed, Silent: now.silent[b.Name], Clones: twins[b.Name].Since,
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
		out[i] = store.Enrolled{Name: b.Name, KeyMode: b.KeyMode, Facts: b.Facts, At: b.EnrolledAt, Revoked: b.Revoked, Trust: t, Meta: told[b.Name]}
	}
	return out, nil
}

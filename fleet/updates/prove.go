// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"context"
	"slices"
	"time"

	"fulmar/fleet/proof"
	"fulmar/fleet/registry/proofs"
	"fulmar/fleet/rollout/runner"
)

const (
	// maxClaims bounds the words of one board that wait for a proof: one a component.
	maxClaims = 32
	// storeLimit bounds how long what came of a proof may take to be stored.
	storeLimit = 30 * time.Second
)

// Level implements [runner.Prover].
func (u *Updates) Level(ctx context.Context, tenant, board string) (string, error) {
	can, err := u.cfg.Proofs.CanProve(ctx, tenant, board)
	if err != nil || can {
		return "", err
	}
	return proof.Claimed, nil
}

// Prove implements [runner.Prover]. The board is asked by a goroutine of its own: the
// question is a row of the registry, and rollouts do not wait for it.
func (u *Updates) Prove(c runner.Claim) {
	k := [2]string{c.Tenant, c.Board}
	u.mu.Lock()
	list := slices.DeleteFunc(u.claims[k], func(o runner.Claim) bool { return o.Component == c.Component })
	if len(list) < maxClaims {
		list = append(list, c)
	}
	u.claims[k] = list
	u.mu.Unlock()
	if u.cfg.Proofs.Demand(c.Tenant, c.Board) {
		u.tasks.Go("ask", func(context.Context) error { u.askNow(c.Tenant, c.Board); return nil })
	}
}

func (u *Updates) askNow(tenant, board string) {
	if err := u.cfg.Gate().AskNow(tenant, board); err != nil {
		u.cfg.Log.Debug("board not asked to prove what it runs; asked when it comes", "board", board, "error", err.Error())
	}
}

// Ask implements [gateway.Attester].
func (u *Updates) Ask(ctx context.Context, tenant, board string, conn uint64) []byte {
	return u.cfg.Proofs.Ask(ctx, tenant, board, conn)
}

// Answer implements [gateway.Attester]. Where a proof of now was demanded while an earlier
// question was open, it is asked for after that one's answer.
func (u *Updates) Answer(ctx context.Context, tenant, board string, conn uint64, payload []byte) {
	u.cfg.Proofs.Answer(ctx, tenant, board, conn, payload)
	if u.cfg.Proofs.Wanted(tenant, board) {
		u.askNow(tenant, board)
	}
}

// attested holds what a board has proven against what it said.
func (u *Updates) attested(tenant, board string, p proofs.Proof, why string) {
	k := [2]string{tenant, board}
	u.mu.Lock()
	claims := u.claims[k]
	delete(u.claims, k)
	u.mu.Unlock()
	for _, c := range claims {
		level, say := p.Level, proof.Say(why)
		if why == "" {
			say = u.mismatch(c, p)
		}
		u.tasks.Go("settle", func(ctx context.Context) error { u.settle(ctx, c, level, say); return nil })
	}
}

// settle tells the rollout. Where that fails the board says its word again.
func (u *Updates) settle(ctx context.Context, c runner.Claim, level, why string) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	if err := u.cfg.Rollouts().Proven(ctx, c, level, why); err != nil {
		u.cfg.Log.Warn("proof not taken; the board is asked again", "rollout", c.Rollout, "board", c.Board, "error", err.Error())
	}
}

// mismatch tells why a good attestation is no proof of a claim; "" where it is one.
func (u *Updates) mismatch(c runner.Claim, p proofs.Proof) string {
	w, err := u.Releases.Want(c.Tenant, c.Component, c.Release)
	if err != nil {
		return "what it should run is not known any more: " + err.Error()
	}
	r, err := proof.Report(p)
	if err != nil {
		return "its report cannot be read"
	}
	if c.Component == "rootfs" {
		was, known, err := u.cfg.Registry.Releases().Resets(context.Background(), c.Tenant, c.Board, c.Component)
		switch {
		case err != nil:
			return "how often its TPM had been reset before is not known: " + err.Error()
		case !known:
			return "it had attested nothing before the update, so nobody can tell that it started again"
		case was == p.Resets:
			return "its TPM was not reset since it was told to update: it did not start again"
		}
	}
	return w.Matches(r)
}

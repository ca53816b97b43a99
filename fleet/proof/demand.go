// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"errors"
	"time"

	"fulmar/fleet/registry"
	"fulmar/fleet/registry/proofs"
	"fulmar/schema"
)

// again is how old an open question may be when a proof of now is demanded once more: a
// TPM signs within a second, so its answer was lost.
const again = time.Minute

// Tell has fn hear what came of each demand: the newest proof, and why it is not believed
// where it is not ("" where it is). It is called from the connection that the answer came in.
// To be called before anything else.
func (c *Checker) Tell(fn func(tenant, board string, p proofs.Proof, why string)) { c.tell = fn }

func (c *Checker) outcome(k key, demanded bool, p proofs.Proof, why string) {
	if demanded && c.tell != nil {
		c.tell(k.tenant, k.board, p, why)
	}
}

// Demand wants a proof that is of now, however fresh the newest is: the next [Checker.Ask]
// for the board asks, as soon as no earlier question is open. It tells whether that is now.
// A board that is away is asked when it comes.
func (c *Checker) Demand(tenant, board string) (ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.boards[key{tenant, board}]
	if s == nil {
		return false
	}
	old := c.now().Sub(s.asked) > again
	switch {
	case s.nonce != nil && s.now && !old:
		return false // it is on its way
	case s.nonce != nil && old:
		s.nonce, s.now = nil, false
	}
	s.want = true
	return s.nonce == nil
}

// Wanted tells whether a demand waits to be asked: to be looked at after each answer.
func (c *Checker) Wanted(tenant, board string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.boards[key{tenant, board}]
	return s != nil && s.want && s.nonce == nil
}

// CanProve tells whether a board has a TPM that it enrolled with.
func (c *Checker) CanProve(ctx context.Context, tenant, board string) (bool, error) {
	area, trust, err := c.keys.AK(ctx, tenant, board)
	if errors.Is(err, registry.ErrUnknown) {
		return false, nil
	}
	return err == nil && trust != schema.TrustSoftware && len(area) > 0, err
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"

	"fulmar/schema"
)

// ask notes a nonce of the fleet for the goroutine that answers; a newer one takes
// the place of one that still waits. One goroutine calls it at a time.
func (g *gen) ask(nonce []byte) {
	if len(nonce) == 0 || g.s.cfg.Attest == nil {
		return
	}
	select {
	case <-g.asked:
	default:
	}
	g.asked <- nonce
}

// attest answers nonces, one after another, until the connection is over. What fails
// is said and nothing more: the link carries records whether or not a TPM answers.
func (g *gen) attest(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.quiet:
			return nil
		case <-g.lost:
			return nil
		case nonce := <-g.asked:
			if err := g.answer(ctx, nonce); err != nil && ctx.Err() == nil {
				g.s.cfg.Log.Warn("the fleet's question for an attestation is not answered", "err", err)
			}
		}
	}
}

// answer makes one attestation and publishes it, both within their bounds. The context
// ends with the connection: a nonce is good in its own only.
func (g *gen) answer(ctx context.Context, nonce []byte) error {
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	payload, err := g.s.cfg.Attest(ctx, nonce)
	if err != nil {
		return err
	}
	return g.say(ctx, schema.ChanAttest, payload, false)
}

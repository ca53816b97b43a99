// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"

	"fulmar/fleet/ingest"
)

// Attester asks boards for attestations and takes what they answer. Whatever becomes
// of one, the link goes on.
type Attester interface {
	// Ask gives the nonce to ask a connection with, nil where no attestation is due.
	Ask(ctx context.Context, tenant, board string, conn uint64) []byte
	// Answer takes the payload of a message on schema.ChanAttest.
	Answer(ctx context.Context, tenant, board string, conn uint64, payload []byte)
}

// question gives the nonce for an answer to a board's hello.
func (g *Gateway) question(key ingest.BoardKey, conn uint64) []byte {
	if g.cfg.Attest == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(g.ctx, ingestTimeout)
	defer cancel()
	return g.cfg.Attest.Ask(ctx, key.Tenant, key.Board, conn)
}

// attested hands a board's attestation on, with the connection it came in.
func (g *Gateway) attested(ctx context.Context, s *session, payload []byte) {
	if g.cfg.Attest != nil && s.spoke.Load() {
		g.cfg.Attest.Answer(ctx, s.key.Tenant, s.key.Board, s.conn.Load(), payload)
	}
}

// AskNow asks one board, where a question is due and it is connected.
func (g *Gateway) AskNow(tenant, board string) error {
	s, err := g.there(tenant, board)
	if err != nil {
		return err
	}
	conn := s.conn.Load()
	nonce := g.question(s.key, conn)
	if nonce == nil {
		return nil
	}
	return g.tell(s.key, conn, 0, nonce)
}

// AskAgain asks the connected boards whose newest attestation is no longer fresh. It
// is to be called now and then: a connection may last for months.
func (g *Gateway) AskAgain() {
	for _, s := range g.spoken() {
		conn := s.conn.Load()
		nonce := g.question(s.key, conn)
		if nonce == nil {
			continue
		}
		if err := g.tell(s.key, conn, 0, nonce); err != nil {
			g.log.Warn("board not asked for an attestation", "board", s.key.Board, "error", err.Error())
		}
	}
}

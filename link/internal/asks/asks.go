// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package asks answers the fleet's questions for an attestation beside a connection,
// one after another. What answers may be a TPM that takes its time, or one that hangs:
// nothing of the connection waits for it.
package asks

import (
	"context"
	"log/slog"
	"time"
)

// timeout bounds one answer and its way: a slow TPM takes seconds, one that hangs is
// given up.
const timeout = time.Minute

// Asks are the questions of one connection.
type Asks struct {
	nonces chan []byte // 1-buffered: the newest
}

// New makes it.
func New() *Asks { return &Asks{make(chan []byte, 1)} }

// Note keeps a nonce for Run; a newer one takes the place of one that still waits, and
// an empty one is none. One goroutine calls it at a time.
func (a *Asks) Note(nonce []byte) {
	if len(nonce) == 0 {
		return
	}
	select {
	case <-a.nonces:
	default:
	}
	a.nonces <- nonce
}

// Run lets prove answer each nonce and sends what it gives, until the context ends or
// over is closed. What fails is said and nothing more. A nil prove answers nothing.
func (a *Asks) Run(ctx context.Context, over <-chan struct{}, log *slog.Logger,
	prove func(ctx context.Context, nonce []byte) ([]byte, error), send func(ctx context.Context, payload []byte) error,
) {
	if prove == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case nonce := <-a.nonces:
			if err := answer(ctx, nonce, prove, send); err != nil && ctx.Err() == nil {
				log.Warn("the fleet's question for an attestation is not answered", "err", err)
			}
		}
	}
}

func answer(ctx context.Context, nonce []byte, prove func(context.Context, []byte) ([]byte, error), send func(context.Context, []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	payload, err := prove(ctx, nonce)
	if err != nil {
		return err
	}
	return send(ctx, payload)
}

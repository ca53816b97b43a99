// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fulmar/link/internal/flights"
	"fulmar/link/internal/pace"
	"fulmar/schema"
)

// errSilent ends a connection on which nothing is acknowledged.
var errSilent = errors.New("no PUBACK")

// acknowledge waits for the oldest message in flight, again and again, and frees
// its records. It ends the generation when there is no progress for too long: a
// half-open connection looks alive from this side for ever. It ends with the
// publisher, which on a stop waits a little for what is in flight.
func (g *gen) acknowledge(ctx context.Context) error {
	late := time.NewTimer(time.Hour)
	defer late.Stop()
	for {
		select {
		case <-g.quiet:
			return nil
		case <-g.lost:
			return nil
		case f := <-g.Flights:
			late.Reset(g.s.cfg.AckTimeout)
			if err := g.settle(ctx, f, late.C); err != nil {
				return err
			}
		}
	}
}

// settle waits for one flight's acknowledgement and frees its records.
func (g *gen) settle(ctx context.Context, f *flights.Flight, late <-chan time.Time) error {
	token := g.Token(f)
	puback, word := token.Done(), f.Fleet // word is nil unless the fleet's own is needed
	for puback != nil || word != nil {
		select {
		case <-puback:
			if err := token.Error(); err != nil {
				return fmt.Errorf("publish: %w", g.reason(ctx, err))
			}
			puback = nil
			g.s.suspects.Through(f.Message())
			g.s.unblock(f.Class)
		case <-word:
			word = nil
		case <-g.lost:
			return nil
		case <-g.quiet:
			return nil
		case <-late:
			if puback == nil {
				return fmt.Errorf("no acknowledgement of the fleet within %v: the broker is there, the fleet is not", g.s.cfg.AckTimeout)
			}
			return fmt.Errorf("%w within %v: the connection is half open", errSilent, g.s.cfg.AckTimeout)
		}
	}
	if g.abandoned() {
		return nil // the generation is over: its acknowledgements count no more
	}
	for _, r := range f.Runs {
		if err := g.s.out.Ack(f.Class, f.Epoch, r[0], r[1]); err != nil {
			return fmt.Errorf("free records %d to %d of class %s: %w", r[0], r[1], f.Class, err)
		}
	}
	if f.Pic != nil && len(f.Runs) > 0 {
		if err := g.s.blobs.RemoveBlob(f.Pic.Name); err != nil {
			g.s.cfg.Log.Warn("picture that arrived is not removed", "blob", f.Pic.Name, "err", err)
		}
	}
	n := g.Leave(f)
	g.s.count(func(st *Status) { st.InFlight = n; st.Acked += f.Records() })
	return nil
}

// take deals with a message that came in; its error ends the connection.
func (g *gen) take(m inbound) error {
	switch m.topic {
	case g.topic(schema.ChanHelloAck):
		return g.told(m.payload)
	case g.topic(schema.ChanAck):
		if g.mode != schema.AckFleet {
			return nil
		}
		var a schema.Ack
		if err := schema.Decode(m.payload, &a); err != nil {
			g.s.cfg.Log.Warn("acknowledgement cannot be read", "err", err)
			return nil
		}
		g.s.claims.Check(&a, g.s.cfg.Log)
		g.Covered(&a)
	}
	return nil
}

// told takes what the fleet says anew of the rules of this connection: the rate,
// the window of reconnects, or that the board should go for a while. Whose word
// frees a record stays as it was.
func (g *gen) told(payload []byte) error {
	var a schema.HelloAck
	if err := schema.Decode(payload, &a); err != nil {
		g.s.cfg.Log.Warn("word of the fleet cannot be read", "err", err)
		return nil
	}
	if a.Conn != g.number {
		return nil // of an older connection
	}
	a.Mode = g.mode
	g.s.heard(&a)
	g.pace.SetRate(a.Rate, time.Now())
	g.asks.Note(a.Attest)
	return away(&a)
}

// away is the error of a connection that the fleet asks to end.
func away(a *schema.HelloAck) error {
	if a.RetryAfterMs > 0 {
		return fmt.Errorf("the fleet asks to come back in %v", pace.Millis(a.RetryAfterMs, maxRetryAfter))
	}
	return nil
}

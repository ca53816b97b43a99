// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"
	"time"

	"fulmar/schema"
)

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
		case f := <-g.flights:
			late.Reset(g.s.cfg.AckTimeout)
			if err := g.settle(ctx, f, late.C); err != nil {
				return err
			}
		}
	}
}

// settle waits for one flight's acknowledgement and frees its records.
func (g *gen) settle(ctx context.Context, f *flight, late <-chan time.Time) error {
	puback, word := f.token.Done(), f.fleet // word is nil unless the fleet's own is needed
	for puback != nil || word != nil {
		select {
		case <-puback:
			if err := f.token.Error(); err != nil {
				return fmt.Errorf("publish: %w", g.reason(ctx, err))
			}
			puback = nil
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
			return fmt.Errorf("no PUBACK within %v: the connection is half open", g.s.cfg.AckTimeout)
		}
	}
	if g.abandoned() {
		return nil // the generation is over: its acknowledgements count no more
	}
	for _, r := range f.runs {
		if err := g.s.out.Ack(f.class, f.epoch, r[0], r[1]); err != nil {
			return fmt.Errorf("free records %d to %d of class %s: %w", r[0], r[1], f.class, err)
		}
	}
	if f.pic != nil && len(f.runs) > 0 {
		if err := g.s.blobs.RemoveBlob(f.pic.name); err != nil {
			g.s.cfg.Log.Warn("picture that arrived is not removed", "blob", f.pic.name, "err", err)
		}
	}
	n := g.leave(f)
	g.s.count(func(st *Status) { st.InFlight = n; st.Acked += f.records() })
	return nil
}

// take deals with a message that came in.
func (g *gen) take(m inbound) {
	if g.mode != schema.AckFleet || m.topic != g.topic(schema.ChanAck) {
		return
	}
	var a schema.Ack
	if err := schema.Decode(m.payload, &a); err != nil {
		g.s.cfg.Log.Warn("acknowledgement cannot be read", "err", err)
		return
	}
	g.covered(&a)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
)

// acknowledge waits for the oldest message in flight, again and again, and frees
// its records. It ends the generation when there is no progress for too long: a
// half-open connection looks alive from this side for ever.
func (g *gen) acknowledge(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	// On a stop what is in flight still may come home; the publisher's drain has the bound.
	stop := time.NewTimer(time.Hour)
	defer stop.Stop()
	done := ctx.Done()
	for {
		select {
		case <-done:
			if len(g.flights) == 0 {
				return nil
			}
			done = nil
			stop.Reset(drainTimeout)
		case <-stop.C:
			return nil
		case <-g.lost:
			return nil
		case f := <-g.flights:
			timer.Reset(g.s.cfg.AckTimeout)
			if err := g.settle(f, timer.C, stop.C); err != nil {
				return err
			}
			if done == nil && len(g.flights) == 0 {
				return nil
			}
		}
	}
}

// settle waits for one flight's acknowledgement and frees its records.
func (g *gen) settle(f *flight, late, stop <-chan time.Time) error {
	select {
	case <-f.token.Done():
		if err := f.token.Error(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	case <-g.lost:
		return nil
	case <-stop:
		return nil
	case <-late:
		return fmt.Errorf("no PUBACK within %v: the connection is half open", g.s.cfg.AckTimeout)
	}
	if g.mode == schema.AckFleet && len(f.seqs) > 0 {
		select {
		case <-f.fleet:
		case <-g.lost:
			return nil
		case <-stop:
			return nil
		case <-late:
			return fmt.Errorf("no acknowledgement of the fleet within %v: the broker is there, the fleet is not", g.s.cfg.AckTimeout)
		}
	}
	select {
	case <-g.lost:
		return nil // the generation is over: its acknowledgements count no more
	default:
	}
	if err := g.free(f); err != nil {
		return err
	}
	g.mu.Lock()
	g.bytes -= f.bytes
	g.open = slices.DeleteFunc(g.open, func(o *flight) bool { return o == f })
	g.mu.Unlock()
	g.s.count(func(st *Status) { st.InFlight--; st.Acked += uint64(len(f.seqs)) })
	select {
	case g.freed <- struct{}{}:
	default:
	}
	return nil
}

// free acknowledges a flight's records in runs of consecutive numbers: what lies
// between was settled otherwise.
func (g *gen) free(f *flight) error {
	for i := 0; i < len(f.seqs); {
		j := i + 1
		for j < len(f.seqs) && f.seqs[j] == f.seqs[j-1]+1 {
			j++
		}
		if err := g.s.out.Ack(f.class, f.epoch, f.seqs[i], f.seqs[j-1]); err != nil {
			return fmt.Errorf("free records %d to %d of class %s: %w", f.seqs[i], f.seqs[j-1], f.class, err)
		}
		i = j
	}
	if f.blob != "" {
		if err := g.s.blobs.RemoveBlob(f.blob); err != nil {
			g.s.cfg.Log.Warn("picture that arrived is not removed", "blob", f.blob, "err", err)
		}
	}
	return nil
}

// take deals with a message that came in.
func (g *gen) take(m inbound) error {
	if m.topic != g.topic(schema.ChanAck) || g.mode != schema.AckFleet {
		return nil
	}
	var a schema.Ack
	if err := schema.Decode(m.payload, &a); err != nil {
		g.s.cfg.Log.Warn("acknowledgement cannot be read", "err", err)
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.open {
		if f.class != a.Class || f.epoch != a.Epoch || f.left == 0 {
			continue
		}
		for i, seq := range f.seqs {
			if !f.acked[i] && covered(a.Ranges, seq) {
				f.acked[i] = true
				f.left--
			}
		}
		if f.left == 0 {
			close(f.fleet)
		}
	}
	return nil
}

// covered tells whether a number lies in one of the rising ranges.
func covered(ranges [][2]uint64, seq uint64) bool {
	_, found := slices.BinarySearchFunc(ranges, seq, func(r [2]uint64, s uint64) int {
		switch {
		case r[1] < s:
			return -1
		case r[0] > s:
			return 1
		}
		return 0
	})
	return found
}

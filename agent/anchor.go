// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/schema"
)

const (
	// anchorEvery is how often the clocks are compared. Records between a step and
	// its anchor are placed by their monotonic time, so nothing hangs on haste.
	anchorEvery = 5 * time.Second
	// anchorStep is how far the wall clock moves before an anchor says so, ms: NTP
	// steps from 128 ms on, the fleet shows seconds.
	anchorStep = 1000
	// anchorBurst and anchorRefill bound the anchors of a clock that somebody turns
	// back and forth: a few at once, then six an hour.
	anchorBurst  = 8
	anchorRefill = 10 * time.Minute
)

// anchors decides when a board says how its two clocks stand to each other. The
// zero value has said nothing yet.
type anchors struct {
	said   bool
	offset int64 // of the newest anchor, ms
	synced bool
	tokens int
	refill int64 // monotonic time of the last token, ns
}

// check gives the anchor that is due now, nil if none is. What is held back by
// the bound is not lost: the next one says where the clock stands by then.
func (a *anchors) check(now schema.Time, synced bool) *schema.Anchor {
	offset := now.WallOffset()
	if !a.said {
		*a = anchors{said: true, offset: offset, synced: synced, tokens: anchorBurst, refill: now.Mono}
		return &schema.Anchor{Old: offset, New: offset, Synced: synced, Start: true}
	}
	if more := (now.Mono - a.refill) / int64(anchorRefill); more > 0 {
		a.tokens = int(min(int64(a.tokens)+more, anchorBurst))
		a.refill += more * int64(anchorRefill)
	}
	moved := offset - a.offset
	if moved >= -anchorStep && moved <= anchorStep && (a.synced || !synced) || a.tokens == 0 {
		return nil
	}
	a.tokens--
	out := &schema.Anchor{Old: a.offset, New: offset, Synced: synced}
	a.offset, a.synced = offset, synced
	return out
}

// keepAnchors writes an anchor at the start, when the wall clock was set, and when
// it became synchronised.
func (a *Agent) keepAnchors(ctx context.Context) error {
	t := time.NewTicker(anchorEvery)
	defer t.Stop()
	var said anchors
	for {
		now := a.clock.Now()
		if x := said.check(now, clockSynced()); x != nil {
			if !x.Start {
				a.log.Info("wall clock was set", "from_offset_ms", x.Old, "to_offset_ms", x.New, "synced", x.Synced)
			}
			a.append(schema.ClassEvent, &schema.Record{Kind: schema.KindAnchor, Time: now, Anchor: x})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// clockSynced asks the kernel whether something (NTP, GPS) keeps its clock.
func clockSynced() bool {
	var x unix.Timex // modes 0: only read
	state, err := unix.Adjtimex(&x)
	return err == nil && state != unix.TIME_ERROR && x.Status&unix.STA_UNSYNC == 0
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package anchor notices when a board's wall clock was set, and says how it stands to
// the monotonic one, so that the fleet can place what was recorded in between.
package anchor

import (
	"context"
	"log/slog"
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

// Keep gives an anchor to write at the start, when the wall clock was set, and when it
// became synchronised, until the context ends.
func Keep(ctx context.Context, clock schema.Clock, log *slog.Logger, write func(schema.Time, *schema.Anchor)) error {
	t := time.NewTicker(anchorEvery)
	defer t.Stop()
	var said anchors
	for {
		now := clock.Now()
		if x := said.check(now, Synced()); x != nil {
			if !x.Start {
				log.Info("wall clock was set", "from_offset_ms", x.Old, "to_offset_ms", x.New, "synced", x.Synced)
			}
			write(now, x)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Synced asks the kernel whether something (NTP, GPS) keeps its clock.
func Synced() bool {
	var x unix.Timex // modes 0: only read
	state, err := unix.Adjtimex(&x)
	return err == nil && state != unix.TIME_ERROR && x.Status&unix.STA_UNSYNC == 0
}

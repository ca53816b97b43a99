// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"slices"
	"time"

	"fulmar/fleet/web"
)

const (
	minuteMs = int64(60_000)
	hourMs   = 60 * minuteMs
	// backStep is how many older events one look counts; they take 0.3 s.
	backStep = 100_000
	slots    = 61 // the minutes of an hour, and the one that has begun
)

// count is what a camera saw in a minute.
type count struct {
	minute                           int64 // since 1970
	events, boxes, right, wrong, gap uint64
	known                            bool
}

// hour is what a camera saw in the last hour, minute by minute: reading each event of the
// last hour anew for each look would be millions of rows in a large fleet.
type hour struct{ slots [slots]count }

// add counts an event of a moment; one that lies in the future counts now.
func (h *hour) add(at, now int64, c count) {
	m := min(at, now) / minuteMs
	s := &h.slots[((m%slots)+slots)%slots]
	if s.minute > m {
		return // that minute is more than an hour ago
	}
	if s.minute < m {
		*s = count{minute: m}
	}
	s.events, s.boxes, s.right, s.wrong, s.gap = s.events+1, s.boxes+c.boxes, s.right+c.right, s.wrong+c.wrong, s.gap+c.gap
	s.known = s.known || c.known
}

// sum adds up the last hour; the minute an hour ago counts whole.
func (h *hour) sum(now int64, c *web.Camera) {
	last := now / minuteMs
	for i := range h.slots {
		if s := &h.slots[i]; s.minute >= last-60 && s.minute <= last {
			c.Events, c.Boxes, c.True, c.False, c.Missed = c.Events+s.events, c.Boxes+s.boxes, c.True+s.right, c.False+s.wrong, c.Missed+s.gap
			c.Known = c.Known || s.known
		}
	}
}

// lastHour gives the cameras with their sums.
func (r *row) lastHour(now time.Time) []web.Camera {
	if len(r.Cameras) == 0 {
		return r.Cameras
	}
	out := slices.Clone(r.Cameras)
	for i := range out {
		if h := r.hours[out[i].Name]; h != nil {
			h.sum(now.UnixMilli(), &out[i])
		}
	}
	return out
}

// countEvents counts the events that came since the last look, and some of those before the
// first one: in a large fleet the last hour is millions of rows, which take a few looks.
func (v *view) countEvents(ctx context.Context) error {
	t := v.t
	var last int64
	if err := v.tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM event`).Scan(&last); err != nil {
		return err
	}
	if t.event < 0 {
		t.event, t.back = last, last
	}
	// Not by the index of times: rows are in the order of arrival, and few are new.
	const between = `id > ? AND id <= ? AND +at > ?`
	since := v.now.UnixMilli() - hourMs
	if err := v.each(ctx, selectEvents+between, []any{t.event, last, since}, v.countOne); err != nil {
		return err
	}
	t.event = last
	if t.back == 0 {
		return nil
	}
	from := max(t.back-backStep, 0)
	n := 0
	err := v.each(ctx, selectEvents+between, []any{from, t.back, since}, func(scan func(...any) error) error {
		n++
		return v.countOne(scan)
	})
	if t.back = from; n == 0 { // all of them are older
		t.back = 0
	}
	return err
}

const selectEvents = `SELECT id, board, source, at, boxes, known, n_true, n_false, n_missed FROM event WHERE `

// recount counts the last hour of boards that the look has not known before, between the
// two places where countEvents goes on.
func (v *view) recount(ctx context.Context, s scope) error {
	return v.each(ctx, selectEvents+s.where+` AND at > ? AND id > ? AND id <= ?`,
		append(s.args[:len(s.args):len(s.args)], v.now.UnixMilli()-hourMs, v.t.back, v.t.event), v.countOne)
}

func (v *view) countOne(scan func(...any) error) error {
	var id, board, at int64
	var camera string
	var c count
	if err := scan(&id, &board, &camera, &at, &c.boxes, &c.known, &c.right, &c.wrong, &c.gap); err != nil {
		return err
	}
	r := v.t.ids[board]
	if r == nil {
		return nil // of another tenant, or of a board that is told of next time
	}
	h := r.hours[camera]
	if h == nil {
		h = &hour{}
		r.hours[camera] = h
	}
	h.add(at, v.now.UnixMilli(), c)
	return nil
}

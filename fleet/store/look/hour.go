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

// countEvents counts the events that came since the last look, or those of the last hour
// where there was none.
func (v *view) countEvents(ctx context.Context) error {
	since := v.now.UnixMilli() - hourMs
	where := `id > ?1 AND +at > ?2` // not by the index of times: few rows are new
	if v.t.event < 0 {
		where = `at > ?2 AND ?1 < 0`
	}
	if err := v.each(ctx, selectEvents+where, []any{v.t.event, since}, v.countOne); err != nil {
		return err
	}
	var last int64
	if err := v.tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM event`).Scan(&last); err != nil {
		return err
	}
	v.t.event = max(last, 0)
	return nil
}

const selectEvents = `SELECT id, board, source, at, boxes, known, n_true, n_false, n_missed FROM event WHERE `

// recount counts the last hour of boards that the look has not known before, up to where
// countEvents goes on.
func (v *view) recount(ctx context.Context, s scope) error {
	return v.each(ctx, selectEvents+s.where+` AND at > ? AND id <= ?`, append(s.args[:len(s.args):len(s.args)], v.now.UnixMilli()-hourMs, v.t.event), v.countOne)
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

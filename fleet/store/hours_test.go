// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"slices"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// TestHours counts detections by the hour, and narrows both the counts and the
// detections themselves by boards and time.
func TestHours(t *testing.T) {
	t.Parallel()
	r := open(t, store.Enrolled{Name: "b1"})
	now := time.Now().UTC()
	see := func(age time.Duration, camera string) {
		r.put(t, schema.ClassEvent, 0, age, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: camera, Model: "m@1", Width: 4, Height: 4}})
	}
	for range 3 {
		see(0, "cam0")
	}
	see(2*time.Hour, "cam0")
	see(2*time.Hour, "cam1")
	see(30*time.Hour, "cam0")
	got := func(q web.DetectionQuery) map[time.Time]uint64 {
		t.Helper()
		q.Tenant = "default"
		list, more, err := r.Hours(ctx, q)
		if err != nil || more || !slices.IsSortedFunc(list, func(a, b web.Hour) int { return a.At.Compare(b.At) }) {
			t.Fatalf("%v %v %v", list, more, err)
		}
		out := map[time.Time]uint64{}
		for _, h := range list {
			out[h.At] = h.Count
		}
		return out
	}
	sum := func(m map[time.Time]uint64) (n uint64) {
		for _, c := range m {
			n += c
		}
		return n
	}
	all := got(web.DetectionQuery{})
	for h := range all {
		if !h.Equal(h.Truncate(time.Hour)) {
			t.Errorf("%v is no hour", h)
		}
	}
	if sum(all) != 6 || len(all) < 3 { // at the turn of an hour those of now are of two
		t.Errorf("6 detections are %v", all)
	}
	for _, c := range []struct {
		q    web.DetectionQuery
		want uint64
	}{
		{web.DetectionQuery{From: now.Add(-3 * time.Hour)}, 5},
		{web.DetectionQuery{From: now.Add(-3 * time.Hour), To: now.Add(-time.Hour)}, 2},
		{web.DetectionQuery{Camera: "cam1"}, 1},
		{web.DetectionQuery{Boards: []string{"b1", "b2"}}, 6},
		{web.DetectionQuery{Boards: []string{"b2"}}, 0},
		{web.DetectionQuery{Boards: []string{}}, 0},
		{web.DetectionQuery{PicturesOnly: true}, 0},
		{web.DetectionQuery{Board: "b1", From: now.Add(-24 * time.Hour)}, 5},
	} {
		if n := sum(got(c.q)); n != c.want {
			t.Errorf("%+v counts %d, want %d", c.q, n, c.want)
		}
		c.q.Tenant = "default"
		if ds, err := r.Detections(ctx, c.q); err != nil || uint64(len(ds)) != c.want {
			t.Errorf("%+v gives %d, %v, want %d", c.q, len(ds), err, c.want)
		}
		c.q.Tenant = "other"
		if ds, _, err := r.Hours(ctx, c.q); err != nil || len(ds) != 0 {
			t.Errorf("another tenant counts %v, %v", ds, err)
		}
	}
}

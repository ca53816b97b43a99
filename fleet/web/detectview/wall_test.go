// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detectview

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema"
)

// FuzzFilters: no address breaks the filters, what is taken is within its bounds, and
// what is kept in links is no longer than what came.
func FuzzFilters(f *testing.F) {
	for _, s := range []string{"site=hall-4&score=90&from=2026-11-26T14:00&q=state%3Dfailing", "score=-1", "from=0000-00-00", "q=%22", "class=" + strings.Repeat("x", 300), "board=%ff%fe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		fl, wrong := read(q, time.UTC)
		if wrong == "" && (fl.least < 0 || fl.least > 1 || len(fl.Class) > maxWord) {
			t.Errorf("%q is taken: %+v", raw, fl)
		}
		for k := range fl.keep {
			if len(fl.keep.Get(k)) > len(q.Get(k)) {
				t.Errorf("%s grew", k)
			}
		}
		_ = fl.lets(&web.Detection{Event: schema.Event{Boxes: []schema.Box{{Score: .5}}}})
	})
}

// long is a source of n detections, of which every nth is of class 1.
type long struct {
	n, every, read int
}

func (l *long) Overview(context.Context, string) (*web.Overview, error) {
	return &web.Overview{At: time.Unix(1e9, 0)}, nil
}

func (l *long) Series(context.Context, web.SeriesQuery) ([]web.Series, error) { return nil, nil }

func (l *long) Picture(context.Context, string, string, string) (io.ReadSeekCloser, error) {
	return nil, web.ErrNotFound
}

func (l *long) Detections(_ context.Context, q web.DetectionQuery) (out []web.Detection, _ error) {
	i, step := l.n-1, -1
	if q.Before != "" {
		n, _ := strconv.Atoi(q.Before)
		i = n - 1
	}
	if q.After != "" {
		n, _ := strconv.Atoi(q.After)
		i, step = n+1, 1
	}
	for ; i >= 0 && i < l.n && len(out) < q.Limit; i += step {
		class := uint16(0)
		if i%l.every == 0 {
			class = 1
		}
		l.read++
		out = append(out, web.Detection{ID: strconv.Itoa(i), Event: schema.Event{Labels: map[uint16]string{1: "fork"}, Boxes: []schema.Box{{Class: class, Score: .8}}}})
	}
	return out, nil
}

// TestFind goes through many detections for few, page by page: none twice, none left
// out, and no page reads more than its bound.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, every int }{{10, 1}, {24, 1}, {25, 1}, {500, 3}, {9000, 700}, {9000, 20000}, {0, 1}} {
		src := &long{n: c.n, every: c.every}
		h := &views{Config{Source: src}}
		fl := filter{Class: "Fork"}
		want, got, pages := (c.n+c.every-1)/c.every, 0, 0
		last := c.n
		for q := (web.DetectionQuery{}); ; pages++ {
			src.read = 0
			found, next, looked, err := h.find(t.Context(), &fl, q, wallShots)
			if err != nil || src.read > maxScan+scanPage || looked > maxScan+scanPage || pages > 1000 {
				t.Fatalf("%v: %v, %d read", c, err, src.read)
			}
			for _, d := range found {
				n, _ := strconv.Atoi(d.ID)
				if n >= last || n%c.every != 0 {
					t.Errorf("%v: %d after %d", c, n, last)
				}
				last = n
			}
			if got += len(found); next == "" {
				break
			}
			q.Before = next
		}
		if got != want {
			t.Errorf("%v: %d found, %d are there", c, got, want)
		}
	}
	// the other way round: the nearest newer one
	h := &views{Config{Source: &long{n: 9000, every: 700}}}
	found, _, _, err := h.find(t.Context(), &filter{Class: "fork"}, web.DetectionQuery{After: "701"}, 1)
	if err != nil || fmt.Sprint(found[0].ID) != "1400" {
		t.Errorf("newer than 701: %v %v", found, err)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/views"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// large is a source of many boards, of which every tenth is sick.
type large struct {
	web.Source
	now *web.Overview
}

func (l large) Overview(context.Context, string) (*web.Overview, error) { return l.now, nil }

func (large) Detections(context.Context, web.DetectionQuery) ([]web.Detection, error) {
	return nil, nil
}

func (large) Series(context.Context, web.SeriesQuery) ([]web.Series, error) { return nil, nil }

func manyBoards(boards int) *web.Overview {
	now := time.Now()
	o := &web.Overview{At: now}
	for i := range boards {
		b := web.Board{
			Name: fmt.Sprintf("dock-%05d", i), State: web.StateHealthy, Since: now.Add(-time.Hour), LastSeen: now, Online: true, Release: "1.8.2",
			Facts: map[string]string{"model": "NVIDIA Jetson Orin NX 16GB", "l4t": "36.4.4"},
		}
		if i%10 == 0 {
			b.State, b.Cause = web.StateDegraded, fmt.Sprintf("throttle: the chip is at %d °C and slows down", 90+i%7)
		}
		for s := range 15 {
			b.Latest = append(b.Latest, web.Reading{Series: fmt.Sprintf("thermal.zone%02d_celsius", s), Value: float64(40 + s), At: now})
		}
		for c := range schema.Class(schema.NumClasses) {
			b.Ledger = append(b.Ledger, web.Ledger{Class: c.String(), Epochs: 1, Made: 1000, Arrived: 1000})
		}
		b.Cameras = []web.Camera{{Name: "belt", Model: "parcels@4", Last: now, Events: 200, Boxes: 600}}
		o.Boards = append(o.Boards, b)
	}
	return o
}

// inside lets everybody in.
type inside struct{ web.Auth }

func (inside) Session(*http.Request) (web.Session, bool) {
	return web.Session{Tenant: "default", User: "admin", Role: rest.Admin}, true
}

// BenchmarkPage renders the fleet's page and a board's, of 10,000 boards.
func BenchmarkPage(b *testing.B) {
	h, err := web.New(web.Config{Release: "test", Zone: time.UTC, Pages: views.Pages(views.Config{Source: large{now: manyBoards(10_000)}})}, inside{})
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"/", "/boards/dock-05000"} {
		b.Run(path, func(b *testing.B) {
			var took []float64
			size := 0
			for b.Loop() {
				begin := time.Now()
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
				took, size = append(took, float64(time.Since(begin).Microseconds())/1000), w.Body.Len()
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)*95/100], "p95-ms")
			b.ReportMetric(float64(size)/1e3, "KB/page")
		})
	}
}

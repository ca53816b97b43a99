// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
)

// dashboard is what the test reads of a Grafana dashboard.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		Title   string
		Targets []struct {
			Expr       string
			Datasource struct{ UID string }
		}
		GridPos struct{ X, Y, W, H int }
	}
}

// filled is a fleet of two boards that measure, see and lose something for an hour, one
// of each release; the second one's backlog was thinned.
func filled(t *testing.T) (*DB, time.Time) {
	t.Helper()
	l, at := newLedger(t), start().Add(-time.Hour)
	for id, name := range map[int64]string{1: "dock-1", 2: "dock-2"} {
		l.board(id, "a", name)
	}
	s := schema.Samples{
		Series: []string{"thermal.cpu_celsius", "power.total_watts", "cpu.load_percent", "gpu.load_percent", "memory.used_bytes", "load.1m"},
		Value:  []float64{50, 7, 30, 40, 1e9, 1},
	}
	sum := s
	sum.Over = &schema.Over{SpanMs: 60_000, Min: s.Value, Max: s.Value, Count: []uint32{9, 9, 9, 9, 9, 9}}
	e := schema.Event{Source: "cam0", Model: "parcels@1", LatencyUs: 20_000, Boxes: []schema.Box{{Class: 1, Score: 1}}, Labels: map[uint16]string{1: "parcel"}}
	n := uint64(0)
	d := open(t, t.TempDir(), l, Config{}, func(context.Context, string) ([]BoardState, error) {
		n++
		var out []BoardState
		for i, name := range []string{"dock-1", "dock-2"} {
			out = append(out, BoardState{
				Name: name, Site: "north", Release: []string{"1.7", "1.8"}[i], State: "healthy", Up: true, Heard: at,
				Classes: []ClassState{{Class: "event", Made: 3 * n, Arrived: 2 * n, Lost: n, Reasons: map[string]uint64{"quota": n}}},
			})
		}
		return out, nil
	})
	for i := range 60 {
		x := at.Add(time.Duration(i) * time.Minute)
		for b := int64(1); b <= 2; b++ {
			l.samples(b, x.Add(time.Second), false, s)
			l.samples(b, x, false, sum)
			l.event(b, i, x.Add(40*time.Second), e)
		}
		if err := d.watchOnce(t.Context(), x.Add(50*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	drain(t, d)
	return d, at.Add(59*time.Minute + 55*time.Second)
}

// Every panel of every dashboard shows something on a fleet that has something to show.
func TestDashboards(t *testing.T) {
	t.Parallel()
	d, now := filled(t)
	files, err := filepath.Glob("../../dashboards/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var x dashboard
		if err := json.Unmarshal(b, &x); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if x.UID+".json" != filepath.Base(file) || len(x.Panels) < 8 {
			t.Errorf("%s: uid %q, %d panels", file, x.UID, len(x.Panels))
		}
		vars := []string{"$board", "dock-1", "$site", ".*", "$release", ".*"}
		for _, v := range x.Templating.List {
			metric, label, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ")"), ", ")
			if v.Type == "query" && (!ok || one(t, d, "a", `count(count by (`+label+`) (`+metric+`{`+label+`!=""}))`, now) < 1) {
				t.Errorf("%s: variable %s has no values", file, v.Name)
			}
		}
		for i, p := range x.Panels {
			if len(p.Targets) == 0 || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %q has no place or asks nothing", file, p.Title)
			}
			for _, q := range p.Targets {
				v, err := d.Instant(t.Context(), "a", strings.NewReplacer(vars...).Replace(q.Expr), now)
				if err != nil || len(v) == 0 || q.Datasource.UID != "${source}" {
					t.Errorf("%s: panel %d %q: %s gives %v, %v", file, i, p.Title, q.Expr, v, err)
				}
			}
		}
	}
}

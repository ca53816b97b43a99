// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"fulmar/fleet/query"
	"fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

func fleet(n int) *web.Overview {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	states := []web.State{web.StateHealthy, web.StateHealthy, web.StateHealthy, web.StateFailing, web.StateNeverHeard}
	ov := &web.Overview{At: at}
	for i := range n {
		b := web.Board{
			Name: fmt.Sprintf("dock-%06d", i), State: states[i%len(states)], Cause: "camera/cam0: no picture", Since: at.Add(-time.Duration(i%60) * time.Minute),
			LastSeen: at.Add(-time.Duration(i%300) * time.Minute), Online: i%7 != 0, Release: fmt.Sprintf("1.%d.%d", i%12, i%5), KeyMode: "tpm",
			Meta:    rest.Meta{Site: fmt.Sprintf("hall-%d", i%20), Labels: map[string]string{"line": fmt.Sprint(i % 9)}, PowerBudget: 15},
			Facts:   map[string]string{"jetson": "Orin NX"},
			Trust:   &web.Trust{Level: "bound", Until: time.Now().Add(time.Hour), Enrolled: at.Add(-48 * time.Hour)},
			Cameras: []web.Camera{{Name: "cam0", Model: "forklift-v7", Engine: "tensorrt"}},
			Reports: []web.Report{{Subject: "camera/cam0", State: "failed", Severity: schema.SeverityAlarm}, {Subject: "worker", State: "restarting", Severity: schema.SeverityWarn}},
			Ledger:  []web.Ledger{{Waiting: 5, Lost: 10, Reasons: map[string]uint64{"thinned": 4, "crash": 3}}},
		}
		for j, reason := range []string{"thinned", "crash", "quota", "quota"} {
			b.Gaps = append(b.Gaps, web.Gap{At: at.Add(-time.Duration(j) * time.Hour), Count: 3, Reason: reason})
		}
		for j := range 30 {
			b.Latest = append(b.Latest, web.Reading{Series: fmt.Sprintf("sensor.%02d", j), Value: float64(j)})
		}
		b.Latest = append(
			b.Latest,
			web.Reading{Series: "mount.root.free_bytes", Value: 1e9}, web.Reading{Series: "mount.root.used_percent", Value: 91},
			web.Reading{Series: "thermal.cpu_celsius", Value: 50 + float64(i%40)}, web.Reading{Series: "thermal.tj_celsius", Value: 50 + float64(i%50)},
			web.Reading{Series: "thermal.cv0_celsius", Value: 300, Quality: schema.QualityOffline}, web.Reading{Series: "thermal.trips_count", Value: 999},
		)
		slices.SortFunc(b.Latest, func(a, b web.Reading) int { return cmpString(a.Series, b.Series) })
		ov.Boards = append(ov.Boards, b)
	}
	return ov
}

func cmpString(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func TestFields(t *testing.T) {
	t.Parallel()
	ov := fleet(4)
	last := &ov.Boards[3]
	last.State = web.StateNeverHeard
	for q, want := range map[string]bool{
		"dock-000003": true, "site = hall-3": true, "label.line = 3": true, "state = never-heard": true, "cause ~ picture": true,
		"since > 2m ago": true, "since > 4m ago": false, "online = yes": true, "seen < 1h ago": true, "release >= 1.3": true, "key = tpm": true,
		"proof = bound": true, "revoked = no": true, "certificate-left < 2h": true, "certificate-left < 30m": false, "enrolled > 1d ago": true,
		"camera = cam0": true, "model ~ forklift": true, "engine = tensorrt": true, "alarm = camera/cam0": true, "alarm = worker": false, "warning = worker": true,
		"report.worker = restarting": true, `report.spool = ""`: true, "waiting = 5": true, "lost = 3": true, `fact.jetson = "Orin NX"`: true,
		"temp.tj = 53": true, "temp.* = 53": true, "temp.cv0 > 0": false, "thermal.tj_celsius = 53": true, "thermal.tj = 53": true, "series.thermal.tj = 53": true,
		"mount.root.used > 90": true, "mount.root.used_percent > 90": true, "mount.root = 91": false, "mount.root.free > 5e8": true, "sensor.* = 29": true, "sensor.29 = 29": true,
		"power-budget-watt = 15": true, "description ~ x": false, `description = ""`: true, "sensor.3 = 3": false, "zzz.* > 0": false, "mount.*.used > 90": true, "mount.*.used_percent > 90": true, "mount.*.free > 5e8": true, "temp.c*u = 53": true, "temp.*v0 > 0": false,
		"lost-at < 3h ago": true, "lost-at > 1h ago": true, "lost-at < 30m ago": false,
	} {
		parsed, err := query.Parse(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if got := parsed.Match(Of(last), ov.At); got != want {
			t.Errorf("%s: %v", q, got)
		}
	}
	last.Trust = nil
	if q, _ := query.Parse("revoked = no or proof = bound or certificate-left < 2h"); q.Match(Of(last), ov.At) {
		t.Error("a board of which nothing is known is known")
	}
	if got := Known(ov, "site"); !slices.Equal(got, []string{"hall-0", "hall-1", "hall-2", "hall-3"}) {
		t.Errorf("%v", got)
	}
	if got := Known(ov, "camera"); !slices.Equal(got, []string{"cam0"}) {
		t.Errorf("%v", got)
	}
}

// TestFieldsAreKnown: every documented field is there on a board that has all, so none
// is only written about.
func TestFieldsAreKnown(t *testing.T) {
	t.Parallel()
	ov := fleet(1)
	b := &ov.Boards[0]
	b.Meta.Description = "spare"
	for _, f := range query.Fields() {
		name := f.Name
		if name[len(name)-1] == '.' {
			name += map[string]string{"label.": "line", "report.": "worker", "fact.": "jetson", "temp.": "tj", "series.": "sensor.01"}[name]
		}
		v, ok := Of(b).Field(name)
		if !ok {
			t.Errorf("%s is not there", name)
		}
		switch has := map[query.Type]bool{
			query.Text: v.Text != "", query.Word: v.Text != "", query.Version: v.Text != "", query.List: len(v.List) > 0,
			query.Number: v.Number != 0, query.Duration: v.Number != 0, query.Time: !v.Time.IsZero(),
		}; {
		case !has[f.Type]:
			t.Errorf("%s is no %s: %+v", name, f.Type, v)
		case f.Type == query.Word && !slices.Contains(f.Words, v.Text):
			t.Errorf("%s is %s, which is none of its words", name, v.Text)
		}
	}
}

// BenchmarkTarget matches 100,000 boards with the query of the design, whose bound is
// 200 ms; the parse is counted.
func BenchmarkTarget(b *testing.B) {
	ov := fleet(100_000)
	b.ReportAllocs()
	before := cpu()
	defer func() { b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }()
	for b.Loop() {
		q, err := query.Parse("site in (hall-1, hall-2) and not state=unreachable and temp.tj > 85 and release < 1.8 and seen > 2h ago and label.line=4 or temp.* > 99 or model ~ yolo or lost > 9")
		if err != nil {
			b.Fatal(err)
		}
		if n := len(Select(ov, q)); n == len(ov.Boards) {
			b.Fatal(n)
		}
	}
}

// cpu is what this process has computed: what a busy machine does not stretch.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // of oneself it never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

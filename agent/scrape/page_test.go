// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"bytes"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestPage holds the text to the bytes the format wants.
func TestPage(t *testing.T) {
	t.Parallel()
	var p Page
	p.Gauge("fulmar_link_up", "1 while records flow.", 1)
	p.Counter("fulmar_lost_total", "Records lost.\nEach is \\ in the ledger.", 3, "class", "metric", "reason", "crash")
	p.Gauge("fulmar_age_seconds", "Age.", 0.25, "class", "b")
	p.Counter("fulmar_lost_total", "Records lost.\nEach is \\ in the ledger.", 1<<60, "class", "alarm", "reason", "quota")
	p.Gauge("fulmar_age_seconds", "Age.", math.Inf(1), "class", "a")
	p.Gauge("fulmar_age_seconds", "Age.", 7, "class", "a") // twice: the first stays
	p.Counter("fulmar_camera_frames_total", "Frames.", 0, "camera", "a \"b\"\\\nc\xff")
	const want = `# HELP fulmar_age_seconds Age.
# TYPE fulmar_age_seconds gauge
fulmar_age_seconds{class="a"} +Inf
fulmar_age_seconds{class="b"} 0.25
# HELP fulmar_camera_frames_total Frames.
# TYPE fulmar_camera_frames_total counter
fulmar_camera_frames_total{camera="a \"b\"\\\nc` + "\uFFFD" + `"} 0
# HELP fulmar_link_up 1 while records flow.
# TYPE fulmar_link_up gauge
fulmar_link_up 1
# HELP fulmar_lost_total Records lost.\nEach is \\ in the ledger.
# TYPE fulmar_lost_total counter
fulmar_lost_total{class="alarm",reason="quota"} 1.152921504606847e+18
fulmar_lost_total{class="metric",reason="crash"} 3
`
	var b bytes.Buffer
	if err := p.write(&b); err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwants\n%s", err, b.String(), want)
	}
}

// FuzzPage: whatever a camera is called, Prometheus' own parser reads back what was said.
func FuzzPage(f *testing.F) {
	f.Add("gate", "a help", 1.5, uint64(7))
	f.Add("a \"b\"\\\nc\xff", "with \\ and \n and \"", math.NaN(), uint64(math.MaxUint64))
	f.Add("", "", math.Inf(-1), uint64(0))
	f.Fuzz(func(t *testing.T, label, help string, v float64, n uint64) {
		var p Page
		p.Gauge("fulmar_g", help, v, "camera", label, "cause", "x")
		p.Counter("fulmar_n_total", help, n)
		p.Gauge("fulmar_g", help, 1)
		var b bytes.Buffer
		if err := p.write(&b); err != nil {
			t.Fatal(err)
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		got, err := parser.TextToMetricFamilies(&b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"fulmar_g", "fulmar_n_total"}) {
			t.Fatalf("metrics %q", names)
		}
		g := got["fulmar_g"].GetMetric()
		if len(g) != 2 || g[0].GetGauge().GetValue() != 1 || len(g[0].GetLabel()) != 0 {
			t.Fatalf("gauges %v", g)
		}
		if l := g[1].GetLabel(); len(l) != 2 || l[0].GetValue() != strings.ToValidUTF8(label, "\uFFFD") || l[1].GetValue() != "x" {
			t.Errorf("labels %v of %q", l, label)
		}
		if w := g[1].GetGauge().GetValue(); math.Float64bits(w) != math.Float64bits(v) && !(math.IsNaN(w) && math.IsNaN(v)) {
			t.Errorf("%v became %v", v, w)
		}
		if w := got["fulmar_n_total"].GetMetric()[0].GetCounter().GetValue(); w != float64(n) {
			t.Errorf("%d became %v", n, w)
		}
	})
}

// TestScrapesAreBounded: a fifth scrape at once is sent away, and the places come back.
func TestScrapesAreBounded(t *testing.T) {
	t.Parallel()
	in, free := make(chan struct{}), make(chan struct{})
	h := metrics(func(p *Page) {
		in <- struct{}{}
		<-free
		p.Gauge("fulmar_up", "Up.", 1)
	})
	get := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w
	}
	done := make(chan *httptest.ResponseRecorder, maxScrapes)
	for range maxScrapes {
		go func() { done <- get() }()
		<-in
	}
	if w := get(); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", w.Code)
	}
	close(free)
	for range maxScrapes {
		w := <-done
		body, _ := io.ReadAll(w.Body)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != mediaType || !strings.HasSuffix(string(body), "fulmar_up 1\n") {
			t.Errorf("%d %s %s", w.Code, w.Header(), body)
		}
	}
	go func() { <-in }()
	if w := get(); w.Code != http.StatusOK {
		t.Errorf("after the others: %d", w.Code)
	}
}

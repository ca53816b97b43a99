// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package thin

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
)

func encode(t testing.TB, r *schema.Record) []byte {
	t.Helper()
	b, err := schema.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func batch(at time.Duration, names []string, values []float64, q []schema.Quality) *schema.Record {
	return &schema.Record{
		Kind: schema.KindSamples, Time: schema.Time{Boot: 7, Mono: int64(at), Wall: 1_000_000 + at.Milliseconds()},
		Samples: &schema.Samples{Series: names, Value: values, Quality: q},
	}
}

// TestSummary compares with sums made the plain way.
func TestSummary(t *testing.T) {
	t.Parallel()
	var g Gathering
	rng := rand.New(rand.NewPCG(1, 2))
	type key struct {
		minute int
		name   string
	}
	all := map[key][]float64{}
	for s := range 600 {
		v := []float64{rng.Float64() * 100, float64(s)}
		q := []schema.Quality{0, 0}
		if s == 77 {
			v[0] = 1e6 // the spike
		}
		if s%7 == 0 || s >= 120 && s < 180 {
			q[1], v[1] = schema.QualityOffline, 0
		}
		if !g.Add(encode(t, batch(time.Duration(s)*time.Second, []string{"a", "b"}, v, q))) {
			t.Fatal("no room for ten minutes")
		}
		all[key{s / 60, "a"}] = append(all[key{s / 60, "a"}], v[0])
		if q[1] == 0 {
			all[key{s / 60, "b"}] = append(all[key{s / 60, "b"}], v[1])
		}
	}
	recs, err := g.Records()
	if err != nil || len(recs) != 10 {
		t.Fatalf("%d summaries, %v", len(recs), err)
	}
	for i, b := range recs {
		r, err := schema.DecodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if r.Time != (schema.Time{Boot: 7, Mono: int64(i) * int64(time.Minute), Wall: 1_000_000 + int64(i)*60_000}) || r.Samples.Over.SpanMs != 60_000 {
			t.Errorf("minute %d: %+v over %d ms", i, r.Time, r.Samples.Over.SpanMs)
		}
		for j, name := range r.Samples.Series {
			want := all[key{i, name}]
			o := r.Samples.Over
			if int(o.Count[j]) != len(want) {
				t.Fatalf("minute %d %s: %d readings, want %d", i, name, o.Count[j], len(want))
			}
			if len(want) == 0 {
				if r.Samples.Quality[j] != schema.QualityOffline {
					t.Errorf("minute %d %s: quality %s", i, name, r.Samples.Quality[j])
				}
				continue
			}
			lo, hi, sum := math.Inf(1), math.Inf(-1), 0.0
			for _, v := range want {
				lo, hi, sum = min(lo, v), max(hi, v), sum+v
			}
			if o.Min[j] != lo || o.Max[j] != hi || math.Abs(r.Samples.Value[j]-sum/float64(len(want))) > 1e-9*hi {
				t.Errorf("minute %d %s: %v %v %v, want %v %v %v", i, name, o.Min[j], r.Samples.Value[j], o.Max[j], lo, sum/float64(len(want)), hi)
			}
		}
	}
}

// TestOthersAreKept: a summary is not summed again, and what is no samples or no
// record stays as it is.
func TestOthersAreKept(t *testing.T) {
	t.Parallel()
	summary := batch(0, []string{"a"}, []float64{1}, nil)
	summary.Samples.Over = &schema.Over{SpanMs: 60_000, Min: []float64{0}, Max: []float64{2}, Count: []uint32{9}}
	in := [][]byte{encode(t, summary), []byte("no record"), encode(t, &schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: "x", State: "ok"}})}
	var g Gathering
	for _, b := range in {
		if !g.Add(b) {
			t.Fatal("not taken")
		}
	}
	out, err := g.Records()
	if err != nil || len(out) != len(in) {
		t.Fatalf("%d records, %v", len(out), err)
	}
	for i := range in {
		if !bytes.Equal(out[i], in[i]) {
			t.Errorf("record %d changed", i)
		}
	}
}

// TestBounds: many series with the longest names fit their records, sums that
// overflow stay finite, and minutes are bounded.
func TestBounds(t *testing.T) {
	t.Parallel()
	var g Gathering
	names, values := []string{}, []float64{}
	for i := range 200 {
		names = append(names, strings.Repeat("n", schema.MaxName-4)+fmt.Sprint(1000+i))
		values = append(values, math.MaxFloat64)
	}
	for range 3 {
		g.Add(encode(t, batch(time.Second, names, values, nil)))
	}
	recs, err := g.Records()
	if err != nil || len(recs) != 2 {
		t.Fatalf("%d records of 200 series, %v", len(recs), err)
	}
	g = Gathering{}
	n := 0
	for n < 1000 && g.Add(encode(t, batch(time.Duration(n)*time.Minute, []string{"a"}, []float64{1}, nil))) {
		n++
	}
	if n != MaxMinutes {
		t.Errorf("%d minutes are gathered, want %d", n, MaxMinutes)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"fulmar/fleet/telemetry/points"
)

// Prometheus' own decoder reads what is written by hand.
func TestEncode(t *testing.T) {
	t.Parallel()
	a := &points.Series{Labels: labels.FromStrings("__name__", "fulmar_load", "board", "dock-1", "tenant", "a")}
	b := &points.Series{Labels: labels.FromStrings("__name__", "fulmar_load", "board", "dock-2", "tenant", "a")}
	var w prompb.WriteRequest
	if err := w.Unmarshal(encode([]points.Point{{Series: a, T: 20, V: 2}, {Series: b, T: -5, V: -0.5}, {Series: a, T: 10, V: 1}})); err != nil {
		t.Fatal(err)
	}
	if len(w.Timeseries) != 2 || len(w.Timeseries[0].Labels) != 3 || w.Timeseries[0].Labels[1].Name != "board" || w.Timeseries[0].Labels[1].Value != "dock-1" {
		t.Fatalf("%v", w.Timeseries)
	}
	if s := w.Timeseries[0].Samples; len(s) != 2 || s[0].Timestamp != 10 || s[0].Value != 1 || s[1].Timestamp != 20 || s[1].Value != 2 {
		t.Errorf("%v", s)
	}
	if s := w.Timeseries[1].Samples; len(s) != 1 || s[0].Timestamp != -5 || s[0].Value != -0.5 {
		t.Errorf("%v", s)
	}
}

// What can be sent again is; what is refused for good is counted and left out.
func TestAnswers(t *testing.T) {
	t.Parallel()
	answers := []int{500, 429, 401, 307, 204, 400}
	var bodies [][]byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer sesame" || r.Header.Get("X-Scope-OrgID") != "7" || r.Header.Get("Content-Encoding") != "snappy" {
			t.Errorf("%v %v", r.Header, err)
		}
		bodies = append(bodies, b)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer s.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Name: "x", URL: s.URL, TokenFile: token, OrgID: "7", Shards: 1}, filepath.Join(t.TempDir(), "x"), Sources{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p := []points.Point{{Series: &points.Series{Labels: labels.FromStrings("__name__", "up")}, T: 1, V: 1}}
	for range 2 {
		if err := w.Append(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if w.n.sent.Load() != 1 || w.n.retries.Load() != 4 || w.n.refused.Load() != 1 || len(answers) != 0 {
		t.Errorf("sent %d, retries %d, refused %d, unasked %v", w.n.sent.Load(), w.n.retries.Load(), w.n.refused.Load(), answers)
	}
	for _, b := range bodies {
		raw, err := snappy.Decode(nil, b)
		if err != nil || !slices.Equal(raw, encode(p)) {
			t.Errorf("body %x: %v", b, err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{Name: "../x", URL: "https://h/w"},
		{Name: "x", URL: "http://example.org/w"},
		{Name: "x", URL: "https://u:p@h/w"},
		{Name: "x", URL: "ftp://h"},
		{Name: "x", URL: "https://h/w", Username: "u"},
		{Name: "x", URL: "https://h/w", TokenFile: "t", Username: "u", PasswordFile: "p"},
		{Name: "x", URL: "https://h/w", Shards: 99},
	} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if err := (Config{Name: "x", URL: "http://127.0.0.1:9090/api/v1/write"}).Validate(); err != nil {
		t.Error(err)
	}
}

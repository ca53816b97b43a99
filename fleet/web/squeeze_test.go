// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	. "fulmar/fleet/web"
)

// TestSqueezed: a view is compressed for who takes it and says the same; what may hold a
// secret is not: the answer to a form, log-in, password and errors.
func TestSqueezed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	long := `{{define "main"}}<h1>x</h1>` + strings.Repeat("<p>the same again</p>", 200) + `{{end}}`
	v := &View{Name: "x", Files: fstest.MapFS{"x.html": {Data: []byte(long)}}, Templates: []string{"x.html"}, Build: func(_ context.Context, p *Shown) error {
		p.Title = "x"
		return nil
	}}
	h, err := New(Config{Zone: time.UTC, Pages: []Page{{Path: "/", View: v, Act: func(context.Context, *Shown, *http.Request) (string, error) { return "", ErrAgain }}}}, s.auth)
	if err != nil {
		t.Fatal(err)
	}
	s.h = h
	plain := s.get("/")
	if plain.Header().Get("Content-Encoding") != "" || plain.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("unasked: %v", plain.Header())
	}
	takes := func(accept string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Accept-Encoding", accept) }
	}
	w := s.ask(http.MethodGet, "/", "", takes("gzip, deflate, br, zstd"))
	if w.Header().Get("Content-Encoding") != "gzip" || w.Body.Len() > plain.Body.Len()/4 {
		t.Fatalf("%d of %d bytes, %v", w.Body.Len(), plain.Body.Len(), w.Header())
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || len(b) != plain.Body.Len() || !strings.HasSuffix(string(b), "</html>\n") {
		t.Errorf("%d bytes, not %d: %v", len(b), plain.Body.Len(), err)
	}
	for accept, want := range map[string]bool{
		"gzip": true, "deflate, GZIP;q=0.5": true, "br;q=1, gzip ; q=1.0": true, "gzip;level=9": true,
		"": false, "br": false, "gzip;q=0": false, "gzip;q=0.000": false, "gzip; q=x": false, "xgzip": false, "identity, gzip;q=": false, "*": false,
	} {
		if got := s.ask(http.MethodGet, "/", "", takes(accept)).Header().Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
	for _, x := range [][3]string{{http.MethodPost, "/", "a=b"}, {http.MethodGet, "/password", ""}, {http.MethodGet, "/nowhere", ""}, {http.MethodPost, "/login", "user=a&password=b"}} {
		if w := s.ask(x[0], x[1], x[2], takes("gzip")); w.Header().Get("Content-Encoding") != "" || w.Body.Len() < 1<<10 {
			t.Errorf("%s %s: %d bytes, %q", x[0], x[1], w.Body.Len(), w.Header().Get("Content-Encoding"))
		}
	}
}

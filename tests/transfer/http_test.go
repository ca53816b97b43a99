// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/fleet/objects"
	"fulmar/ota/fetch"
	"fulmar/ota/fetch/peer"
	"fulmar/ota/release"
	"fulmar/tests/transfer/rig"
)

func plain() *http.Client { return &http.Client{Transport: &http.Transport{}} }

// counting counts the bytes of bodies.
type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// serveHTTP serves the fleet's objects to a board that the header names.
func serveHTTP(t testing.TB, f *rig.Fleet) (url string, served func() int64) {
	t.Helper()
	var n atomic.Int64
	h := f.Caster.Handler(func(r *http.Request) (string, string, error) {
		if r.Header.Get("X-Nobody") != "" {
			return "", "", errors.New("no certificate")
		}
		return rig.Tenant, "b1", nil
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(counting{w, &n}, r) }))
	t.Cleanup(s.Close)
	return s.URL, n.Load
}

// TestHTTPRights: an object is given by range to who may have it; what is not there and
// what is not for this board look the same.
func TestHTTPRights(t *testing.T) {
	t.Parallel()
	f := fleet(t, objects.Config{})
	want := content(20, 2*release.Piece+5)
	o := put(t, f, want)
	other, err := f.Store.Put(&endless{n: 100}, release.Object{})
	if err != nil {
		t.Fatal(err)
	}
	absent := release.Object{Tree: release.Hash{7}, Size: 10}
	f.Entitle(absent, "b1")
	url, _ := serveHTTP(t, f)
	get := func(path, rng string, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rng != "" {
			r.Header.Set("Range", rng)
		}
		for _, h := range header {
			r.Header.Set(h, "1")
		}
		resp, err := plain().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	tree := "/objects/" + o.Tree.String()
	if code, b := get(tree, ""); code != 200 || b != string(want) {
		t.Errorf("whole: %d, %d bytes", code, len(b))
	}
	if code, b := get(tree, "bytes=65530-65540"); code != 206 || b != string(want[65530:65541]) {
		t.Errorf("range: %d, %d bytes", code, len(b))
	}
	if code, b := get(tree+"/leaves", ""); code != 200 || len(b) != 3*32 {
		t.Errorf("leaves: %d, %d bytes", code, len(b))
	}
	if code, _ := get(tree, "", "X-Nobody"); code != 403 {
		t.Errorf("nobody: %d", code)
	}
	_, unknown := get("/objects/"+release.Hash{1}.String(), "")
	if code, b := get("/objects/"+other.Tree.String(), ""); code != 404 || b != unknown {
		t.Errorf("another's: %d %q, unknown is %q", code, b, unknown)
	}
	if code, _ := get("/objects/"+absent.Tree.String(), ""); code != 503 {
		t.Errorf("not there yet: %d", code)
	}
	for _, bad := range []string{"/objects/", "/objects/x", "/objects/../objects", tree + "/x", tree + ".tree", "/objects/" + o.Tree.String()[:63]} {
		if code, _ := get(bad, ""); code != 404 {
			t.Errorf("%s: %d", bad, code)
		}
	}
}

type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := min(e.n, len(p))
	e.n -= n
	return n, nil
}

// TestPeer: a board of the site that has the object gives it, and the fleet is asked for
// nothing; one that is away or lies costs nothing but the try.
func TestPeer(t *testing.T) {
	t.Parallel()
	f := fleet(t, objects.Config{Linger: 50 * time.Millisecond})
	want := content(21, 5<<20+1)
	o := put(t, f, want)
	dir := t.TempDir()
	first := newBoard(t, f, "b1", dir, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := first.Fetch(ctx, o, nil); err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(peer.Handler(dir, 0))
	defer site.Close()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	url, served := serveHTTP(t, f)
	var sources []fetch.Source
	for _, u := range []string{away.URL, site.URL, url} {
		sources = append(sources, &fetch.HTTP{URL: u, Client: plain()})
	}
	second, err := fetch.New(fetch.Config{Dir: t.TempDir(), Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	path, err := second.Fetch(ctx, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, path, want)
	if served() != 0 {
		t.Errorf("the fleet served %d bytes", served())
	}
	for _, bad := range []string{"", "x", o.Tree.String() + ".part", "..%2f" + o.Tree.String(), release.Hash{1}.String()} {
		resp, err := plain().Get(site.URL + "/objects/" + bad)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%q: %s", bad, resp.Status)
		}
	}
}

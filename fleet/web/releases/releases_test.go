// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/webtest"
	"fulmar/schema/rest"
)

var errUsed = errors.New("release 1.9.0 is rolled out by r-31; abort it first")

// shelf keeps releases in memory.
type shelf struct {
	mu   sync.Mutex
	list []rest.Release
	done []string
}

func (x *shelf) List(context.Context, access.Caller) ([]rest.Release, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.list), nil
}

func (x *shelf) Get(_ context.Context, _ access.Caller, name string) (*rest.Release, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.list {
		if x.list[i].Release == name {
			r := x.list[i]
			return &r, nil
		}
	}
	return nil, web.ErrNotFound
}

func (x *shelf) Complete(ctx context.Context, by access.Caller, name string) (*rest.Release, error) {
	x.done = append(x.done, "complete "+name)
	return x.Get(ctx, by, name)
}

func (x *shelf) Remove(_ context.Context, _ access.Caller, name string) error {
	if name == "1.9.0" {
		return errUsed
	}
	x.done = append(x.done, "remove "+name)
	return nil
}

func problem(err error) (rest.Problem, bool) {
	if errors.Is(err, errUsed) {
		return rest.Problem{Title: "It cannot be done in the present state", Detail: err.Error(), Status: http.StatusConflict, Do: "Abort it."}, true
	}
	return rest.Problem{}, false
}

func newShelf(now time.Time) *shelf {
	tree := strings.Repeat("9f86d0818842cafe", 4)
	agent := func(version string, boards int) rest.ReleaseComponent {
		return rest.ReleaseComponent{
			Name: "agent", Version: version, Files: 2, Bytes: 16_400_000, Travel: 4_600_000, Boards: boards, Needs: "arm64, L4T 35.4.1 or later",
			Ways: []rest.ReleaseWay{{Codec: "raw", Bytes: 16_400_000, Share: 1}, {Codec: "zstd", Bytes: 4_600_000, Share: 0.28}, {Codec: "elf", From: "1.8.2", Bytes: 290_000, Share: 0.0177}, {Codec: "elf", From: tree, Bytes: 90_000, Share: 0.0055}},
			Runs: []rest.ReleaseRuns{{Release: "1.8.2", Boards: 960}, {Release: version, Boards: boards}, {Release: "1.7.0", Boards: 3}},
		}
	}
	return &shelf{list: []rest.Release{
		{
			Release: "1.9.0", State: rest.ReleaseReady, Trusted: true, Epoch: 3, Notes: "Faster start, and the camera that stayed dark comes back.", Manifest: tree, Signers: []string{tree}, Author: "token ci", Created: now.Add(-3 * time.Hour),
			Bytes: 21_000_000, Have: 21_000_000, Boards: 37, InUse: []string{"r-31"},
			Components: []rest.ReleaseComponent{agent("1.9.0", 37), {Name: "model/parcels", Version: "7", Files: 1, Bytes: 4_100_000, Travel: 4_000_000, Ways: []rest.ReleaseWay{{Codec: "raw", Bytes: 4_100_000, Share: 1}}}},
			Patches: []rest.ReleasePatch{
				{Component: "agent", Path: "fulmard", From: "1.8.2", Boards: 960, State: "made", Bytes: 280_000, Full: 4_600_000, Codec: "elf", At: now},
				{Component: "agent", Path: "fulmar-infer", From: "1.8.2", Boards: 960, State: "making", Full: 9_000_000, At: now},
				{Component: "agent", Path: "fulmard", From: "1.7.0", Boards: 3, State: "waiting", Full: 4_600_000, At: now},
				{Component: "model/parcels", Path: "parcels.onnx", From: "1.8.2", Boards: 12, State: "useless", Full: 4_000_000, Say: "3990000 bytes, and without it 4000000", At: now},
			},
		},
		{
			Release: "1.9.1", State: rest.ReleaseIncomplete, Trusted: true, Epoch: 3, Manifest: tree, Signers: []string{tree}, Author: "m.kern", Created: now.Add(-4 * time.Minute), Bytes: 21_000_000, Have: 9_000_000,
			Components: []rest.ReleaseComponent{agent("1.9.1", 0)}, Missing: []rest.ReleaseObject{{Tree: tree, Size: 16_400_000, Have: 4_400_000}, {Tree: strings.Repeat("ab", 32), Size: 4_600_000}},
		},
		{Release: "1.2.0", State: rest.ReleaseReady, Epoch: 1, Manifest: tree, Author: "m.kern", Created: now.Add(-400 * 24 * time.Hour), Bytes: 12_000_000, Have: 12_000_000, Components: []rest.ReleaseComponent{agent("1.2.0", 0)}},
	}}
}

// door lets everybody in: the cookie names the role.
type door struct{ web.Auth }

func (door) Session(r *http.Request) (web.Session, bool) {
	c, err := r.Cookie("role")
	if err != nil {
		return web.Session{}, false
	}
	return web.Session{Tenant: "main", User: "m.kern", Role: rest.Role(c.Value)}, true
}

func newSite(t *testing.T, x *shelf) *web.Handler {
	t.Helper()
	h, err := web.New(web.Config{Zone: time.UTC, Tick: 50 * time.Millisecond, Pages: Pages(Config{Releases: x, Problem: problem})}, door{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(t *testing.T, h http.Handler, role, method, target string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.AddCookie(&http.Cookie{Name: "role", Value: role})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestPages: what stands against a release is said first; who only looks is offered
// nothing; an act is done or refused with the reason.
func TestPages(t *testing.T) {
	t.Parallel()
	x := newShelf(time.Now())
	h := newSite(t, x)
	page := ask(t, h, "releaser", http.MethodGet, "/releases", nil).Body.String()
	if a, b, c := strings.Index(page, `href="/releases/1.2.0"`), strings.Index(page, `href="/releases/1.9.1"`), strings.Index(page, `href="/releases/1.9.0"`); a < 0 || a > b || b > c {
		t.Errorf("the refused one at %d, the incomplete one at %d, the good one at %d", a, b, c)
	}
	for _, want := range []string{"1 release is refused by boards", "Sign it anew", "43\u00a0% of ", "fulmar release upload FOLDER"} {
		if !strings.Contains(page, want) {
			t.Errorf("the list does not say %q", want)
		}
	}
	page = ask(t, h, "releaser", http.MethodGet, "/releases/1.9.0", nil).Body.String()
	for _, want := range []string{
		"1.9.0 is ready", "37 boards run it.", `href="/rollouts/r-31"`, "patch of programs (elf)", "9f86d0818842..., not here", "under 1\u00a0%", "1.8.2 on 960 boards", "2 patches are still to make", "of no use",
		`href="/rollouts/new?component=agent&amp;release=1.9.0"`, "cannot be removed while a rollout wants it", "Needs arm64, L4T 35.4.1 or later.",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the release does not say %q", want)
		}
	}
	if page = ask(t, h, "viewer", http.MethodGet, "/releases/1.9.1", nil).Body.String(); strings.Contains(page, "What you can do") || strings.Contains(page, "/rollouts/new") || !strings.Contains(page, "27\u00a0%") {
		t.Error("a viewer is offered something, or does not see what is missing")
	}
	if w := ask(t, h, "viewer", http.MethodPost, "/releases/1.9.1", url.Values{"do": {"remove"}}); w.Code != http.StatusForbidden || len(x.done) != 0 {
		t.Errorf("a viewer removed a release: %d", w.Code)
	}
	if w := ask(t, h, "releaser", http.MethodPost, "/releases/1.9.0", url.Values{"do": {"remove"}}); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "rolled out by r-31") {
		t.Errorf("one in use: %d", w.Code)
	}
	if w := ask(t, h, "releaser", http.MethodPost, "/releases/1.2.0", url.Values{"do": {"remove"}}); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/releases" || x.done[0] != "remove 1.2.0" {
		t.Errorf("remove: %d %q", w.Code, x.done)
	}
	if w := ask(t, h, "releaser", http.MethodGet, "/releases/none", nil); w.Code != http.StatusNotFound {
		t.Errorf("one that is not: %d", w.Code)
	}
	x.list = nil
	if page = ask(t, h, "viewer", http.MethodGet, "/releases", nil).Body.String(); !strings.Contains(page, "No release is here yet") {
		t.Error("nothing is said of no releases")
	}
}

// TestBrowser looks at the pages as a person does: an upload goes on without a reload.
func TestBrowser(t *testing.T) {
	t.Parallel()
	x := newShelf(time.Now())
	b := webtest.New(t, newSite(t, x), &http.Cookie{Name: "role", Value: "releaser"})
	b.Size(1280, 900)
	b.Open("/releases/1.9.1")
	axe := b.Axe()
	webtest.Eval[bool](b, `window.kept = true`)
	x.mu.Lock()
	x.list[1].Have, x.list[1].Missing = 21_000_000, nil
	x.mu.Unlock()
	b.Until(`document.querySelector(".lead").innerText.includes("complete it") && window.kept`)
	b.Do(chromedp.Click(`button[value=complete]`))
	b.Until(`!window.kept && document.readyState === "complete"`) // the form led back to the same address
	x.mu.Lock()
	x.list[1].Have, x.list[1].Missing = 9_000_000, newShelf(time.Now()).list[1].Missing
	x.mu.Unlock()
	b.Looks([][2]string{{"releases", "/releases"}, {"release-ready", "/releases/1.9.0"}, {"release-incomplete", "/releases/1.9.1"}, {"release-refused", "/releases/1.2.0"}}, axe)
	b.Quiet(nil)
	for _, s := range b.Said() {
		t.Errorf("console: %s", s)
	}
}

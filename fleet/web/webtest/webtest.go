// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package webtest drives pages in a headless Chromium, for tests of the packages that
// bring them.
package webtest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/fleet/web"
)

// patience bounds the wait for one thing on a page.
const patience = 20 * time.Second

// Browser is one Chromium with a page before it.
type Browser struct {
	T    *testing.T
	ctx  context.Context
	base string

	mu   sync.Mutex
	said []string // errors and warnings of the console, violations of the policy too
	urls []string // every address the server was asked for
}

// New starts a browser at a page, logged in by a cookie. Under CI the browser has to be
// there.
func New(t *testing.T, h *web.Handler, cookie *http.Cookie) *Browser {
	t.Helper()
	b := &Browser{T: t}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.urls = append(b.urls, r.URL.String(), r.Referer())
		b.mu.Unlock()
		if _, err := r.Cookie(cookie.Name); err != nil {
			r.AddCookie(cookie)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	Live(t, h)
	b.base = srv.URL
	b.ctx = Chromium(t, 5*time.Minute, func(what string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said = append(b.said, what)
	})
	return b
}

// Live runs the live parts of a page until the test ends: before the server closes, which
// waits for open streams, so it is called after the server was made.
func Live(t *testing.T, h *web.Handler) {
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(run) }()
	t.Cleanup(func() { stop(); <-done })
}

// Chromium starts a browser for at most life, and tells said of each error and warning of
// its console. Under CI the browser has to be there.
func Chromium(t *testing.T, life time.Duration, said func(what string)) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not installed; CI needs the Debian package chromium")
		}
		t.Skip("chromium is not installed: the page is not driven")
	}
	ctx, cancel := context.WithTimeout(context.Background(), life)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				said(m.String() + " at " + m.URL)
			}
		}
	}()
	return ctx
}

// Do does steps; the test ends where one fails.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.T.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.T.Fatal(err)
	}
}

// Size sets the window, in px.
func (b *Browser) Size(w, h int64) { b.T.Helper(); b.Do(chromedp.EmulateViewport(w, h)) }

// Open goes to a path and waits until its live part, where it has one, has spoken.
func (b *Browser) Open(path string) {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(b.base+path)); err != nil {
		b.T.Fatalf("navigate to %s: %v, console %q", path, err, b.Said())
	}
	b.Settle()
}

// Settle waits until the page is there and, where it is live, has heard of the server.
func (b *Browser) Settle() {
	b.T.Helper()
	b.Until(`document.readyState === "complete" && !!document.querySelector("h1") && (!document.body.dataset.view || document.querySelector("#live").innerText === "Live")`)
}

// Eval gives the value of an expression.
func Eval[V any](b *Browser, js string) V {
	b.T.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[V](js))
	if err != nil {
		b.T.Fatalf("%s: %v", js, err)
	}
	return v
}

// Until waits for a condition of the page, across navigations too.
func (b *Browser) Until(js string) {
	b.T.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end) && b.ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+js+")")); err == nil && ok {
			return
		}
	}
	state, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + " | " + (document.querySelector("h1")?.innerText || "")`))
	b.T.Fatalf("never came true: %s; the page: %s; console %q", js, state, b.Said())
}

// Fits fails when the page can be scrolled sideways, and names what sticks out.
func (b *Browser) Fits(what string) {
	b.T.Helper()
	if over := Eval[float64](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		b.T.Errorf("%s: %v px too wide: %s", what, over, Eval[string](b, `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.tagName + "." + e.getAttribute("class")).slice(0, 8).join(" ")`))
	}
}

// Shoot keeps a picture of the page for people where FULMAR_ARTIFACTS says.
func (b *Browser) Shoot(name string) {
	b.T.Helper()
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.T.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.T.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web-"+name+".png"), png, 0o644); err != nil {
		b.T.Fatal(err)
	}
}

// Looks opens views in light, in dark, and as a phone, holds each to its width and
// takes its picture. check is called at each; it may be nil.
func (b *Browser) Looks(views [][2]string, check func(name string)) {
	b.T.Helper()
	for _, theme := range []string{"light", "dark"} {
		b.Size(1280, 900)
		b.Open(views[0][1])
		b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector('button[value=` + theme + `]').click()`))
		b.Until(`document.documentElement.dataset.theme === "` + theme + `"`)
		for i, v := range views {
			b.Size(1280, 900)
			b.Open(v[1])
			b.Fits(v[0])
			b.Shoot(v[0] + "-" + theme)
			if check != nil && (theme == "light" || i < 2) { // the colours are the same on all
				check(v[0] + ", " + theme)
			}
			if theme == "dark" { // a phone has the same colours
				continue
			}
			b.Size(390, 844)
			b.Fits(v[0] + " on a phone")
			b.Shoot(v[0] + "-390")
			if check != nil {
				check(v[0] + " on a phone")
			}
		}
	}
	b.Size(1280, 900)
}

// Said lists what the console said: errors, warnings, violations of the policy.
func (b *Browser) Said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.said...)
}

// Quiet fails where the console said something else than what was asked for, and where
// a secret was in an address.
func (b *Browser) Quiet(asked []string, secrets ...string) {
	b.T.Helper()
	for _, s := range b.Said() {
		known := false
		for _, a := range asked {
			known = known || strings.Contains(s, a)
		}
		if !known {
			b.T.Errorf("console: %s", s)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.urls {
		for _, s := range secrets {
			if strings.Contains(u, s) {
				b.T.Errorf("a secret in an address: %s", u)
			}
		}
	}
}

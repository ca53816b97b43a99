// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/internal/axetest"
	"fulmar/schema/rest"
)

// ownPassword is what the test's person chooses.
const ownPassword = "four words in a row"

// TestPage looks at a running system the way its owner would: logs in with the
// one-time password, chooses a password, and waits for parcels with boxes and for
// the camera's precision. Then it goes through every view in light, in dark and on a
// phone: each has to fit, and to pass axe-core. The pictures of it are kept where CI
// collects them. At last two browsers watch one change.
func TestPage(t *testing.T) {
	script := axetest.Script(t)
	p := browse(t)
	s, api, _, _ := site(t)
	p.base = "https://" + s.HTTPS
	arrived(t, api, "snapshot", 3)
	m := regexp.MustCompile(`one-time password[^:]*: (\S+)`).FindStringSubmatch(s.Fleet.Output())
	if m == nil {
		t.Fatal("the fleet printed no one-time password")
	}
	p.do(chromedp.EmulateViewport(1280, 900))
	p.open("/boards/dock-1")
	p.look(script, "login")
	p.login(m[1])
	p.until(`!!document.querySelector("#again")`)
	p.look(script, "password")
	p.do(chromedp.SetValue("#old", m[1]), chromedp.SetValue("#new", ownPassword), chromedp.SetValue("#again", ownPassword), chromedp.Click("button.go"))
	p.until(`!!document.querySelector("h1") && !document.querySelector("#again")`)
	p.open("/boards/dock-1")
	p.until(`document.querySelector("h1").innerText.includes("dock-1")`)
	p.until(`document.body.innerText.includes("Precision") && document.querySelectorAll("svg rect").length > 3`)
	p.until(`[...document.images].some((i) => i.complete && i.naturalWidth === 640)`)
	before := p.text()
	p.until(`document.body.innerText !== ` + quote(before)) // it lives without a reload
	p.open("/detections")
	p.until(`document.querySelectorAll("img").length >= 3`)
	p.views(script)

	other := browse(t)
	other.base = p.base
	other.open("/")
	other.login(ownPassword)
	for _, b := range []*page{p, other} {
		b.open("/")
		b.until(`document.querySelector("#live").innerText === "Live"`)
		b.do(chromedp.Evaluate[chromedp.Void](`window.first = true; 0`))
	}
	admin, err := s.Admin()
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.SetMeta(t.Context(), "dock-1", rest.Meta{Site: "hall-9"}); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*page{p, other} {
		b.until(`window.first && document.querySelector("#main").innerText.includes("hall-9")`) // in the page that was there before
	}
	other.shoot("fleet-other")
}

// views goes through every view of a person with all rights.
func (p *page) views(script string) {
	p.t.Helper()
	p.open("/detections")
	one := p.eval(`[...document.querySelectorAll("main a")].map((a) => a.getAttribute("href")).find((h) => h.includes("/event/"))`)
	views := [][2]string{{"fleet", "/"}, {"fleet-asked", "/?q=state%3Dhealthy&sort=-cpu"}, {"board", "/boards/dock-1"}, {"detections", "/detections"}, {"detection", one}, {"rollouts", "/rollouts"}, {"plan", "/rollouts/new"}, {"audit", "/audit"}, {"second-factor", "/second-factor"}}
	for _, name := range []string{"account", "users", "tokens", "alerts", "webhooks", "boards"} {
		views = append(views, [2]string{"settings-" + name, "/settings/" + name})
	}
	for _, theme := range []string{"light", "dark"} {
		p.open("/")
		p.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("button[value=` + theme + `]").click()`))
		p.until(`document.documentElement.dataset.theme === "` + theme + `"`)
		for _, v := range views {
			p.open(v[1])
			if theme == "light" {
				p.look(script, v[0])
				continue
			}
			p.axe(script, v[0]+", dark") // what fits in light fits in dark
			p.shoot(v[0] + "-dark")
		}
	}
}

// browse starts a browser of its own.
func browse(t *testing.T) *page {
	t.Helper()
	path := "/usr/bin/chromium"
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is not installed; run: cross/need chromium")
		}
		t.Skip("chromium is not installed; run: cross/need chromium")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.IgnoreCertErrors)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return &page{t: t, ctx: ctx}
}

// open goes to a path and waits until its live part, where it has one, has spoken.
func (p *page) open(path string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.base + path))
	p.until(`document.readyState === "complete" && !!document.querySelector("h1") && (!document.body.dataset.view || document.querySelector("#live").innerText === "Live")`)
}

func (p *page) login(password string) {
	p.t.Helper()
	p.until(`!!document.querySelector("#password")`)
	p.do(chromedp.SetValue("#user", "admin"), chromedp.SetValue("#password", password), chromedp.Click("button.go"))
	p.until(`location.pathname !== "/login" && !!document.querySelector("h1")`)
}

// look holds what is shown to the width of a desk and of a phone and to axe-core, and
// keeps pictures of both.
func (p *page) look(script, name string) {
	p.t.Helper()
	for _, w := range []int64{1280, 390} {
		p.do(chromedp.EmulateViewport(w, 900))
		what := name + "-" + strconv.FormatInt(w, 10)
		if wide := p.eval(`String(document.documentElement.scrollWidth - document.documentElement.clientWidth)`); wide != "0" {
			p.t.Errorf("%s: %s px too wide", what, wide)
		}
		p.axe(script, what)
		p.shoot(what)
	}
	p.do(chromedp.EmulateViewport(1280, 900))
}

// axe fails for what axe-core finds serious.
func (p *page) axe(script, what string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](script + ";0"))
	list, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string](axetest.Run, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range list {
		p.t.Errorf("%s: axe-core: %s", what, s)
	}
}

type page struct {
	t    *testing.T
	ctx  context.Context
	base string
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *page) text() string { p.t.Helper(); return p.eval("document.body.innerText") }

func (p *page) eval(js string) string {
	p.t.Helper()
	s, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](js))
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *page) until(js string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("!!("+js+")")); err == nil && ok {
			return
		}
	}
	p.shoot("failed")
	p.t.Fatalf("30 s passed without: %s\nthe page says:\n%s", js, p.text())
}

func (p *page) shoot(name string) {
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "running-"+name+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Error(err)
	}
}

// quote makes a JavaScript string of any text.
func quote(s string) string {
	b := []byte{'"'}
	for _, r := range s {
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
		default:
			b = append(b, string(r)...)
		}
	}
	return string(append(b, '"'))
}

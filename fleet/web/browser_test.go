// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	. "fulmar/fleet/web"
	"fulmar/fleet/web/fleetview"
	"fulmar/fleet/web/verdict"
	"fulmar/fleet/web/views"
	"fulmar/fleet/web/webtest"
	"fulmar/schema"
)

const (
	oneTime = "one-time-4711"
	chosen  = "correct horse battery staple"
)

// browser is one Chromium with the page before it.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string
	src  *memory

	keep    *keeper
	mu      sync.Mutex
	said    []string // console errors and warnings, violations of the policy too
	visited []string // every URL the server was asked for, and every referrer
}

// newBrowser opens a browser before the log-in.
func newBrowser(t *testing.T) *browser {
	return browse(t, newMemory(time.Now), &door{password: oneTime, must: true})
}

// newBrowserIn opens one that is logged in as an admin.
func newBrowserIn(t *testing.T, src *memory) *browser {
	return browse(t, src, &door{password: chosen, open: true, known: true})
}

func browse(t *testing.T, src *memory, auth Auth) *browser {
	b := &browser{t: t, src: src, keep: newKeeper(time.Now())}
	h, err := New(Config{Release: "0.2.0", Zone: time.UTC, Tick: 50 * time.Millisecond, Pages: views.Pages(views.Config{
		Source: b.src, Keeper: b.keep, Saved: b.keep, Metas: b.src,
		JoinPage: "/settings/boards",
	})}, auth)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.visited = append(b.visited, r.URL.String(), r.Referer())
		b.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	webtest.Live(t, h)
	b.base = srv.URL
	b.ctx = webtest.Chromium(t, 9*time.Minute, func(what string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said = append(b.said, what)
	})
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) size(w, h int64) { b.t.Helper(); b.do(chromedp.EmulateViewport(w, h)) }

func (b *browser) open(path string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(b.base+path)); err != nil {
		b.t.Fatalf("navigate to %s: %v, console %q", path, err, b.said)
	}
	b.until(`!!document.querySelector("h1")`)
}

func eval[T any](b *browser, js string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// until waits for a condition of the page, across navigations too.
func (b *browser) until(js string) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && b.ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+js+")")); err == nil && ok {
			return
		}
	}
	state, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + " | " + (document.querySelector("h1")?.innerText || "") + " | " + (document.querySelector("#live")?.innerText || "")`))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("never came true: %s; the page: %s; console %q", js, state, b.said)
}

// shoot keeps a picture of the page for people where FULMAR_ARTIFACTS says.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if dir == "" {
		return
	}
	b.until(`[...document.images].every((i) => i.loading === "lazy" || i.complete)`)
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web-"+name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// fits fails when the page can be scrolled sideways, and names what sticks out.
func (b *browser) fits(what string) {
	b.t.Helper()
	if over := eval[float64](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		b.t.Errorf("%s: %v px too wide: %s", what, over, eval[string](b, `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.tagName + "." + e.getAttribute("class")).slice(0, 8).join(" ")`))
	}
}

// TestBrowser drives the whole page as a person would, in one session.
func TestBrowser(t *testing.T) {
	b := newBrowser(t)
	b.size(1280, 900)
	b.login()
	b.fleet()
	b.board()
	b.trust()
	b.detections()
	b.trouble()
	b.empty()

	b.calm()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.visited {
		for _, secret := range []string{oneTime, chosen, url.QueryEscape(chosen), url.PathEscape(chosen), "session"} {
			if strings.Contains(u, secret) {
				t.Errorf("a secret in a URL: %s", u)
			}
		}
	}
}

// calm fails for what the browser complained of: a script that broke, a violation of the
// policy.
func (b *browser) calm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.said {
		if strings.Contains(s, "401") && strings.Contains(s, "/login") || strings.Contains(s, "404") && strings.HasSuffix(s, "/boards/nobody") ||
			strings.Contains(s, "422") && (strings.HasSuffix(s, "/revoke") || strings.HasSuffix(s, "/boards/dock-0001")) {
			continue // the wrong password, the board that is not, the wrong name and the wrong form, all asked for
		}
		b.t.Errorf("console: %s", s)
	}
}

func (b *browser) login() {
	t := b.t
	b.open("/boards/dock-0001")
	if got := eval[string](b, `location.pathname + location.search`); got != "/login?next=%2Fboards%2Fdock-0001" {
		t.Fatalf("without a session: %s", got)
	}
	b.shoot("login")
	send := func(fields map[string]string) {
		for id, v := range fields {
			b.do(chromedp.SetValue("#"+id, v))
		}
		b.do(chromedp.Click("button.go"))
	}
	send(map[string]string{"user": "admin", "password": "guess"})
	b.until(`!!document.querySelector(".why")`)
	if got := eval[string](b, `document.querySelector(".why").innerText`); !strings.Contains(got, "User and password") {
		t.Errorf("wrong password: %q", got)
	}
	send(map[string]string{"user": "admin", "password": oneTime})
	b.until(`!!document.querySelector("#again")`)
	b.shoot("password")
	b.open("/detections") // nothing else is shown before the password is changed
	if got := eval[string](b, `location.pathname`); got != "/password" {
		t.Errorf("with a one-time password /detections leads to %s", got)
	}
	send(map[string]string{"old": oneTime, "new": chosen, "again": chosen})
	b.until(`location.pathname === "/" && !!document.querySelector(".boards")`)
}

func (b *browser) fleet() {
	t := b.t
	b.until(`document.querySelector("#live").innerText === "Live"`)
	b.agree()
	eval[bool](b, `window.kept = true`)
	b.src.mu.Lock()
	for i := range b.src.boards[0].Latest {
		if r := &b.src.boards[0].Latest[i]; r.Series == "cpu.load_percent" {
			r.Value, r.At = 97.4, time.Now()
		}
	}
	b.src.mu.Unlock()
	b.until(`document.querySelector('[data-v="dock-0001|cpu"]').innerText === "97\u00a0%"`)
	b.src.mu.Lock() // a state changes: sentence, chips and rows follow
	b.src.boards[2].State, b.src.boards[2].Cause = StateHealthy, ""
	b.src.mu.Unlock()
	b.until(`document.querySelector("h1").innerText === "1 board needs you: no message for 12 min; its own link or power on dock-0002"`)
	b.until(`document.querySelector('[data-chip="healthy"]').innerText === "2" && document.querySelectorAll('tr[data-state="healthy"]').length === 2`)
	b.agree()
	b.src.mu.Lock()
	b.src.boards[2].State, b.src.boards[2].Cause = StateDegraded, "worker restarting"
	b.src.mu.Unlock()
	b.until(`document.querySelectorAll(".causes li").length === 2`)
	if !eval[bool](b, `window.kept === true`) {
		t.Error("the page was loaded anew to show new values")
	}
}

// agree holds headline, chips, causes and rows on the screen to the source's numbers.
func (b *browser) agree() {
	t := b.t
	t.Helper()
	ov, _ := b.src.Overview(b.ctx, "main")
	if got, want := eval[string](b, `document.querySelector("h1").innerText`), verdict.Headline(fleetview.Judge(ov.Boards)); got != want {
		t.Errorf("headline %q, the source says %q", got, want)
	}
	sum := 0
	for s, n := range verdict.Tally(fleetview.Judge(ov.Boards)) {
		chip := eval[string](b, fmt.Sprintf(`document.querySelector('[data-chip="%s"]')?.innerText || "none"`, s))
		rows := eval[int](b, fmt.Sprintf(`document.querySelectorAll('tr[data-state="%s"]').length`, s))
		if chip != fmt.Sprint(n) || rows != n {
			t.Errorf("%s: chip %s, %d rows, the source has %d", s, chip, rows, n)
		}
		sum += n
	}
	if rows := eval[int](b, `document.querySelectorAll(".boards tbody tr").length`); rows != sum || sum != len(ov.Boards) {
		t.Errorf("%d rows, chips sum to %d, the source has %d boards", rows, sum, len(ov.Boards))
	}
}

func (b *browser) board() {
	t := b.t
	b.open("/boards/dock-0001")
	b.until(`document.querySelector("#live").innerText === "Live"`)
	path := eval[string](b, `document.querySelector('path[data-series="cpu.load_percent"]').getAttribute("d")`)
	if strings.Count(path, "M") < 2 {
		t.Errorf("the hole in the history is drawn over: %.80s", path)
	}
	first := eval[string](b, `document.querySelector(".cam img").getAttribute("src")`)
	b.boxes(".cam", "cam0")
	b.src.tick(true)
	b.until(`document.querySelector(".cam img").getAttribute("src") !== "` + first + `"`)
	b.until(`document.querySelector('path[data-series="cpu.load_percent"]').getAttribute("d").length > 0`)
	b.boxes(".cam", "cam0")
	b.src.mu.Lock()
	c := &b.src.boards[0].Cameras[0]
	c.True, c.False, c.Missed = 90, 10, 30
	b.src.boards[0].Ledger[2].Waiting += 5
	b.src.boards[0].Ledger[2].Made += 5
	b.src.mu.Unlock()
	b.until(`document.querySelector(".figs").innerText.includes("90.0\u00a0%") && document.querySelector(".figs").innerText.includes("75.0\u00a0%") && document.querySelector(".figs").innerText.includes("90 of 120 objects")`)
	b.until(`/made = .* arrived \+ 300 thinned \+ 60 lost \+ at most 2 lost in a crash \+ 5 waiting/.test(document.querySelector(".sum").innerText)`)
}

// trust lets a board in, and shuts one out.
func (b *browser) trust() {
	t := b.t
	b.open("/")
	b.settle()
	asks := `document.querySelectorAll(".ask").length`
	b.keep.mu.Lock() // one more asks: it appears by itself
	r := b.keep.asks[0]
	r.ID, r.Board = 8, "dock-0008"
	b.keep.asks = append(b.keep.asks, r)
	b.keep.mu.Unlock()
	b.until(asks + ` === 5 && document.querySelector("#ask-8").innerText.includes("dock-0008 asks to join")`)
	b.do(chromedp.Click(`#ask-4 button[value=approve]`))
	b.until(`document.querySelector("#ask-4 .decided")?.innerText.startsWith("Approved by admin")`)
	b.do(chromedp.Click(`#ask-8 button[value=refuse]`))
	b.until(`document.querySelector("#ask-8 .decided")?.innerText.startsWith("Refused by admin")`)
	b.open("/boards/dock-0002")
	b.settle()
	b.do(chromedp.Click(`#revoke summary`))
	b.until(`document.querySelector("#revoke input[name=confirm]").checkVisibility()`)
	b.do(chromedp.SendKeys(`#revoke input[name=confirm]`, "dock-0001"), chromedp.Click(`#revoke button`))
	b.until(`document.querySelector("h1").innerText.includes("the name does not match")`)
	b.open("/boards/dock-0002")
	b.settle()
	b.do(chromedp.Click(`#revoke summary`), chromedp.SendKeys(`#revoke input[name=why]`, "stolen"), chromedp.SendKeys(`#revoke input[name=confirm]`, "dock-0002"))
	b.src.tick(false) // the page goes on being live: what was typed stays
	b.silent(1, time.Now())
	b.until(`document.querySelector(".trust").innerText.includes("has not answered")`)
	b.shoot("shut-out")
	b.do(chromedp.Click(`#revoke button`))
	b.until(`document.readyState === "complete" && document.querySelector("#revoke") && !document.querySelector("#revoke").open`)
	b.silent(1, time.Time{})
	b.keep.mu.Lock()
	defer b.keep.mu.Unlock()
	if want := []string{"approved 4 by admin", "refused 8 by admin", "revoke main/dock-0002 by admin: stolen"}; !slices.Equal(b.keep.did, want) {
		t.Errorf("done: %q, want %q", b.keep.did, want)
	}
	b.keep.asks = newKeeper(time.Now()).asks
}

// silent says since when a board has not answered. The page may be at the trust that is
// there: it gets another one.
func (b *browser) silent(board int, since time.Time) {
	b.src.mu.Lock()
	defer b.src.mu.Unlock()
	now := *b.src.boards[board].Trust
	now.Silent = since
	b.src.boards[board].Trust = &now
}

// boxes holds each drawn box to the place of its detection on the screen, within
// a pixel and a half.
func (b *browser) boxes(where, camera string) {
	t := b.t
	t.Helper()
	b.until(`document.querySelector("` + where + ` img").complete`)
	b.src.mu.Lock()
	var e schema.Event
	for _, d := range b.src.shots {
		if d.Board == "dock-0001" && d.Event.Source == camera {
			e = d.Event
			break
		}
	}
	b.src.mu.Unlock()
	got := eval[[][4]float64](b, `(() => {
		const img = document.querySelector("`+where+` img").getBoundingClientRect();
		return [...document.querySelectorAll("`+where+` .shot:first-child .m")].filter((m) => m.closest("`+where+`") === document.querySelector("`+where+`")).map((m) => {
			const r = m.querySelector("rect.line").getBBox(), at = m.getScreenCTM(), p = m.getBoundingClientRect;
			const x = m.x.baseVal.value, y = m.y.baseVal.value;
			return [x / img.width, y / img.height, (x + r.width) / img.width, (y + r.height) / img.height];
		});
	})()`)
	want := append(append([]schema.Box{}, e.Truth...), e.Boxes...)
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%d boxes drawn, %d detections and truths", len(got), len(want))
	}
	for i, w := range want {
		for k, v := range [4]float64{float64(w.X0) / picW, float64(w.Y0) / picH, float64(w.X1) / picW, float64(w.Y1) / picH} {
			if math.Abs(got[i][k]-v)*picW > 1.5 {
				t.Errorf("box %d side %d is drawn at %.4f of the picture, belongs at %.4f", i, k, got[i][k], v)
			}
		}
	}
}

func (b *browser) detections() {
	t := b.t
	b.open("/detections")
	b.until(`document.querySelectorAll(".tile img").length === 24`)
	b.do(chromedp.Click(`a[rel=next]`))
	b.until(`location.search.includes("before=")`)
	b.open("/detections?board=dock-0003")
	if n := eval[int](b, `[...document.querySelectorAll(".tcap b")].filter((e) => e.innerText !== "dock-0003").length`); n != 0 {
		t.Errorf("%d pictures of other boards pass the filter", n)
	}
	b.open("/detections/dock-0001/event/00c0ffee00c0ffee/3")
	for _, k := range []struct{ key, gone string }{{"b", ".m.hit"}, {"g", ".m.truth"}, {"l", ".mt text"}} {
		visible := fmt.Sprintf(`getComputedStyle(document.querySelector(%q)).display !== "none"`, k.gone)
		if !eval[bool](b, visible) {
			t.Errorf("%s is not shown", k.gone)
		}
		b.do(chromedp.KeyEvent(k.key))
		if eval[bool](b, visible) {
			t.Errorf("key %s does not hide %s", k.key, k.gone)
		}
		b.do(chromedp.KeyEvent(k.key))
	}
	here := eval[string](b, `location.pathname`)
	b.do(chromedp.KeyEvent(kb.ArrowRight)) // right arrow: older
	b.until(`location.pathname !== "` + here + `" && document.readyState === "complete"`)
	b.do(chromedp.KeyEvent(kb.ArrowLeft))
	b.until(`location.pathname === "` + here + `"`)
}

// settle waits until the live part, where there is one, has spoken.
func (b *browser) settle() {
	b.t.Helper()
	b.until(`document.readyState === "complete" && (!document.body.dataset.view || document.querySelector("#live").innerText === "Live")`)
}

func (b *browser) trouble() {
	b.open("/")
	b.settle()
	b.src.mu.Lock()
	b.src.broken = context.DeadlineExceeded
	b.src.mu.Unlock()
	b.until(`/^Not live since \d\d:\d\d:\d\d UTC/.test(document.querySelector("#live").innerText)`)
	b.shoot("not-live")
	b.src.mu.Lock()
	b.src.broken = nil
	b.src.mu.Unlock()
	b.until(`document.querySelector("#live").innerText === "Live"`)
}

// empty holds the first sight of a new fleet: the command, and the board that
// appears by itself.
func (b *browser) empty() {
	b.src.mu.Lock()
	boards := b.src.boards
	b.src.boards = nil
	b.src.mu.Unlock()
	b.until(`document.querySelector("h1").innerText === "No boards yet" && document.querySelector("main a.go").getAttribute("href") === "/settings/boards"`)
	b.shoot("empty")
	b.src.mu.Lock()
	b.src.boards = boards
	b.src.mu.Unlock()
	b.until(`document.querySelectorAll(".boards tbody tr").length === 3`)
}

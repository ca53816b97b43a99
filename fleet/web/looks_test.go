// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	. "fulmar/fleet/web"
	"fulmar/internal/axetest"
)

// TestLooks holds each view, light and dark and on a phone, to its width and to
// axe-core, and keeps a picture of it.
func TestLooks(t *testing.T) {
	axe := axetest.Script(t)
	b := newBrowserIn(t, newTown(time.Now, 120))
	views := []struct{ name, path string }{
		{"fleet", "/"},
		{"query", "/?" + url.Values{"q": {"site in (hall-4, hall-5) and not state=healthy"}, "sort": {"-seen"}}.Encode()},
		{"query-wrong", "/?q=sate+%3D+failing"},
		{"board", "/boards/dock-0001"},
		{"unreachable", "/boards/dock-0002"},
		{"degraded", "/boards/dock-0003"},
		{"detections", "/detections"},
		{"detections-none", "/detections?class=whale&score=90"},
		{"detection", "/detections/dock-0001/event/00c0ffee00c0ffee/27"},
		{"missing", "/boards/nobody"},
	}
	for _, theme := range []string{"light", "dark"} {
		b.size(1280, 900)
		b.open("/")
		b.do(chromedp.Click(".bar > .in > .menu:last-child summary"), chromedp.Click(`button[value=`+theme+`]`))
		b.until(`document.documentElement.dataset.theme === "` + theme + `"`)
		for _, v := range views {
			b.size(1280, 900)
			b.open(v.path)
			b.settle()
			b.fits(v.name)
			b.axe(axe, v.name+", "+theme)
			b.shoot(v.name + "-" + theme)
			if theme == "dark" {
				continue
			}
			b.size(390, 844)
			b.fits(v.name + " on a phone")
			b.axe(axe, v.name+" on a phone")
			b.shoot(v.name + "-" + theme + "-390")
		}
	}
	b.control(axe)
	b.calm()
}

// axe fails for what axe-core finds serious or critical on the page.
func (b *browser) axe(script, what string) {
	b.t.Helper()
	for _, v := range b.violations(script) {
		b.t.Errorf("%s: %s", what, v)
	}
}

func (b *browser) violations(script string) []string {
	b.t.Helper()
	if !eval[bool](b, `!!window.axe`) {
		eval[bool](b, script+";!!window.axe")
	}
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](axetest.Run, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

// control holds axe itself to a page with known faults: one that finds nothing there
// would find nothing anywhere.
func (b *browser) control(script string) {
	b.open("/")
	b.settle()
	eval[bool](b, `(() => {
		const button = document.createElement("button"), img = document.createElement("img"), p = document.createElement("p");
		img.src = "/assets/none.svg";
		p.textContent = "too faint to read";
		p.className = "faint";
		document.querySelector("main").append(button, img, p);
		const sheet = new CSSStyleSheet();
		sheet.replaceSync(".faint { color: #999 !important; background: #aaa !important }");
		document.adoptedStyleSheets.push(sheet);
		return true;
	})()`)
	all := strings.Join(b.violations(script), "\n")
	for _, rule := range []string{"button-name", "image-alt", "color-contrast"} {
		if !strings.Contains(all, rule) {
			b.t.Errorf("axe does not find %s on a page that has it: %q", rule, all)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.said[:0]
	for _, s := range b.said {
		if !strings.Contains(s, "/assets/none.svg") && !strings.Contains(s, "404") {
			kept = append(kept, s)
		}
	}
	b.said = kept
}

// TestThreeClicks: somebody who has never seen the page gets from its front to the cause
// of what is wrong and its evidence in three clicks.
func TestThreeClicks(t *testing.T) {
	b := newBrowserIn(t, newTown(time.Now, 120))
	b.size(1280, 900)
	b.open("/")
	b.settle()
	if got := eval[string](b, `document.querySelector("h1").innerText`); !strings.Contains(got, "need you") {
		t.Fatalf("the front says %q", got)
	}
	// One dead uplink is one line, however many boards are behind it.
	if got := eval[[]string](b, `[...document.querySelectorAll(".causes .what")].map((e) => e.innerText).filter((s) => s.includes("quarry"))`); len(got) != 1 || !strings.HasPrefix(got[0], "All of quarry is cut off") {
		t.Errorf("lines about quarry: %q", got)
	}
	b.do(chromedp.Click(`//p[contains(., "killed by model forklift@7")]/following-sibling::p/a[1]`)) // 1: the board under its cause
	b.until(`location.pathname.startsWith("/boards/") && document.querySelector("h1")?.innerText.includes("killed by model forklift@7")`)
	b.settle()
	if got := eval[string](b, `document.querySelector(".causes").innerText`); !strings.Contains(got, "killed the worker 3 times (out of GPU memory)") {
		t.Errorf("the board's page explains %q", got)
	}
	if got := eval[string](b, `document.querySelector(".chain").innerText`); !strings.Contains(got, "Since then failing") {
		t.Errorf("the chain says %q", got)
	}
	b.do(chromedp.Click(`.crumb a`)) // 2: back, 3: all with that cause
	b.until(`location.pathname === "/" && !!document.querySelector(".causes")`)
	b.settle()
	b.do(chromedp.Click(`//p[contains(., "killed by model forklift@7")]/following-sibling::p/span/a`))
	b.until(`location.search.includes("cause") && !!document.querySelector("[data-matching]")`)
	count := eval[string](b, `document.querySelector("[data-matching]").innerText`)
	if rows := eval[int](b, `document.querySelectorAll('tr[data-state="failing"]').length`); count == "0" || rows == 0 {
		t.Errorf("%s boards match, %d rows", count, rows)
	}
	b.calm()
}

// TestFind types a query, is told of a slip, picks a dot, fills in what is known of a
// board, and sees a change made in one browser window in the other.
func TestFind(t *testing.T) {
	b := newBrowserIn(t, newTown(time.Now, 120))
	b.size(1280, 900)
	b.open("/")
	b.settle()
	b.do(chromedp.KeyEvent("/"))
	b.until(`document.activeElement === document.querySelector("#q")`)
	empty := func() { eval[string](b, `document.querySelector("#q").value = ""`) }
	empty()
	b.do(chromedp.SendKeys("#q", "sate=failing"))
	b.until(`document.querySelector("#counted").innerText.includes("Column 1") && document.querySelector("#counted").innerText.includes("Did you mean")`)
	empty()
	b.do(chromedp.SendKeys("#q", "site=quarry"))
	b.until(`/^\d+ boards match$/.test(document.querySelector("#counted").innerText)`)
	said := eval[string](b, `document.querySelector("#counted").innerText.split(" ")[0]`)
	b.do(chromedp.Click(".query .go"))
	b.until(`document.querySelector("[data-matching]")?.innerText === "` + said + `" && document.querySelectorAll(".boards tbody tr").length === ` + said)
	b.do(chromedp.Click(`.below .menu summary`), chromedp.SendKeys(`.below .menu input[name=name]`, "the quarry"), chromedp.Click(`.below .menu .act`))
	b.until(`document.querySelector(".saved a")?.innerText === "the quarry"`)
	// a dot names its board and leads to it
	eval[bool](b, `(() => {
		const svg = document.querySelector("svg.dots"), r = svg.getBoundingClientRect(), at = {clientX: r.left + 4, clientY: r.top + 4, bubbles: true};
		svg.scrollIntoView();
		const q = svg.getBoundingClientRect();
		at.clientX = q.left + 4; at.clientY = q.top + 4;
		svg.dispatchEvent(new PointerEvent("pointermove", at));
		return true;
	})()`)
	b.until(`!document.querySelector(".float").hidden && document.querySelector(".float").innerText !== ""`)
	name := eval[string](b, `document.querySelector(".float").innerText.split("\n")[0]`)
	if site := b.src.site(name); site != eval[string](b, `document.querySelector(".site figcaption").innerText.split(" ")[0]`) {
		t.Errorf("the dot %s is of %s", name, site)
	}
	b.meta()
	b.calm()
}

// site gives where a board stands.
func (m *memory) site(board string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.boards {
		if m.boards[i].Name == board {
			return m.boards[i].Meta.Site
		}
	}
	return "nowhere"
}

// meta changes what is said of a board while another window looks on.
func (b *browser) meta() {
	t := b.t
	other, cancel := chromedp.NewContext(b.ctx)
	defer cancel()
	second := &browser{t: t, ctx: other, base: b.base, src: b.src, keep: b.keep}
	second.do(chromedp.Navigate("about:blank"))
	second.open("/boards/dock-0001")
	second.settle()
	b.open("/boards/dock-0001")
	b.settle()
	b.do(chromedp.Click("#edit summary"))
	b.do(chromedp.SetValue("#edit input[name=lat]", "95"), chromedp.Click("#edit .act"))
	b.until(`document.querySelector("#w-lat")?.innerText.includes("-90 to 90") && document.querySelector("#edit").open`)
	b.do(chromedp.SetValue("#edit input[name=lat]", "48.2"), chromedp.SetValue("#edit input[name=site]", "hall-9"), chromedp.Click("#edit .act"))
	b.until(`location.hash === "#about" && document.querySelector("#about .facts").innerText.includes("hall-9")`)
	second.until(`document.querySelector("#about .facts").innerText.includes("hall-9")`)
}

// TestAllCounts: headline, chips, causes, dots and rows of one page are of one moment.
func TestAllCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.src = newTown(fixed, 400)
	s.with(viewsOf(s.src))
	body := s.get("/").Body.String()
	ov, _ := s.src.Overview(t.Context(), "main")
	n := map[State]int{}
	for i := range ov.Boards {
		n[ov.Boards[i].State]++
	}
	if got := dotsOf(body); !equalCounts(got, n) {
		t.Errorf("dots %v, boards %v", got, n)
	}
	caused := 0
	for _, part := range strings.Split(body, `data-count="`)[1:] {
		v, _, _ := strings.Cut(part, `"`)
		caused += atoi(v)
	}
	if want := n[StateFailing] + n[StateUnreachable] + n[StateDegraded]; caused != want {
		t.Errorf("the causes have %d boards, %d need somebody", caused, want)
	}
	for st, c := range n {
		if page := s.get("/?q=" + url.QueryEscape("state="+st.Word())).Body.String(); !strings.Contains(page, ">"+words0(c)+"</b> of") {
			t.Errorf("the query of %s does not give %d boards", st, c)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/fleet/web"
	"fulmar/fleet/web/webtest"
)

// TestBrowser drives the pages of rollouts as a person would.
func TestBrowser(t *testing.T) {
	t.Parallel()
	books := newBooks(time.Now())
	h, err := web.New(web.Config{Release: "0.2.0", Zone: time.UTC, Tick: 50 * time.Millisecond, Pages: Pages(Config{Rollouts: books, Problem: problem, Count: counted})}, door{})
	if err != nil {
		t.Fatal(err)
	}
	b := webtest.New(t, h, &http.Cookie{Name: "who", Value: "m.kern:releaser"})
	b.Size(1280, 900)

	b.Open("/rollouts/r-32") // a wave moves on: bar, words and countdown follow without a reload
	webtest.Eval[bool](b, `window.kept = true`)
	books.mu.Lock()
	for i := range books.list {
		if r := &books.list[i]; r.ID == "r-32" {
			r.Waves[1].Counts = map[string]int{"good": 62, "installing": 30, "trial": 6, "unreached": 2}
		}
	}
	books.mu.Unlock()
	b.Until(`[...document.querySelectorAll(".wavecard.now .counts li")].some((e) => e.innerText.trim() === "62 good") && window.kept`)
	b.Do(chromedp.Click(`button[value=pause]`))
	b.Until(`document.querySelector("h1").innerText.includes("is paused")`)
	b.Settle()
	b.Do(chromedp.Click(`#act-abort summary`))
	b.Until(`document.querySelector("#act-abort input[name=why]").checkVisibility()`)
	books.mu.Lock() // somebody else is faster
	for i := range books.list {
		if r := &books.list[i]; r.ID == "r-32" {
			r.Version++
		}
	}
	books.mu.Unlock()
	b.Do(chromedp.SendKeys(`#act-abort input[name=why]`, "wrong base"), chromedp.Evaluate[chromedp.Void](`document.querySelector("#act-abort button").click()`))
	b.Until(`document.querySelector("#faults")?.innerText.includes("Somebody changed it meanwhile") && document.querySelector("#act-abort input[name=why]").value === "wrong base"`)

	b.Open("/rollouts/new")
	b.Do(chromedp.SendKeys(`#f-query`, "site=hall4"))
	b.Until(`document.querySelector(".counted").innerText === "Column 6: no site is called hall4. did you mean hall-4?"`)
	b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#f-query").value = ""`), chromedp.SendKeys(`#f-query`, "site=hall-4"), chromedp.SendKeys(`#f-release`, "1.8.2"))
	b.Until(`document.querySelector(".counted").innerText === "1000 boards match now" || document.querySelector(".counted").innerText === "1,000 boards match now"`)
	b.Shoot("rollout-plan-filled")
	b.Do(chromedp.Click(`button[value=forecast]`))
	b.Until(`document.querySelector("#forecast")?.innerText.includes("1,000 boards in 3 waves")`)
	b.Fits("the forecast")
	b.Shoot("rollout-forecast")
	b.Size(390, 844)
	b.Fits("the forecast on a phone")
	b.Shoot("rollout-forecast-390")
	b.Size(1280, 900)
	b.Do(chromedp.Click(`button[value=create]`))
	b.Until(`location.pathname === "/rollouts/r-41" && document.querySelector("h1").innerText.includes("is planned")`)

	b.Looks([][2]string{
		{"rollouts", "/rollouts"},
		{"rollout-halted", "/rollouts/r-31"},
		{"rollout-running", "/rollouts/r-32"},
		{"rollout-approval", "/rollouts/r-33"},
		{"rollout-held", "/rollouts/r-34"},
		{"rollout-planned", "/rollouts/r-35"},
		{"rollout-done", "/rollouts/r-20"},
		{"rollout-plan", "/rollouts/new"},
	}, nil)
	books.mu.Lock()
	books.list = nil
	books.mu.Unlock()
	b.Open("/rollouts")
	b.Shoot("rollouts-empty")
	b.Quiet([]string{"412"})
	for _, s := range b.Said() {
		if !strings.Contains(s, "412") {
			t.Errorf("console: %s", s)
		}
	}
}

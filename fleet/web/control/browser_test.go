// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/fleet/web"
	"fulmar/fleet/web/webtest"
	"fulmar/schema/rest"
)

// TestBrowser drives the pages as a person would.
func TestBrowser(t *testing.T) {
	t.Parallel()
	p := newParts(time.Now())
	h, err := web.New(web.Config{Release: "0.2.0", Zone: time.UTC, Tick: 50 * time.Millisecond, Pages: Pages(Config{Commands: p, Twins: p, Problem: problem, Count: counted})}, door{})
	if err != nil {
		t.Fatal(err)
	}
	b := webtest.New(t, h, &http.Cookie{Name: "who", Value: "m.kern:operator"})
	b.Size(1280, 900)
	b.Open("/commands/c-3") // boards move on without a reload
	axe := b.Axe()
	webtest.Eval[bool](b, `window.kept = true`)
	p.mu.Lock()
	p.commands[1].Counts = map[string]int{rest.CommandDone: 47, rest.CommandQueued: 2, rest.CommandRefused: 1}
	p.commands[1].Boards[1].State = rest.CommandDone
	p.mu.Unlock()
	b.Until(`document.querySelector("h1").innerText.includes("47 done") && window.kept`)
	b.Do(chromedp.SendKeys(`#f-why`, "wrong hall"), chromedp.Click(`button[value=cancel]`))
	b.Until(`document.querySelector("h1").innerText.includes("cancelled")`)

	b.Open("/commands/new?name=set-valve-position")
	if got := webtest.Eval[string](b, `document.querySelector("#f-args").value`); got != "valve=\npercent=" {
		t.Errorf("the form of a known command begins with %q", got)
	}
	b.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#f-args").value = ""`))
	b.Do(chromedp.SendKeys(`#f-query`, "site=hall-4"), chromedp.SendKeys(`#f-args`, "valve=main\npercent=40"))
	b.Until(`document.querySelector(".counting").innerText === "50 boards match now"`)
	b.Shoot("command-new-filled")
	b.Do(chromedp.Click(`button[value=give]`))
	b.Until(`location.pathname === "/commands/c-new"`)

	b.Open("/conflicts")
	b.Shoot("conflicts-one")
	b.Do(chromedp.Click(`button[value=board]`))
	b.Until(`document.querySelector("h1").innerText === "Board and fleet agree everywhere"`)

	b.Looks([][2]string{
		{"commands", "/commands"},
		{"command-many", "/commands/c-3"},
		{"command-approve", "/commands/c-4"},
		{"command-unknown", "/commands/c-1"},
		{"command-new", "/commands/new"},
		{"control", "/boards/dock-1/control"},
		{"control-new", "/boards/dock-2/control"},
		{"conflicts", "/conflicts"},
	}, axe)
	b.Quiet(nil)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/fleet/web"
	"fulmar/fleet/web/webtest"
)

// TestBrowser drives the page of the audit log as a person would.
func TestBrowser(t *testing.T) {
	t.Parallel()
	b := newBook(time.Now(), 120)
	h, err := web.New(web.Config{Release: "0.2.0", Zone: time.UTC, Tick: 50 * time.Millisecond, Pages: Pages(Config{Log: b, Command: Command})}, door{})
	if err != nil {
		t.Fatal(err)
	}
	p := webtest.New(t, h, &http.Cookie{Name: "role", Value: "operator"})
	p.Size(1280, 900)
	p.Open("/audit")
	axe := p.Axe()
	p.Do(chromedp.SendKeys(`#f-board`, "dock-0017"), chromedp.Click(`.auditfilter .apply`))
	p.Until(`location.search.includes("board=dock-0017") && [...document.querySelectorAll(".log tbody tr")].every((r) => r.innerText.includes("dock-0017"))`)
	p.Looks([][2]string{{"audit", "/audit"}, {"audit-filtered", "/audit?who=m.kern&from=2026-01-01"}, {"audit-none", "/audit?who=nobody"}}, axe)
	b.break1("entry 71 does not follow from entry 70")
	p.Until(`document.querySelector("h1").innerText === "The chain is broken"`) // seen without a reload
	p.Shoot("audit-broken")
	axe("a broken chain")
	p.Quiet(nil)
}

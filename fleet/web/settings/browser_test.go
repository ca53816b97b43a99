// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"fulmar/fleet/web"
	"fulmar/fleet/web/webtest"
	"fulmar/schema/rest"
)

// TestBrowser drives the settings as a person would.
func TestBrowser(t *testing.T) {
	t.Parallel()
	o := newOffice(time.Now())
	h, err := web.New(web.Config{Release: "0.2.0", Zone: time.UTC, Tick: 50 * time.Millisecond, Pages: Pages(all(o))}, door{})
	if err != nil {
		t.Fatal(err)
	}
	b := webtest.New(t, h, &http.Cookie{Name: "who", Value: "m.kern:admin"})
	b.Size(1280, 900)

	b.Open("/settings")
	axe := b.Axe()
	b.Until(`location.pathname === "/settings/account"`)
	b.Open("/settings/tokens")
	b.Do(chromedp.SendKeys(`#f-name`, "robot"), chromedp.SendKeys(`#f-boards`, "site=hall-4"))
	b.Until(`document.querySelector(".counting").innerText === "11 boards match now"`)
	b.Do(chromedp.Click(`button[value=make]`)) // without a right: it comes back with what was typed
	b.Until(`document.querySelector("#f-rights-why")?.innerText === "Choose at least one right." && document.querySelector("#f-name").value === "robot"`)
	b.Shoot("token-refused")
	b.Do(chromedp.Click(`input[value="boards:read"]`), chromedp.Click(`button[value=make]`))
	b.Until(`document.querySelector("#secret")?.innerText === "` + tokenWord + `"`)
	axe("a new token")
	b.Shoot("token-made")
	b.Size(390, 844)
	b.Fits("a new token on a phone")
	b.Size(1280, 900)
	b.Open("/settings/tokens")
	b.Until(`!document.querySelector("#secret")`)

	b.Open("/settings/users")
	b.Do(chromedp.SendKeys(`#f-user`, "m.kern"), chromedp.Click(`button[value=add]`))
	b.Until(`document.querySelector("#f-user-why")?.innerText === "The name is taken." && document.activeElement.id === "f-user"`)
	b.Do(chromedp.SendKeys(`#f-user`, "2"), chromedp.Click(`button[value=add]`))
	b.Until(`document.querySelector("#secret")?.innerText === "` + oneTime + `"`)
	b.Shoot("user-made")

	b.Open("/settings/boards")
	b.Do(chromedp.Click(`.setform .go`))
	b.Until(`document.querySelector("#secret")?.innerText === "` + command + `"`)
	b.Shoot("join-made")

	b.Open("/settings/alerts") // an alert ends: the page follows without a reload
	o.mu.Lock()
	o.alerts = append([]rest.Alert{}, o.alerts[1:]...)
	o.mu.Unlock()
	b.Until(`document.querySelector("h1").innerText === "No alert is firing"`)
	o.mu.Lock()
	o.alerts = newOffice(time.Now()).alerts
	o.mu.Unlock()

	b.Looks([][2]string{
		{"settings-account", "/settings/account"},
		{"settings-alerts", "/settings/alerts?edit=hot"},
		{"settings-webhooks", "/settings/webhooks?hook=h1"},
		{"settings-tokens", "/settings/tokens"},
		{"settings-users", "/settings/users"},
		{"settings-boards", "/settings/boards"},
	}, axe)
	b.Quiet([]string{"409", "422"}, oneTime, tokenWord, hookSecret, "fe1_EXAMPLE")
}

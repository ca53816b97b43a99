// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	. "fulmar/fleet/web"
	"fulmar/internal/axetest"
)

// guarded is a door with a second factor. Its code is always 123456.
type guarded struct {
	*door
	on, half bool
}

func (g *guarded) Login(w http.ResponseWriter, r *http.Request, user, password, code string) error {
	switch {
	case code == "123456" && g.half:
		return g.door.Login(w, r, user, g.password, "")
	case code != "":
		return ErrWrongCode
	case password != g.password:
		return ErrWrongPassword
	case g.on:
		g.half = true
		return ErrCodeWanted
	}
	return g.door.Login(w, r, user, password, "")
}

func (g *guarded) Remembered(*http.Request) string { return "m.kern" }

func (g *guarded) Factor(*http.Request) (bool, int, error) { return g.on, 7, nil }

func (g *guarded) BeginFactor(*http.Request) (key, uri string, err error) {
	key = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	return key, "otpauth://totp/fulmar:m.kern?secret=" + key + "&issuer=fulmar", nil
}

func (g *guarded) ConfirmFactor(_ http.ResponseWriter, _ *http.Request, code string) (recovery []string, err error) {
	if code != "123456" {
		return nil, ErrWrongCode
	}
	g.on = true
	for range 10 {
		recovery = append(recovery, "abcd-efgh-2345-wxyz")
	}
	return recovery, nil
}

func (g *guarded) DropFactor(*http.Request, string, string) error { return ErrWrongPassword }

// TestDoorLooks walks through the door and holds each page of it, light, dark and on a
// phone, to its width and to axe-core.
func TestDoorLooks(t *testing.T) {
	axe := axetest.Script(t)
	b := browse(t, newMemory(time.Now), &guarded{door: &door{password: chosen}})
	look := func(name string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			eval[bool](b, `document.documentElement.dataset.theme = "`+scheme+`"; true`)
			b.size(1280, 900)
			b.fits(name)
			b.axe(axe, name+", "+scheme)
			b.shoot("door-" + name + "-" + scheme)
		}
		b.size(390, 844)
		b.fits(name + " on a phone")
		b.axe(axe, name+" on a phone")
		b.shoot("door-" + name + "-390")
	}
	send := func(id, value string) {
		t.Helper()
		b.do(chromedp.SetValue("#"+id, value), chromedp.Click("button.go"))
	}
	b.open("/second-factor")
	b.until(`location.pathname === "/login" && document.activeElement.id === "password" && document.querySelector("#user").value === "m.kern"`)
	look("login")
	send("password", "guess")
	b.until(`!!document.querySelector(".why")`)
	look("login-wrong")
	send("password", chosen)
	b.until(`location.pathname === "/second-factor"`)
	look("factor-off")
	b.do(chromedp.Click("button.go"))
	b.until(`!!document.querySelector("svg.qr") && document.activeElement.id === "code"`)
	look("factor-scan")
	send("code", "000000")
	b.until(`!!document.querySelector(".why")`)
	look("factor-wrong")
	send("code", "123456")
	b.until(`document.querySelectorAll(".codes li").length === 10`)
	look("factor-codes")
	b.open("/second-factor")
	look("factor-on")
	b.open("/")
	b.do(chromedp.Click(".bar > .in > .menu:last-child summary"))
	b.until(`[...document.querySelectorAll(".menu a")].some((a) => a.getAttribute("href") === "/second-factor")`)
	b.do(chromedp.Click(`form[action="/logout"] button`))
	b.until(`location.pathname === "/login"`)
	send("password", chosen)
	b.until(`!!document.querySelector("#code") && location.pathname === "/login"`)
	look("code")
	send("code", "123456")
	b.until(`location.pathname === "/" && !!document.querySelector(".bar")`)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestPage looks at a running system the way its owner would: logs in with the
// one-time password, chooses a password, and waits for parcels with boxes and for
// the camera's precision. The pictures of it are kept where CI collects them.
func TestPage(t *testing.T) {
	path := "/usr/bin/chromium"
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is not installed; run: cross/need chromium")
		}
		t.Skip("chromium is not installed; run: cross/need chromium")
	}
	s, api, _, _ := site(t)
	arrived(t, api, "snapshot", 3)
	m := regexp.MustCompile(`one-time password[^:]*: (\S+)`).FindStringSubmatch(s.Fleet.Output())
	if m == nil {
		t.Fatal("the fleet printed no one-time password")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.IgnoreCertErrors)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	p := &page{t, ctx}
	p.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate("https://"+s.HTTPS+"/boards/dock-1"))
	p.until(`!!document.querySelector("#password")`)
	p.do(chromedp.SetValue("#user", "admin"), chromedp.SetValue("#password", m[1]), chromedp.Click("button.go"))
	p.until(`!!document.querySelector("#again")`)
	const own = "four words in a row"
	p.do(chromedp.SetValue("#old", m[1]), chromedp.SetValue("#new", own), chromedp.SetValue("#again", own), chromedp.Click("button.go"))
	p.until(`!!document.querySelector("h1") && !document.querySelector("#again")`)
	p.do(chromedp.Navigate("https://" + s.HTTPS + "/boards/dock-1"))
	p.until(`document.querySelector("h1").innerText.includes("dock-1")`)
	p.until(`document.body.innerText.includes("Precision") && document.querySelectorAll("svg rect").length > 3`)
	p.until(`[...document.images].some((i) => i.complete && i.naturalWidth === 640)`)
	before := p.text()
	p.until(`document.body.innerText !== ` + quote(before)) // it lives without a reload
	p.shoot("board")
	p.do(chromedp.Navigate("https://" + s.HTTPS + "/detections"))
	p.until(`document.querySelectorAll("img").length >= 3`)
	p.shoot("detections")
	p.do(chromedp.EmulateViewport(390, 844), chromedp.Navigate("https://"+s.HTTPS+"/"))
	p.until(`!!document.querySelector("h1")`)
	p.shoot("phone")
}

type page struct {
	t   *testing.T
	ctx context.Context
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *page) text() string {
	p.t.Helper()
	s, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
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

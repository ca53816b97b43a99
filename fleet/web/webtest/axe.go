// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package webtest

import (
	"os"

	"github.com/chromedp/chromedp"
)

// Axe holds the page to axe-core, the file of which FULMAR_AXE names; without it the page
// is not held to anything. What is serious or worse fails the test.
func (b *Browser) Axe(name string) {
	b.T.Helper()
	path := os.Getenv("FULMAR_AXE")
	if path == "" {
		return
	}
	src, err := os.ReadFile(path)
	if err != nil {
		b.T.Fatal(err)
	}
	b.Do(chromedp.Evaluate[chromedp.Void](string(src) + ";0"))
	b.Do(chromedp.Evaluate[chromedp.Void](`window.axeSaid = null; axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}).then((r) => { window.axeSaid = r.violations.map((v) => v.impact + " " + v.id + ": " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + n.failureSummary.slice(0, 200)).join(" | ")); }); 0`))
	b.Until(`!!window.axeSaid`)
	for _, s := range Eval[[]string](b, `window.axeSaid`) {
		b.T.Errorf("%s: %s", name, s)
	}
}

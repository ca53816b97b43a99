// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package webtest

import (
	"github.com/chromedp/chromedp"

	"fulmar/internal/axetest"
)

// Axe gives a check of the page that is shown against axe-core: what is serious or worse
// fails the test. It first sees whether axe-core finds what is wrong at all.
func (b *Browser) Axe() func(what string) {
	b.T.Helper()
	script := axetest.Script(b.T)
	found := func() []string {
		b.T.Helper()
		b.Do(chromedp.Evaluate[chromedp.Void](script + ";0"))
		list, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](axetest.Run, chromedp.EvalAwaitPromise))
		if err != nil {
			b.T.Fatal(err)
		}
		return list
	}
	Eval[bool](b, `{ const x = document.createElement("button"); x.id = "nameless"; document.querySelector("main").append(x); true }`)
	if len(found()) == 0 {
		b.T.Error("axe-core finds nothing wrong with a button without a name: it sees nothing")
	}
	Eval[bool](b, `document.getElementById("nameless").remove(), true`)
	return func(what string) {
		b.T.Helper()
		for _, s := range found() {
			b.T.Errorf("%s: axe-core: %s", what, s)
		}
	}
}

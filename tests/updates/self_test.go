// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"strings"
	"testing"
	"time"

	"fulmar/tests/local"
)

const quiet = "infer: {mode: \"off\"}\n"

// TestItself: fulmard brings itself from 1.0 to 2.0 out of a bundle, then goes back from
// each version that is broken, and the fleet is told why.
func TestItself(t *testing.T) {
	t.Parallel() // they mostly wait
	w := newWorld(t, local.Board{NoInfer: true, Extra: quiet})
	begin := time.Now()
	out, code := w.ota("install-bundle", w.bundle("2.0", "agent", w.agent("2.0", "good"), "2.0", "within=90s,hold=5s"), "--watch")
	if code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	t.Logf("1.0 to 2.0 in %v\n%s", time.Since(begin).Round(time.Second), out)
	w.unit.runs("2.0", 10*time.Second)
	w.told("update/agent", "committed", "rollout local")
	w.told("slot", "confirmed", "2.0")
	for _, c := range []struct{ wrong, health, why string }{
		{"exits", "within=90s,hold=5s", "launcher"},
		{"hangs", "within=90s,hold=5s", "launcher"},
		{"crashes", "within=90s,hold=30s", "launcher"},
		{"eats", "within=90s,hold=60s", "memory"},
		{"deafens", "within=30s,hold=5s", "link"},
	} {
		begin := time.Now()
		version := "3.0~" + c.wrong
		out, code := w.ota("install-bundle", w.bundle("3."+c.wrong, "agent", w.agent(version, c.wrong), version, c.health), "--watch")
		if code != 23 || !strings.Contains(out, c.why) {
			t.Errorf("%s: %d, wants 23 with %q\n%s", c.wrong, code, c.why, out)
		}
		w.unit.runs("2.0", 20*time.Second)
		t.Logf("%s: back on 2.0 after %v", c.wrong, time.Since(begin).Round(time.Second))
		w.told("update/agent", "rolled-back", c.why)
	}
	out, _ = w.ota("history", "-o", "wide")
	t.Logf("\n%s", out)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package planform

import (
	"testing"
)

// TestFieldOf: each pointer that a plan is refused with leads to a field of the form.
func TestFieldOf(t *testing.T) {
	t.Parallel()
	for pointer, want := range map[string]string{
		"/component": "component", "/gate/gate": "gate", "/waves": "w0size", "/waves/0": "w0size", "/waves/4/soak_s": "w4soak", "/waves/1/unclear": "w1unclear", "/waves/1/percent": "w1size",
		"/guards/2/name": "g2name", "/guards/0/slack": "g0expr", "/windows/1/zone": "v1zone", "/windows/0": "v0from", "/limits/trial_s": "trial_min", "/shadow/agreement/expr": "agree",
		"/waves/5": "", "/guards/9/name": "", "/after/0": "after", "/nothing": "", "": "", "/waves/10": "",
	} {
		if got := FieldOf(pointer); got != want {
			t.Errorf("%s is the field %q, want %q", pointer, got, want)
		}
	}
}

// FuzzPlan: whatever is typed, a plan comes out that keeps its bounds, or a word beside a
// field; and a problem that points anywhere finds a field of the form or none.
func FuzzPlan(f *testing.F) {
	f.Add("w0size", "2 %", "/waves/0/soak_s")
	f.Add("gate", "1e308", "/guards/9/name")
	f.Add("v0days", "mon,tue", "/windows/1/")
	f.Add("bytes", "999999.9", "/waves/")
	f.Fuzz(func(t *testing.T, name, value, pointer string) {
		fm := Blank()
		fm.Set("component", "agent")
		fm.Set("release", "1")
		fm.Set(name, value)
		s := Read(fm)
		if !fm.OK() {
			return
		}
		if s.Gate.Gate <= 0 || s.Gate.Gate > 1 || s.Bytes < 0 || s.FleetRate < 0 || len(s.Waves) > Waves || len(s.Query) > MaxExpr {
			t.Errorf("%q=%q: %+v", name, value, s)
		}
		for i, w := range s.Waves {
			if w.Percent < 0 || w.Percent > 100 || w.Count < 0 || w.SoakS < 0 || (w.Percent == 0) == (w.Count == 0) {
				t.Errorf("%q=%q: wave %d is %+v", name, value, i, w)
			}
		}
		if _, err := Mark(s); err != nil {
			t.Errorf("%q=%q: %v", name, value, err)
		}
		_ = FieldOf(pointer)
	})
}

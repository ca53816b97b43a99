// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package interlock

import (
	"math"
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	values := map[string]float64{"a": 1, "b": 2, "temp.tj": 95, "x-y/z": -3, "nan": math.NaN()}
	for when, want := range map[string]string{
		"a == 1": "yes", "a<1": "no", "a <= 1": "yes", "a>=2": "no", "a != 1": "no", "b>1.5": "yes",
		"temp.tj > 95": "no", "temp.tj>94.9": "yes", "x-y/z < -2": "yes", "a==1e0": "yes",
		"a == 2 and b == 2": "no", "a == 2 or b == 2": "yes",
		"a == 1 or a == 9 and b == 9": "yes", "a == 9 and b == 9 or a == 1": "yes", "a == 9 or a == 1 and b == 9": "no",
		// What is not known is so whatever the rest says.
		"gone > 1": "gone", "a == 1 or gone > 1": "gone", "a == 2 and gone > 1": "gone", "nan < 1": "nan",
	} {
		c, err := Parse(when)
		if err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		holds, unknown := c.Holds(func(n string) (float64, bool) { v, ok := values[n]; return v, ok })
		got := map[bool]string{true: "yes", false: "no"}[holds]
		if unknown != "" {
			got = unknown
		}
		if got != want {
			t.Errorf("%s: %s, wants %s", when, got, want)
		}
	}
	for _, when := range []string{
		"", " ", "a", "a >", "> 1", "a > b", "a = 1", "a => 1", "a > 1 and", "a > 1 or", "a > 1 b < 2", "a > 1 xor b < 2", "A > 1",
		"a > NaN", "a > Inf", "a > 1e999", "and > 1 and", "(a > 1)", "a > 1;", strings.Repeat("a > 1 and ", 30) + "a > 1", strings.Repeat("a>1 or ", 16) + "a>1",
	} {
		if _, err := Parse(when); err == nil {
			t.Errorf("%q was taken", when)
		}
	}
}

func FuzzCondition(f *testing.F) {
	f.Add("temp.tj > 95 and output.valve == 0 or safety != 0")
	f.Add("a<=-1e3")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			return
		}
		if n := len(c.Names()); n == 0 || n > maxComparisons {
			t.Errorf("%q has %d comparisons", s, n)
		}
		if holds, unknown := c.Holds(func(string) (float64, bool) { return 0, false }); holds || unknown == "" {
			t.Errorf("%q holds where nothing is known", s)
		}
	})
}

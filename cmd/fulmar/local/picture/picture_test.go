// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package picture

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"fulmar/schema/onboard"
)

func board() *Picture {
	forty, hundred := 40.0, 100.0
	at := time.Date(2026, 11, 26, 19, 4, 5, 0, time.UTC)
	return &Picture{
		Paint: func(_, w string) string { return w },
		State: onboard.State{
			Board: "dock-1", Tenant: "acme", Release: "1.2.3", At: at, You: onboard.You{User: "anna", Role: onboard.RoleOperator},
			Link:     onboard.Link{State: "waiting", For: 1020, Error: "no route\x1b[2J to host"},
			Autonomy: &onboard.Autonomy{State: "alone", For: 1020, Leases: []onboard.Lease{{Name: "valves", Left: 2580, Then: "safe"}}},
			Safety:   &onboard.Safety{Active: true, For: 61, By: "local/anna: smoke"}, Conflicts: 2, Causes: []string{"camera cam0: no picture"},
			Outputs: []onboard.Output{
				{Name: "main", Kind: "gpio", Unit: "%", Value: &forty, Min: new(float64), Max: &hundred, Safe: new(float64), State: "ok"},
				{Name: "pump", Kind: "modbus", State: "failed", Why: "the device does not answer since the last three tries"},
			},
			Rules: []onboard.Rule{{Name: "leak", State: "armed", For: 60, Fired: 2}},
		},
		Log: []onboard.Entry{
			{Step: onboard.Step{Name: "flush", State: "running", Percent: 30}, Actor: "local/anna", Given: at},
			{Step: onboard.Step{Name: "set-valve-position", State: "done", Final: true}, Actor: "fleet", By: "bob", Reason: "leak in hall 4, water on the floor", Given: at.AddDate(0, -1, 0)},
		},
	}
}

// TestWidths: no line is wider than the terminal, on any; what matters stays on narrow ones.
func TestWidths(t *testing.T) {
	t.Parallel()
	for width := minWidth; width <= 200; width++ {
		p := board()
		p.Width = width
		all := p.Lines()
		for _, l := range all {
			if utf8.RuneCountInString(l) > width || strings.TrimRight(l, " ") != l {
				t.Errorf("%d columns: %q", width, l)
			}
		}
		text := strings.Join(all, "\n")
		for _, must := range []string{"dock-1", "link ", "alone for 17", "SHUT DOWN", "main", "40 %", "pump", "not known", "leak", "flush"} {
			if !strings.Contains(text, must) {
				t.Errorf("%d columns lack %q:\n%s", width, must, text)
			}
		}
		if strings.ContainsRune(text, 0x1b) {
			t.Errorf("%d columns: what the board says steers the terminal", width)
		}
	}
}

// TestWide is the picture of a wide terminal.
func TestWide(t *testing.T) {
	t.Parallel()
	p := board()
	p.Width = 120
	got := strings.Join(p.Lines()[1:], "\n")
	want := `link      waiting for 17 min: no route?[2J to host
autonomy  alone for 17 min: the board decides
          valves for 43 min more, then safe
safety    SHUT DOWN for 61 s, by local/anna: smoke: outputs stay in their safe states
conflicts 2 keys wait for a person: fulmar local conflicts
cause     camera cam0: no picture

OUTPUT  AT         STATE   RANGE   SAFE  KIND    WHY
main    40 %       ok      0..100  0     gpio
pump    not known  failed                modbus  the device does not answer since the last three tries

RULE  STATE  FOR   FIRED
leak  armed  60 s  2

`
	if !strings.HasPrefix(got, want) || !strings.Contains(got, "running 30 %  local/anna") || !strings.Contains(got, "bob (fleet)  leak in hall 4, water on the floor") {
		t.Errorf("\n%s\nwants\n%s", got, want)
	}
}

// TestEmpty: a board that was told nothing is drawn too.
func TestEmpty(t *testing.T) {
	t.Parallel()
	p := &Picture{Width: 80, Paint: func(_, w string) string { return w }}
	if l := p.Lines(); len(l) != 4 || !strings.HasPrefix(l[0], "a board without a name") {
		t.Errorf("%q", l)
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for s, want := range map[int64]string{0: "0 s", 119: "119 s", 120: "2 min", 7199: "119 min", 7200: "2 h 0 min", 200000: "2 d"} {
		if got := Span(s); got != want {
			t.Errorf("%d: %s, want %s", s, got, want)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/device"
	"fulmar/device/output"
	"fulmar/device/schedule"
	"fulmar/inference/worker"
	"fulmar/ota"
	"fulmar/schema"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWindows(t *testing.T) {
	t.Parallel()
	ws, err := ParseWindows([]string{"mon-fri 22:00-04:00", "sun 00:00-24:00", "12:00-12:30"})
	if err != nil {
		t.Fatal(err)
	}
	for when, open := range map[string]bool{ // 2026-11-23 is a Monday
		"2026-11-23 21:59": false, "2026-11-23 22:00": true, "2026-11-24 03:59": true, "2026-11-24 04:00": false,
		"2026-11-28 03:59": true, "2026-11-28 22:30": false, "2026-11-29 00:00": true, "2026-11-29 23:59": true,
		"2026-11-30 00:00": false, "2026-11-28 12:29": true, "2026-11-28 12:30": false, "2026-11-23 03:00": false,
	} {
		if got := ws.Open(at(t, when)); got != open {
			t.Errorf("%s: %v", when, got)
		}
	}
	if next := ws.Next(at(t, "2026-11-28 13:00")); next != at(t, "2026-11-29 00:00") {
		t.Error(next)
	}
	if !Windows(nil).Open(at(t, "2026-11-28 13:00")) {
		t.Error("no windows is always")
	}
	for _, bad := range []string{"", "mon", "mon 22:00", "22:00-22:00", "22:00-25:00", "monday 1:00-2:00", "mon 1:00-2:00 x", "24:00-01:00"} {
		if _, err := ParseWindows([]string{bad}); err == nil || !strings.Contains(err.Error(), "[0]") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzWindows(f *testing.F) {
	f.Add("mon-fri 22:00-04:00")
	f.Add("sat,sun 00:00-24:00")
	f.Fuzz(func(t *testing.T, s string) {
		ws, err := ParseWindows([]string{s})
		if err != nil {
			return
		}
		if now := time.Unix(1e9, 0).UTC(); !ws.Open(ws.Next(now)) {
			t.Errorf("%q never opens", s)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	root := func(files map[string]string) device.Root {
		dir := t.TempDir()
		for p, text := range files {
			p = filepath.Join(dir, "sys/class/power_supply", p)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return device.NewRoot(dir)
	}
	low := map[string]string{"bat0/type": "Battery", "bat0/capacity": "20", "bat0/status": "Discharging"}
	loaded := map[string]string{"bat0/type": "Battery", "bat0/capacity": "20", "bat0/status": "Charging"}
	pen := map[string]string{"pen/type": "Battery", "pen/scope": "Device", "pen/capacity": "1", "pen/status": "Discharging", "ac/type": "Mains"}
	night, err := ParseWindows([]string{"22:00-04:00"})
	if err != nil {
		t.Fatal(err)
	}
	reading := func(series string, v float64) *schedule.Latest {
		l := schedule.NewLatest(schema.BootClock(1))
		l.Put(series, v, schema.QualityGood, schema.BootClock(1).Now().Mono)
		return l
	}
	for name, c := range map[string]struct {
		b             Board
		begin, change string // what the refusal begins with, "" none
	}{
		"nothing":             {Board{Root: root(nil)}, "", ""},
		"held":                {Board{Root: root(nil), Hold: time.Hour}, "window", "window"},
		"hot":                 {Board{Root: root(nil), Rules: Rules{MaxCelsius: 90}, Latest: reading("thermal.tj_celsius", 95)}, "temperature", "temperature"},
		"warm":                {Board{Root: root(nil), Rules: Rules{MaxCelsius: 90}, Latest: reading("thermal.tj_celsius", 85)}, "", ""},
		"throttled":           {Board{Root: root(nil), Latest: reading("throttle.active_count", 1)}, "temperature", "temperature"},
		"low battery":         {Board{Root: root(low), Rules: Rules{MinBattery: 40}}, "power", "power"},
		"a battery charged":   {Board{Root: root(loaded), Rules: Rules{MinBattery: 40}}, "", ""},
		"a pen's battery":     {Board{Root: root(pen), Rules: Rules{MinBattery: 40}}, "", ""},
		"another power mode":  {Board{Root: root(nil), PowerMode: "MAXN", Rules: Rules{PowerModes: []string{"15w"}}}, "power", "power"},
		"the power mode":      {Board{Root: root(nil), PowerMode: "15W", Rules: Rules{PowerModes: []string{"15w"}}}, "", ""},
		"by day":              {Board{Root: root(nil), Rules: Rules{Windows: night}, Told: true, Now: at(t, "2026-11-23 10:00")}, "", "window"},
		"by night":            {Board{Root: root(nil), Rules: Rules{Windows: night}, Told: true, Now: at(t, "2026-11-23 23:00")}, "", ""},
		"a clock of 1970":     {Board{Root: root(nil), Rules: Rules{Windows: night}, Now: at(t, "1970-01-01 23:00")}, "", "window"},
		"an output moves":     {Board{Root: root(nil), Outputs: []output.State{{Name: "v", State: output.StateMoving}}}, "", "busy"},
		"a safety shutdown":   {Board{Root: root(nil), Safety: "rule/hot"}, "", "busy"},
		"an engine is built":  {Board{Root: root(nil), Models: []worker.ModelStatus{{Name: "m", Build: "building, 40 %"}}}, "", "busy"},
		"an engine was built": {Board{Root: root(nil), Models: []worker.ModelStatus{{Name: "m", Build: "no room"}}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := word(c.b.Ask("agent", ota.ToFetch)); got != c.begin {
				t.Errorf("to fetch: %q, wants %q", got, c.begin)
			}
			if got := word(c.b.Ask("agent", ota.ToSwitch)); got != c.change {
				t.Errorf("to switch: %q, wants %q", got, c.change)
			}
			want := c.change
			if want == "window" {
				want = ""
			}
			if got := word(c.b.Ask("agent", ota.ToGoBack)); got != want {
				t.Errorf("to go back: %q, wants %q", got, want)
			}
		})
	}
}

// word is the reason of the only refusal; every one has a sentence and passes.
func word(rs []ota.Refusal) string {
	if len(rs) == 0 {
		return ""
	}
	if len(rs) > 1 || rs[0].Text == "" || !rs[0].Passes {
		return "no sentence, or several"
	}
	return rs[0].Reason
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package admit tells whether a board may be disturbed now: by its hours of maintenance, a
// person's hold, heat and power, and work that must not be cut.
package admit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/device"
	"fulmar/device/output"
	"fulmar/device/schedule"
	"fulmar/inference/worker"
	"fulmar/ota"
	"fulmar/schema"
	wire "fulmar/schema/ota"
)

// stale is how old a reading may be to count: the slowest groups of sensors run each minute.
const stale = 5 * time.Minute

// Rules are what the config says.
type Rules struct {
	Windows    Windows  // none: at any time
	MaxCelsius float64  // hotter than that: not now; 0: no bound
	PowerModes []string // names of nvpmodel's in which it may; none: in any
	MinBattery int      // per cent, while nothing charges it
}

// Board is how a board is now.
type Board struct {
	Rules Rules
	// Now is the time of day, and Told whether it is to be believed: windows are closed
	// where it is not.
	Now  time.Time
	Told bool
	Hold time.Duration // how long a person wants no update; 0: none does
	Root device.Root
	// PowerMode is that of nvpmodel, "" unknown.
	PowerMode string
	Latest    *schedule.Latest
	Outputs   []output.State
	Safety    string // who shut down what the board moves; "" nobody
	Models    []worker.ModelStatus
}

// Ask tells what speaks against what an update is about to do; it passes by waiting, all
// of it. To be fetched is held off by a person, by power and by heat; to be put in force also by
// the windows, and by work that it would cut. What the fleet takes back does not wait for
// hours or people.
func (b *Board) Ask(component string, m ota.Moment) (out []ota.Refusal) {
	if b.Hold > 0 && m != ota.ToGoBack {
		out = append(out, later(wire.Window, "a person at the board wants no update for %v more (fulmar ota hold)", b.Hold.Round(time.Minute)))
	}
	out = append(append(out, b.power()...), b.heat()...)
	if m == ota.ToFetch {
		return out
	}
	if len(b.Rules.Windows) > 0 && m == ota.ToSwitch {
		switch {
		case !b.Told:
			out = append(out, later(wire.Window, "the time of day is not known here, and updates.windows asks for it; it comes with the link"))
		case !b.Rules.Windows.Open(b.Now):
			out = append(out, later(wire.Window, "it is %s; updates.windows opens %s", b.Now.Format("Mon 15:04"), b.Rules.Windows.Next(b.Now).Format("Mon 15:04")))
		}
	}
	return append(out, b.busy(component)...)
}

func (b *Board) busy(component string) (out []ota.Refusal) {
	if b.Safety != "" {
		out = append(out, later(wire.Busy, "a safety shutdown is latched (%s); a person releases it first", b.Safety))
	}
	for _, o := range b.Outputs {
		if o.State == output.StateMoving {
			out = append(out, later(wire.Busy, "output %s is on its way", o.Name))
		}
	}
	if component == "config" {
		return out
	}
	for _, m := range b.Models {
		if strings.HasPrefix(m.Build, "building") {
			out = append(out, later(wire.Busy, "an engine of model %s is being built: %s", m.Name, m.Build))
		}
	}
	return out
}

func (b *Board) heat() (out []ota.Refusal) {
	if b.Latest == nil {
		return out
	}
	for _, r := range b.Latest.All() {
		kind, _, _ := strings.Cut(r.Series, ".")
		if r.Age > stale || r.Quality != schema.QualityGood {
			continue
		}
		switch {
		case kind == "thermal" && strings.HasSuffix(r.Series, "_celsius") && b.Rules.MaxCelsius > 0 && r.Value > b.Rules.MaxCelsius:
			out = append(out, later(wire.Temperature, "%s is at %.0f, updates.max_celsius is %.0f", r.Series, r.Value, b.Rules.MaxCelsius))
		case r.Series == "throttle.active_count" && r.Value > 0:
			out = append(out, later(wire.Temperature, "the board throttles: %.0f alerts are on", r.Value))
		}
	}
	return out
}

func (b *Board) power() (out []ota.Refusal) {
	if len(b.Rules.PowerModes) > 0 && b.PowerMode != "" && !slices.ContainsFunc(b.Rules.PowerModes, func(s string) bool { return strings.EqualFold(s, b.PowerMode) }) {
		out = append(out, later(wire.Power, "power mode %s; updates.power_modes wants %s", b.PowerMode, strings.Join(b.Rules.PowerModes, ", ")))
	}
	for _, c := range batteries(b.Root) {
		if c.percent < b.Rules.MinBattery && !c.charging {
			out = append(out, later(wire.Power, "battery %s is at %d %% and not charged; updates.min_battery is %d", c.name, c.percent, b.Rules.MinBattery))
		}
	}
	return out
}

func later(reason, form string, args ...any) ota.Refusal {
	return ota.Refusal{Reason: reason, Text: fmt.Sprintf(form, args...), Passes: true}
}

// battery is one that the board runs from.
type battery struct {
	name     string
	percent  int
	charging bool
}

const supplies = "sys/class/power_supply"

// batteries finds those of the board; a battery of a mouse or pen is none.
func batteries(root device.Root) (out []battery) {
	names, err := root.List(supplies)
	if err != nil {
		return nil
	}
	for _, n := range names[:min(len(names), 16)] {
		text := func(what string) string {
			b, err := root.ReadOnce(supplies+"/"+n+"/"+what, 64)
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(b))
		}
		if text("type") != "Battery" || text("scope") == "Device" || text("present") == "0" {
			continue
		}
		c := battery{name: n}
		if _, err := fmt.Sscan(text("capacity"), &c.percent); err != nil {
			continue
		}
		s := text("status")
		c.charging = s == "Charging" || s == "Full" || s == "Not charging"
		out = append(out, c)
	}
	return out
}

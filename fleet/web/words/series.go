// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package words

import (
	"slices"
	"strings"
)

// Unit is the unit at the end of a series' name.
type Unit string

// The units that are known; another ending is part of the name.
const (
	UnitNone           Unit = ""
	UnitCelsius        Unit = "celsius"
	UnitPercent        Unit = "percent"
	UnitBytes          Unit = "bytes"
	UnitBytesPerSecond Unit = "bytes_per_second"
	UnitPerSecond      Unit = "per_second"
	UnitHertz          Unit = "hertz"
	UnitWatts          Unit = "watts"
	UnitVolts          Unit = "volts"
	UnitAmperes        Unit = "amperes"
	UnitRPM            Unit = "rpm"
	UnitSeconds        Unit = "seconds"
	UnitActive         Unit = "active"
	UnitCount          Unit = "count"
)

// units are tried in this order: a longer ending before the one it ends in.
func units() []Unit {
	return []Unit{
		UnitBytesPerSecond, UnitPerSecond, UnitCelsius, UnitPercent, UnitBytes, UnitHertz, UnitWatts,
		UnitVolts, UnitAmperes, UnitRPM, UnitSeconds, UnitActive, UnitCount,
	}
}

// maxLines is how many lines one chart has: more cannot be told apart.
const maxLines = 6

// kind is one card of sensors.
type kind struct {
	title string
	// prefixes are the first words of the series that belong here.
	prefixes []string
	// unit is what the chart draws; series of other units are listed below it.
	unit Unit
	// lead are the series drawn first and named in full.
	lead []string
	// skip are endings that are listed and never drawn.
	skip []string
}

// kinds are the cards in the order of the page; the last one takes the rest.
func kinds() []kind {
	return []kind{
		{title: "Temperatures", prefixes: []string{"thermal", "hwmon"}, unit: UnitCelsius},
		{title: "CPU", prefixes: []string{"cpu", "cpufreq"}, unit: UnitPercent, lead: []string{"cpu.load_percent", "cpu.user_percent", "cpu.system_percent"}, skip: []string{"irq_percent", "steal_percent"}},
		{title: "GPU", prefixes: []string{"gpu"}, unit: UnitPercent},
		{title: "Memory", prefixes: []string{"memory"}, unit: UnitPercent, lead: []string{"memory.used_percent"}},
		{title: "Network", prefixes: []string{"net"}, unit: UnitBytesPerSecond},
		{title: "Disk", prefixes: []string{"disk", "mount"}, unit: UnitBytesPerSecond},
		{title: "Power", prefixes: []string{"power"}, unit: UnitWatts, lead: []string{"power.total_watts", "power.sum_watts"}},
		{title: "Load", prefixes: []string{"load", "host"}, unit: UnitNone, lead: []string{"load.1m", "load.5m", "load.15m"}},
		{title: "Waiting for resources", prefixes: []string{"pressure"}, unit: UnitPercent},
		{title: "Fan and throttling", prefixes: []string{"fan", "throttle"}, unit: UnitPercent},
		{title: "fulmard itself", prefixes: []string{"process"}, unit: UnitPercent},
		{title: "Other sensors", unit: UnitNone},
	}
}

// ParseSeries takes a series' name apart: first word, what it is called on a card
// that already says the first word, and its unit.
func ParseSeries(name string) (prefix, label string, u Unit) {
	prefix, label, ok := strings.Cut(name, ".")
	if !ok {
		prefix, label = "", name
	}
	for _, x := range units() {
		if rest, ok := strings.CutSuffix(label, "_"+string(x)); ok {
			label, u = rest, x
			break
		}
		if label == string(x) {
			u = x
			break
		}
	}
	return prefix, strings.NewReplacer(".", " ", "_", " ", "/", " ").Replace(label), u
}

// Line is one series on a card.
type Line struct {
	Series string
	Label  string
	Unit   Unit
	Index  int // colour of its line; -1: listed only
}

// Card is the series of one kind on one board.
type Card struct {
	Title   string
	Unit    Unit
	Lines   []Line // those drawn, then those listed
	Plotted int
}

// Cards sorts a board's series into cards.
func Cards(series []string) []Card {
	ks := kinds()
	out := make([]Card, len(ks))
	for i, k := range ks {
		out[i] = Card{Title: k.title, Unit: k.unit}
	}
	for _, name := range series {
		p, label, u := ParseSeries(name)
		i := slices.IndexFunc(ks, func(k kind) bool { return slices.Contains(k.prefixes, p) })
		if i < 0 {
			i = len(ks) - 1
			label = strings.TrimSpace(p + " " + label)
		} else if len(ks[i].prefixes) > 1 && p != ks[i].prefixes[0] {
			label = p + " " + label
		}
		out[i].Lines = append(out[i].Lines, Line{Series: name, Label: label, Unit: u, Index: -1})
	}
	for i := range out {
		out[i].arrange(ks[i])
	}
	return slices.DeleteFunc(out, func(c Card) bool { return len(c.Lines) == 0 })
}

// arrange orders a card: leads, other drawn ones, the rest; each by name.
func (c *Card) arrange(k kind) {
	rank := func(l Line) int {
		if i := slices.Index(k.lead, l.Series); i >= 0 {
			return i
		}
		draws := k.prefixes != nil && l.Unit == k.unit && !strings.HasPrefix(l.Label, "core")
		for _, s := range k.skip {
			draws = draws && !strings.HasSuffix(l.Series, s)
		}
		if draws {
			return 100
		}
		return 200
	}
	slices.SortStableFunc(c.Lines, func(a, b Line) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return natural(a.Label, b.Label)
	})
	for i := range c.Lines {
		if i < maxLines && rank(c.Lines[i]) < 200 {
			c.Lines[i].Index = i
			c.Plotted = i + 1
		}
	}
}

// natural compares names so that core2 comes before core10.
func natural(a, b string) int {
	digits := func(s string) int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	for a != "" && b != "" {
		if na, nb := digits(a), digits(b); na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if d := strings.Compare(x, y); d != 0 {
				return d
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

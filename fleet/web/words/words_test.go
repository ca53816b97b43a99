// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package words

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestQuantity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    float64
		u    Unit
		want string
	}{
		{61.24, UnitCelsius, "61.2 °C"},
		{-0.04, UnitCelsius, "0.0 °C"},
		{-12.5, UnitCelsius, "-12.5 °C"},
		{3.44, UnitPercent, "3.4 %"},
		{9.96, UnitPercent, "10 %"},
		{97.4, UnitPercent, "97 %"},
		{0, UnitBytes, "0 B"},
		{1023, UnitBytes, "1,023 B"},
		{1024, UnitBytes, "1.00 KiB"},
		{16409286656, UnitBytes, "15.3 GiB"},
		{1024*1024 - 1, UnitBytes, "1.00 MiB"},
		{999, UnitBytesPerSecond, "999 B/s"},
		{1.2e6, UnitBytesPerSecond, "1.20 MB/s"},
		{-48200, UnitBytesPerSecond, "-48.2 kB/s"},
		{1.98e9, UnitHertz, "1.98 GHz"},
		{918e6, UnitHertz, "918 MHz"},
		{14.25, UnitWatts, "14.2 W"},
		{19.024, UnitVolts, "19.02 V"},
		{2310, UnitRPM, "2,310 rpm"},
		{1.06e6, UnitSeconds, "12 d 6 h"},
		{3.2, UnitPerSecond, "3.20 /s"},
		{1, UnitActive, "yes"},
		{0, UnitActive, "no"},
		{1234567, UnitCount, "1,234,567"},
		{2.1, UnitNone, "2.10"},
	} {
		if got := strings.ReplaceAll(Quantity(c.v, c.u), nb, " "); got != c.want {
			t.Errorf("Quantity(%v, %q) = %q, want %q", c.v, c.u, got, c.want)
		}
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 4182330: "4,182,330", math.MaxUint64: "18,446,744,073,709,551,615"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	if got := Plural(1, "board", "boards") + ", " + Plural(1200, "board", "boards"); got != "1 board, 1,200 boards" {
		t.Error(got)
	}
}

// TestShare holds that 100 % means all and 0 % none: nothing is rounded up.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		part, whole uint64
		want        string
	}{{0, 0, "none yet"}, {3, 3, "100 %"}, {9999, 10000, "99.9 %"}, {221, 226, "97.7 %"}, {0, 5, "0.0 %"}} {
		if got := strings.ReplaceAll(Share(c.part, c.whole), nb, " "); got != c.want {
			t.Errorf("Share(%d, %d) = %q, want %q", c.part, c.whole, got, c.want)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "now", time.Second: "now", 12 * time.Second: "12 s ago", 89 * time.Second: "89 s ago", 90 * time.Second: "1 min ago",
		89 * time.Minute: "89 min ago", 2 * time.Hour: "2 h ago", 36 * time.Hour: "1 d ago", 100 * 24 * time.Hour: "100 d ago",
	} {
		if got := strings.ReplaceAll(Age(d), nb, " "); got != want {
			t.Errorf("Age(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min", 125 * time.Minute: "2 h 5 min", 26 * time.Hour: "1 d 2 h", 48 * time.Hour: "2 d",
	} {
		if got := strings.ReplaceAll(Span(d), nb, " "); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 21, 0, 30, 0, 0, zone)
	for _, c := range []struct {
		at   time.Time
		want string
	}{{now.Add(-time.Minute), "00:29:00"}, {now.Add(-time.Hour), "2026-11-20 23:30:00"}, {time.Time{}, "unknown"}} {
		if got := Stamp(c.at, now.UTC()); got != c.want {
			t.Errorf("Stamp(%v) = %q, want %q", c.at, got, c.want)
		}
	}
}

func TestParseSeries(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][3]string{
		"thermal.cpu_celsius":                {"thermal", "cpu", "celsius"},
		"disk.nvme0n1.read_bytes_per_second": {"disk", "nvme0n1 read", "bytes_per_second"},
		"net.eth0.errors_per_second":         {"net", "eth0 errors", "per_second"},
		"load.1m":                            {"load", "1m", ""},
		"plain":                              {"", "plain", ""},
		"throttle.cpu_active":                {"throttle", "cpu", "active"},
	} {
		p, l, u := ParseSeries(name)
		if got := [3]string{p, l, string(u)}; got != want {
			t.Errorf("ParseSeries(%q) = %q, want %q", name, got, want)
		}
	}
}

// TestCards: every series is on exactly one card, whatever it is called.
func TestCards(t *testing.T) {
	t.Parallel()
	in := []string{
		"cpu.core10_load_percent", "cpu.core2_load_percent", "cpu.load_percent", "cpu.user_percent", "cpu.online_count", "thermal.tj_celsius",
		"thermal.cpu_celsius", "odd", "synthetic.001", "memory.used_percent", "memory.total_bytes", "fan.speed_rpm",
		"net.a.rx_bytes_per_second", "net.b.rx_bytes_per_second", "net.c.rx_bytes_per_second", "net.d.rx_bytes_per_second",
		"net.e.rx_bytes_per_second", "net.f.rx_bytes_per_second", "net.g.rx_bytes_per_second",
	}
	seen := map[string]int{}
	for _, c := range Cards(in) {
		if c.Plotted > maxLines {
			t.Errorf("%s draws %d lines", c.Title, c.Plotted)
		}
		for i, l := range c.Lines {
			seen[l.Series]++
			if (i < c.Plotted) != (l.Index == i) {
				t.Errorf("%s: line %d of %d drawn has index %d", l.Series, i, c.Plotted, l.Index)
			}
		}
		if c.Title == "CPU" {
			order := ""
			for _, l := range c.Lines {
				order += l.Label + " "
			}
			if order != "load user core2 load core10 load online " {
				t.Errorf("CPU is ordered %q", order)
			}
		}
	}
	for _, s := range in {
		if seen[s] != 1 {
			t.Errorf("%s is shown %d times", s, seen[s])
		}
	}
}

func TestDraw(t *testing.T) {
	t.Parallel()
	to := time.UnixMilli(1_000_000_000)
	from := to.Add(-15 * time.Minute)
	ms := func(d time.Duration) int64 { return from.Add(d).UnixMilli() }
	card := Card{Title: "CPU", Unit: UnitPercent, Plotted: 1, Lines: []Line{{Series: "cpu.load_percent", Unit: UnitPercent}}}
	got := Draw(card, map[string]Points{"cpu.load_percent": {
		T: []int64{ms(-time.Minute), ms(0), ms(3 * time.Second), ms(450 * time.Second), ms(900 * time.Second), ms(901 * time.Second)},
		V: []float64{99, 0, 40, 20, 10, 99},
	}}, from, to)
	// The scale looks at all there is, the path at what lies inside; more than 20 s
	// without a point break the line.
	if want := "M0.0 120.0L2.0 72.0M300.0 96.0M600.0 108.0"; got.Paths[0].Path != want {
		t.Errorf("path %s, want %s", got.Paths[0].Path, want)
	}
	if got.LoText != "0"+nb+"%" || got.HiText != "100"+nb+"%" {
		t.Errorf("scale from %q to %q", got.LoText, got.HiText)
	}
	// The band goes along the highest and back along the lowest, a piece for each
	// stretch without a hole, and the scale holds it.
	got = Draw(card, map[string]Points{"cpu.load_percent": {
		T: []int64{ms(0), ms(3 * time.Second), ms(450 * time.Second), ms(453 * time.Second)}, V: []float64{10, 20, 30, 40},
		Lo: []float64{0, 5, 25, 40}, Hi: []float64{20, 30, 45, 60},
	}}, from, to)
	if want := "M0.0 96.0L2.0 84.0L2.0 114.0L0.0 120.0ZM300.0 66.0L302.0 48.0L302.0 72.0L300.0 90.0Z"; got.Paths[0].Band != want || got.Hi != 100 {
		t.Errorf("band %s up to %v, want %s", got.Paths[0].Band, got.Hi, want)
	}
	if got = Draw(card, map[string]Points{"cpu.load_percent": {T: []int64{ms(0)}, V: []float64{1}}}, from, to); got.Paths[0].Band != "" {
		t.Errorf("a band of single readings: %s", got.Paths[0].Band)
	}
	if empty := Draw(card, nil, from, to); empty.Paths[0].Path != "" || empty.Hi <= empty.Lo {
		t.Errorf("without points: %+v", empty)
	}
}

// FuzzDraw: no number of a board makes a path that is not a path.
func FuzzDraw(f *testing.F) {
	f.Add(0.0, 100.0, "percent")
	f.Add(-273.15, 1e300, "celsius")
	f.Add(4e-320, 4e-320, "")
	f.Fuzz(func(t *testing.T, a, b float64, u string) {
		if math.IsNaN(a+b) || math.IsInf(a, 0) || math.IsInf(b, 0) {
			t.Skip() // never decoded, see schema.Samples
		}
		to := time.UnixMilli(1e12)
		card := Card{Unit: Unit(u), Plotted: 1, Lines: []Line{{Series: "x", Unit: Unit(u)}}}
		c := Draw(card, map[string]Points{"x": {T: []int64{1e12 - 60000, 1e12 - 59000}, V: []float64{a, b}}}, to.Add(-time.Hour), to)
		if strings.ContainsAny(c.Paths[0].Path, "NIaf") {
			t.Errorf("path %q of %v, %v in %q between %v and %v", c.Paths[0].Path, a, b, u, c.Lo, c.Hi)
		}
	})
}

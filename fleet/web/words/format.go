// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package words puts numbers, times and the names of series into words as the
// page shows them: units, thousands separators, ages. It is pure text.
package words

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// nb joins a number and its unit so that no line breaks between them.
const nb = "\u00a0"

// group puts thousands separators into the digits of a decimal number.
func group(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, frac, _ := strings.Cut(s, ".")
	var b strings.Builder
	b.WriteString(sign)
	for i := range len(whole) {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(whole[i])
	}
	if frac != "" {
		b.WriteByte('.')
		b.WriteString(frac)
	}
	return b.String()
}

// Count writes a whole number: 4,182.
func Count(n uint64) string { return group(strconv.FormatUint(n, 10)) }

// Number writes v with a fixed number of decimals: 1,234.5. Never "-0".
func Number(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Trim(s, "-0.") == "" {
		s = strings.TrimPrefix(s, "-")
	}
	return group(s)
}

// Plural writes "1 board" or "3 boards".
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(uint64(max(n, 0))) + " " + many
}

// short writes v with three digits that matter at most: 9.34, 61.2, 128.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a != 0 && a < 9.995:
		return Number(v, 2)
	case a < 99.95:
		return Number(v, 1)
	}
	return Number(v, 0)
}

// scaled writes v with a prefix: steps of 1000 or 1024.
func scaled(v, step float64, units ...string) string {
	i := 0
	for i < len(units)-1 && math.Abs(v) >= step*0.9995 {
		v /= step
		i++
	}
	if i == 0 {
		return Number(v, 0) + nb + units[0]
	}
	return short(v) + nb + units[i]
}

// Quantity writes a reading in its unit, as people read it.
func Quantity(v float64, u Unit) string {
	switch u {
	case UnitCelsius:
		return Number(v, 1) + nb + "°C"
	case UnitPercent:
		if math.Abs(v) < 9.95 {
			return Number(v, 1) + nb + "%"
		}
		return Number(v, 0) + nb + "%"
	case UnitBytes:
		return scaled(v, 1024, "B", "KiB", "MiB", "GiB", "TiB")
	case UnitBytesPerSecond:
		return scaled(v, 1000, "B/s", "kB/s", "MB/s", "GB/s")
	case UnitHertz:
		return scaled(v, 1000, "Hz", "kHz", "MHz", "GHz")
	case UnitWatts:
		return Number(v, 1) + nb + "W"
	case UnitVolts:
		return Number(v, 2) + nb + "V"
	case UnitAmperes:
		return Number(v, 2) + nb + "A"
	case UnitRPM:
		return Number(v, 0) + nb + "rpm"
	case UnitSeconds:
		return Span(time.Duration(v * float64(time.Second)))
	case UnitPerSecond:
		return short(v) + nb + "/s"
	case UnitActive:
		if v == 0 {
			return "no"
		}
		return "yes"
	}
	if v == math.Trunc(v) {
		return Number(v, 0)
	}
	return Number(v, 2)
}

// Span writes how long: 12 s, 3 min, 2 h 5 min, 12 d 3 h.
func Span(d time.Duration) string {
	d = max(d, 0)
	whole := func(n time.Duration, name string) string { return group(strconv.FormatInt(int64(n), 10)) + nb + name }
	switch {
	case d < time.Minute:
		return whole(d/time.Second, "s")
	case d < time.Hour:
		return whole(d/time.Minute, "min")
	case d < 24*time.Hour:
		if m := d % time.Hour / time.Minute; m > 0 {
			return whole(d/time.Hour, "h") + " " + whole(m, "min")
		}
		return whole(d/time.Hour, "h")
	}
	if h := d % (24 * time.Hour) / time.Hour; h > 0 {
		return whole(d/(24*time.Hour), "d") + " " + whole(h, "h")
	}
	return whole(d/(24*time.Hour), "d")
}

// Age writes how long ago, in one unit; live.js writes the same words.
func Age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Second:
		return "now"
	case d < 90*time.Second:
		return fmt.Sprintf("%d"+nb+"s ago", d/time.Second)
	case d < 90*time.Minute:
		return fmt.Sprintf("%d"+nb+"min ago", d/time.Minute)
	case d < 36*time.Hour:
		return fmt.Sprintf("%d"+nb+"h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d"+nb+"d ago", d/(24*time.Hour))
}

// Stamp writes a moment in its zone: the clock alone for the same day as now,
// else the date too. The zone itself is printed once on each page.
func Stamp(t, now time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	now = now.In(t.Location())
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// Share writes part of whole in per cent, cut and not rounded, so that 100 %
// means all; without a whole it says so.
func Share(part, whole uint64) string {
	if whole == 0 {
		return "none yet"
	}
	if part == whole {
		return "100" + nb + "%"
	}
	return Number(math.Floor(float64(part)/float64(whole)*1000)/10, 1) + nb + "%"
}

// Score writes a confidence as whole per cent.
func Score(s float32) string {
	return strconv.Itoa(int(math.Round(float64(min(max(s, 0), 1))*100))) + nb + "%"
}

// Sentence makes the first letter a capital.
func Sentence(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}

// Lower makes the first letter small, for a sentence within another.
func Lower(s string) string {
	if s != "" && s[0] >= 'A' && s[0] <= 'Z' {
		return string(s[0]-'A'+'a') + s[1:]
	}
	return s
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package words

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// The chart's own coordinates; the browser stretches them to the card.
const (
	chartW = 600
	chartH = 120
	// ChartPoints is how many points a line has at most: about one for each
	// pixel of a phone.
	ChartPoints = 300
)

// Period is how far back the charts look.
type Period struct {
	Name string // as in the URL
	Text string
	Span time.Duration
}

// Periods are the choices; the first is the default.
func Periods() []Period {
	return []Period{
		{"15m", "15 min", 15 * time.Minute},
		{"1h", "1 h", time.Hour},
		{"6h", "6 h", 6 * time.Hour},
		{"24h", "24 h", 24 * time.Hour},
		{"7d", "7 d", 7 * 24 * time.Hour},
		{"30d", "30 d", 30 * 24 * time.Hour},
	}
}

// ParsePeriod finds the period of a URL, the default for an unknown one.
func ParsePeriod(s string) Period {
	for _, p := range Periods() {
		if p.Name == s {
			return p
		}
	}
	return Periods()[0]
}

// Points are the history of one series: ms since 1970, and values. Where points
// stand for many readings V is their mean and Lo to Hi the band around it; else
// both are nil.
type Points struct {
	T      []int64
	V      []float64
	Lo, Hi []float64
}

// ends are what the scale has to hold.
func (p Points) ends() [][]float64 { return [][]float64{p.V, p.Lo, p.Hi} }

// Drawn is one line of a chart, ready for the template.
type Drawn struct {
	Line
	Path string // of an SVG path in chart coordinates
	Band string // of the area from lowest to highest, "" where every point is one reading
}

// Chart is a card with its lines drawn.
type Chart struct {
	Card
	Paths          []Drawn
	Lo, Hi         float64
	LoText, HiText string
	Sentence       string // for those who cannot see it
}

// Draw makes the paths of a card's lines.
func Draw(c Card, by map[string]Points, from, to time.Time) Chart {
	out := Chart{Card: c}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, l := range c.Lines[:c.Plotted] {
		for _, end := range by[l.Series].ends() {
			for _, v := range end {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	seen := hi
	out.Lo, out.Hi = scale(lo, hi, c.Unit)
	out.LoText, out.HiText = axis(out.Lo, c.Unit), axis(out.Hi, c.Unit)
	for _, l := range c.Lines[:c.Plotted] {
		out.Paths = append(out.Paths, Drawn{l, path(by[l.Series], from, to, out.Lo, out.Hi), band(by[l.Series], from, to, out.Lo, out.Hi)})
	}
	out.Sentence = c.Title + " over " + Span(to.Sub(from)) + ": highest " + Quantity(seen, c.Unit)
	return out
}

// scale chooses the ends of the value axis: temperatures and voltages around what
// is there, all else from zero; per cent to 100 once it passes half.
func scale(lo, hi float64, u Unit) (float64, float64) {
	if u == UnitPercent && hi > 50 && hi <= 100 {
		return min(0, lo), 100
	}
	least := map[Unit]float64{UnitCelsius: 10, UnitPercent: 10, UnitBytesPerSecond: 1000, UnitWatts: 5}[u]
	if least == 0 {
		least = 1
	}
	if u == UnitCelsius || u == UnitVolts {
		step := nice(max(hi-lo, least) / 4)
		lo, hi = math.Floor(lo/step)*step, math.Ceil(hi/step)*step
		if hi-lo < least {
			hi = lo + least
		}
		return lo, hi
	}
	step := nice(max(hi, least) / 4)
	return min(0, math.Floor(lo/step)*step), math.Ceil(max(hi, least)/step) * step
}

// axis writes an end of the value axis: no zeros after the point.
func axis(v float64, u Unit) string {
	n, name, ok := strings.Cut(Quantity(v, u), nb)
	if strings.Contains(n, ".") {
		n = strings.TrimSuffix(strings.TrimRight(n, "0"), ".")
	}
	if !ok {
		return n
	}
	return n + nb + name
}

// nice is the next of 1, 2, 5 times a power of ten.
func nice(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*p*1.0000001 {
			return m * p
		}
	}
	return 10 * p
}

// Hole is how far apart two points are before the line breaks.
func Hole(d time.Duration) time.Duration { return max(20*time.Second, 4*d/ChartPoints) }

// path draws one line; where points are missing it breaks.
func path(s Points, from, to time.Time, lo, hi float64) string {
	var b []byte
	width, last := float64(to.Sub(from).Milliseconds()), int64(math.MinInt64/2)
	gap := Hole(to.Sub(from)).Milliseconds()
	for i, t := range s.T {
		x := float64(t-from.UnixMilli()) / width * chartW
		if x < 0 || x > chartW || i >= len(s.V) {
			continue
		}
		y := chartH - (s.V[i]-lo)/(hi-lo)*chartH
		if t-last > gap {
			b = append(b, 'M')
		} else {
			b = append(b, 'L')
		}
		b = strconv.AppendFloat(b, x, 'f', 1, 64)
		b = append(b, ' ')
		b = strconv.AppendFloat(b, y, 'f', 1, 64)
		last = t
	}
	return string(b)
}

// band draws the area between lowest and highest: along the highest there and along
// the lowest back, a piece for each stretch without a hole.
func band(s Points, from, to time.Time, lo, hi float64) string {
	if len(s.Lo) != len(s.T) || len(s.Hi) != len(s.T) {
		return ""
	}
	var b []byte
	gap, begin := Hole(to.Sub(from)).Milliseconds(), 0
	for i := 1; i <= len(s.T); i++ {
		if i < len(s.T) && s.T[i]-s.T[i-1] <= gap {
			continue
		}
		there := path(Points{T: s.T[begin:i], V: s.Hi[begin:i]}, from, to, lo, hi)
		back := path(Points{T: s.T[begin:i], V: s.Lo[begin:i]}, from, to, lo, hi)
		begin = i
		corners := strings.FieldsFunc(back, func(r rune) bool { return r == 'M' || r == 'L' })
		if len(corners) < 2 {
			continue
		}
		b = append(b, there...)
		for k := len(corners) - 1; k >= 0; k-- {
			b = append(append(b, 'L'), corners[k]...)
		}
		b = append(b, 'Z')
	}
	return string(b)
}

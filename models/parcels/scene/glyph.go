// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import "math"

// glyph is a digit as a hand wrote it: strokes in a square of side 1, a pen, an ink.
type glyph struct {
	lines [][2]point
	pen   float64 // half width of the stroke
	ink   rgb
}

type point struct{ x, y float64 }

// strokes of the ten digits: each stroke is a run of points that a hand passes.
// Curves are given by enough points to look round after smoothing.
func strokes(d int) [][]point {
	switch d {
	case 0:
		return [][]point{ring(0.5, 0.5, 0.26, 0.40, -1.6, 4.9)}
	case 1:
		return [][]point{{{0.34, 0.28}, {0.52, 0.10}, {0.52, 0.90}}}
	case 2:
		return [][]point{append(ring(0.5, 0.32, 0.24, 0.22, -2.9, 0.5), point{0.28, 0.88}, point{0.78, 0.88})}
	case 3:
		return [][]point{append(ring(0.47, 0.30, 0.22, 0.20, -2.6, 1.5), ring(0.47, 0.69, 0.26, 0.21, -1.5, 2.6)...)}
	case 4:
		return [][]point{{{0.58, 0.10}, {0.24, 0.62}, {0.80, 0.62}}, {{0.62, 0.38}, {0.60, 0.92}}}
	case 5:
		return [][]point{append([]point{{0.74, 0.12}, {0.36, 0.12}, {0.32, 0.45}}, ring(0.48, 0.66, 0.27, 0.23, -1.5, 2.5)...)}
	case 6:
		return [][]point{append([]point{{0.66, 0.10}, {0.40, 0.36}}, ring(0.50, 0.68, 0.23, 0.22, 3.4, 9.6)...)}
	case 7:
		return [][]point{{{0.24, 0.13}, {0.76, 0.13}, {0.42, 0.90}}}
	case 8:
		return [][]point{ring(0.5, 0.30, 0.19, 0.19, -1.6, 4.7), ring(0.5, 0.69, 0.24, 0.21, -1.6, 4.7)}
	}
	return [][]point{append(ring(0.48, 0.32, 0.22, 0.21, 0, 6.2), point{0.70, 0.34}, point{0.62, 0.90})}
}

func ring(cx, cy, rx, ry, from, to float64) []point {
	var out []point
	const n = 14
	for i := range n + 1 {
		s, c := math.Sincos(from + (to-from)*float64(i)/n)
		out = append(out, point{cx + rx*c, cy + ry*s})
	}
	return out
}

// newGlyph writes a digit: slanted, stretched, turned, unsteady, with some pen.
func newGlyph(r *rnd, digit int) glyph {
	g := glyph{pen: r.in(0.035, 0.075)}
	g.ink = []rgb{{22, 24, 32}, {24, 42, 130}, {150, 26, 30}, {16, 70, 40}}[r.n(4)]
	slant, turn := r.in(-0.28, 0.28), r.in(-0.2, 0.2)
	sx, sy := r.in(0.75, 1.05), r.in(0.82, 1.0)
	sin, cos := math.Sincos(turn)
	wave, phase := r.in(0.005, 0.03), r.in(0, 6)
	shape := func(p point) point {
		x, y := (p.x-0.5)*sx, (p.y-0.5)*sy
		x -= slant * y
		x, y = x*cos-y*sin, x*sin+y*cos
		x += wave * math.Sin(9*y+phase)
		y += wave * math.Sin(8*x+2*phase)
		return point{x + 0.5, y + 0.5}
	}
	for _, s := range strokes(digit) {
		j := r.in(-0.03, 0.03)
		for i := 1; i < len(s); i++ {
			a, b := shape(s[i-1]), shape(s[i])
			g.lines = append(g.lines, [2]point{{a.x + j, a.y}, {b.x + j, b.y}})
		}
	}
	return g
}

// distance is how far a place is from the nearest stroke.
func (g *glyph) distance(x, y float64) float64 {
	best := math.Inf(1)
	if x < -0.1 || y < -0.1 || x > 1.1 || y > 1.1 {
		return best
	}
	for _, l := range g.lines {
		dx, dy := l[1].x-l[0].x, l[1].y-l[0].y
		t := ((x-l[0].x)*dx + (y-l[0].y)*dy) / (dx*dx + dy*dy + 1e-9)
		t = math.Max(0, math.Min(1, t))
		best = math.Min(best, math.Hypot(x-l[0].x-t*dx, y-l[0].y-t*dy))
	}
	return best
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import "math"

// harm is what happened to a damaged parcel.
type harm struct {
	kind int // 0 none
	seed uint64
	u, v float64 // where
	r    float64 // how large, pixels
	a    float64 // direction
	hu   float64 // half sides of the parcel
	hv   float64
}

// The kinds of harm.
const (
	harmNone = iota
	harmCorner
	harmTear
	harmStain
	harmDent
	harms
)

func newHarm(r *rnd, p *parcel) harm {
	h := harm{kind: 1 + r.n(harms-1), seed: r.next(), hu: p.hu, hv: p.hv, a: r.in(0, math.Pi)}
	side := math.Min(p.hu, p.hv)
	h.r = side * r.in(0.55, 0.85)
	su, sv := math.Copysign(1, r.float()-0.5), math.Copysign(1, r.float()-0.5)
	// Away from the label: a harm under a sticker would be a secret.
	if p.lu*su > 0 && math.Abs(p.lu) > p.hu*0.15 {
		su = -su
	}
	switch h.kind {
	case harmCorner:
		h.u, h.v = su*p.hu, sv*p.hv
	default:
		h.u, h.v = su*p.hu*r.in(0.45, 0.65), sv*p.hv*r.in(0.2, 0.5)
	}
	return h
}

// reach is the distance from the harm's middle, 1 at its ragged border.
func (h *harm) reach(u, v, ragged float64) float64 {
	du, dv := u-h.u, v-h.v
	a := math.Atan2(dv, du)
	k := 1 + ragged*(smooth(h.seed, 4+2.2*math.Cos(a), 4+2.2*math.Sin(a))-0.5)*2
	return math.Hypot(du, dv) / (h.r * k)
}

// cuts tells whether the harm took this place away.
func (h *harm) cuts(u, v float64) bool {
	return h.kind == harmCorner && h.reach(u, v, 0.35) < 0.62
}

// mark draws the harm over a colour.
func (h *harm) mark(c rgb, u, v float64) rgb {
	switch h.kind {
	case harmCorner: // crushed: creases around the lost corner
		if d := h.reach(u, v, 0.35); d < 1.25 {
			crease := smooth(h.seed+1, u/4, v/4)
			return c.mul(0.45 + 0.35*d + 0.3*(crease-0.5))
		}
	case harmTear: // a long hole with pale torn edges
		s, co := math.Sincos(h.a)
		x, y := ((u-h.u)*co+(v-h.v)*s)/h.r, (-(u-h.u)*s+(v-h.v)*co)/h.r
		wide := 0.34*(1-x*x) + 0.12*(smooth(h.seed, x*5, 1)-0.5)
		if math.Abs(x) < 1 && math.Abs(y) < wide {
			return rgb{26, 22, 20}
		}
		if math.Abs(x) < 1.05 && math.Abs(y) < wide+0.13 {
			return rgb{232, 214, 184}
		}
	case harmStain: // something leaked
		if d := h.reach(u, v, 0.5); d < 1.15 {
			k := math.Min(1, (1.15-d)*6)
			wet := rgb{52, 40, 30}.mix(rgb{84, 66, 40}, smooth(h.seed+2, u/9, v/9))
			return c.mix(wet, 0.78*k)
		}
	case harmDent: // pushed in: a dark bowl with a bright rim and cracks
		d := h.reach(u, v, 0.2)
		if d < 1 {
			side := ((u-h.u)*0.6 + (v-h.v)*0.8) / h.r
			k := 0.42 + 0.55*d*d + 0.35*side
			if crack := math.Abs(math.Mod(math.Atan2(v-h.v, u-h.u)*2.6+float64(h.seed%7), 2) - 1); crack < 0.10 && d > 0.2 {
				k *= 0.45
			}
			return c.mul(math.Max(k, 0.2))
		}
		if d < 1.14 {
			return c.mul(1.22)
		}
	}
	return c
}

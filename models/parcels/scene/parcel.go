// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"image"
	"math"
)

// sprite is one parcel, drawn once when it comes into view.
type sprite struct {
	empty   bool
	damaged bool
	digit   int8
	jx, jy  float64 // place within its slot
	w, h    int
	pix     []uint8 // RGBA, alpha 0 to 255, not premultiplied
	body    image.Rectangle
	label   image.Rectangle
	hurt    []bool // which pixels show the harm; nil where there is none
	parcel  parcel
}

// parcel is the geometry and looks of a sprite, in its own frame: the middle is
// the origin, u runs along, v across.
type parcel struct {
	kind       int
	seed       uint64
	hu, hv     float64 // half sides
	sin, cos   float64
	base, tape rgb
	lu, lv     float64 // middle of the label
	lhu, lhv   float64 // its half sides
	lsin, lcos float64
	glyph      glyph
	harm       harm
}

// The kinds of parcels.
const (
	kindCarton = iota
	kindWhiteBox
	kindBag
	kindTube
	kinds
)

func newSprite(r *rnd, scale float64) *sprite {
	p := parcel{kind: r.n(kinds), seed: r.next()}
	p.hu, p.hv = r.in(46, 78)*scale, r.in(36, 58)*scale
	switch p.kind {
	case kindCarton:
		p.base = rgb{r.in(150, 196), r.in(112, 146), r.in(68, 100)}
		p.tape = rgb{206, 184, 142}
		if r.n(4) == 0 {
			p.tape = rgb{120, 60, 44}
		}
	case kindWhiteBox:
		k := r.in(0.84, 1)
		p.base, p.tape = rgb{216 * k, 214 * k, 208 * k}, rgb{70, 110, 170}
	case kindBag:
		k := r.in(0.7, 1)
		p.base = []rgb{{176, 178, 186}, {92, 110, 148}, {196, 168, 96}, {120, 132, 120}}[r.n(4)].mul(k)
	case kindTube:
		p.hv, p.hu = r.in(20, 30)*scale, r.in(64, 88)*scale
		p.base, p.tape = rgb{r.in(170, 205), r.in(150, 180), r.in(110, 140)}, rgb{230, 228, 220}
	}
	a := (r.float() + r.float() - 1) * 0.7
	if r.n(5) == 0 {
		a += math.Pi / 2
	}
	p.sin, p.cos = math.Sincos(a)
	p.placeLabel(r, scale)
	sp := &sprite{jx: r.in(0, 0.24), jy: r.in(-20, 20), digit: int8(r.n(10))}
	p.glyph = newGlyph(r, int(sp.digit))
	if r.n(3) == 0 {
		sp.damaged = true
		p.harm = newHarm(r, &p)
	}
	sp.parcel = p
	sp.render()
	return sp
}

func (p *parcel) placeLabel(r *rnd, scale float64) {
	p.lhu, p.lhv = r.in(20, 27)*scale, r.in(14, 18)*scale
	p.lhu, p.lhv = min(p.lhu, p.hu*0.6), min(p.lhv, p.hv*0.72)
	p.lu = r.in(-1, 1) * max(p.hu-p.lhu-6*scale, 0)
	p.lv = r.in(-1, 1) * max(p.hv-p.lhv-5*scale, 0)
	p.lsin, p.lcos = math.Sincos(r.in(-0.12, 0.12))
}

// render draws the parcel into its own picture, four samples a pixel.
func (sp *sprite) render() {
	p := &sp.parcel
	ex := math.Abs(p.cos)*p.hu + math.Abs(p.sin)*p.hv
	ey := math.Abs(p.sin)*p.hu + math.Abs(p.cos)*p.hv
	sp.w, sp.h = int(2*ex)+6, int(2*ey)+6
	sp.pix = make([]uint8, sp.w*sp.h*4)
	if p.harm.kind != harmNone {
		sp.hurt = make([]bool, sp.w*sp.h)
	}
	cx, cy := float64(sp.w)/2, float64(sp.h)/2
	for y := range sp.h {
		for x := range sp.w {
			var sum rgb
			hit, onLabel := 0.0, false
			for k := range 4 {
				dx := float64(x) + 0.25 + 0.5*float64(k&1) - cx
				dy := float64(y) + 0.25 + 0.5*float64(k>>1) - cy
				u, v := dx*p.cos+dy*p.sin, -dx*p.sin+dy*p.cos
				c, in, label := p.shade(u, v)
				if in {
					harmed := p.harm.mark(c, u, v)
					if harmed != c {
						sp.hurt[y*sp.w+x] = true
					}
					sum = rgb{sum.r + harmed.r, sum.g + harmed.g, sum.b + harmed.b}
					hit++
				}
				onLabel = onLabel || label
			}
			if hit == 0 {
				continue
			}
			q := sp.pix[(y*sp.w+x)*4:]
			put(q, sum.mul(1/hit))
			q[3] = uint8(hit * 63.75)
			at := image.Rect(x, y, x+1, y+1)
			if hit >= 2 {
				sp.body = sp.body.Union(at)
			}
			if onLabel {
				sp.label = sp.label.Union(at)
			}
		}
	}
}

// shade gives the colour at a place of the parcel before any harm, whether the
// parcel is there, and whether its label is.
func (p *parcel) shade(u, v float64) (rgb, bool, bool) {
	au, av := math.Abs(u)/p.hu, math.Abs(v)/p.hv
	if !p.inside(u, v, au, av) || p.harm.cuts(u, v) {
		return rgb{}, false, false
	}
	c := p.skin(u, v, au, av)
	lu, lv := (u-p.lu)*p.lcos+(v-p.lv)*p.lsin, -(u-p.lu)*p.lsin+(v-p.lv)*p.lcos
	label := math.Abs(lu) <= p.lhu && math.Abs(lv) <= p.lhv
	if label {
		c = p.sticker(lu, lv)
	}
	// Light from the upper left: edges bright there, dark on the far side.
	edge := math.Max(au, av)
	if p.kind != kindBag && edge > 0.93 {
		ny := -u*p.sin/p.hu - v*p.cos/p.hv
		c = c.mul(1 + 0.16*math.Copysign(1, ny)*(edge-0.93)/0.07)
	}
	return c, true, label
}

func (p *parcel) inside(u, v, au, av float64) bool {
	switch p.kind {
	case kindBag: // soft outline
		wob := 0.05 * (smooth(p.seed, 3+u/p.hu*2.5, 3+v/p.hv*2.5) - 0.5)
		return math.Pow(au, 5)+math.Pow(av, 5) <= 0.94+wob
	case kindTube:
		if au > 0.9 { // round ends
			return av*av+(au-0.9)*(au-0.9)*60 <= 1
		}
		return av <= 1
	}
	return au <= 1 && av <= 1
}

func (p *parcel) skin(u, v, au, av float64) rgb {
	grain := smooth(p.seed, u/9, v/5)*0.10 + smooth(p.seed+1, u/3, v/2)*0.06
	c := p.base.mul(0.9 + grain)
	switch p.kind {
	case kindCarton:
		if math.Abs(v) < p.hv*0.13 { // tape over the flaps, the seam shines through
			c = c.mix(p.tape, 0.75)
			if math.Abs(v) < 0.8 {
				c = c.mul(0.8)
			}
		}
	case kindWhiteBox:
		if u < -p.hu*0.72 {
			c = p.tape.mul(0.9 + grain)
		}
	case kindBag:
		folds := smooth(p.seed+2, u/p.hu*3+1.5*smooth(p.seed+3, u/20, v/20), v/p.hv*2)
		c = c.mul(0.72 + 0.5*folds).mul(1.04 - 0.3*math.Pow(math.Max(au, av), 4))
	case kindTube:
		c = c.mul(1.12 - 0.5*av*av)
		if au > 0.86 {
			c = p.tape.mul(1.0 - 0.4*av*av)
		}
	}
	return c
}

// sticker is the shipping label: a bar code, lines of text, and the lane digit
// somebody wrote on it.
func (p *parcel) sticker(u, v float64) rgb {
	x, y := (u+p.lhu)/(2*p.lhu), (v+p.lhv)/(2*p.lhv) // 0 to 1
	c := rgb{244, 243, 238}
	ink := rgb{32, 34, 40}
	switch {
	case x < 0.02 || x > 0.98 || y < 0.03 || y > 0.97:
		return rgb{214, 213, 208}
	case x > 0.06 && x < 0.50 && y > 0.60 && y < 0.92:
		if hash2(p.seed+5, int(x*46), 0) > 0.5 {
			c = ink
		}
	case x > 0.06 && x < 0.50 && y > 0.10 && y < 0.54:
		line := int(y * 14)
		if line%2 == 1 && x < 0.22+0.28*hash2(p.seed+6, line, 0) && hash2(p.seed+7, int(x*60), line) > 0.25 {
			c = rgb{96, 98, 104}
		}
	}
	if d := p.glyph.distance((x-0.54)/0.42, (y-0.08)/0.84); d < p.glyph.pen {
		c = p.glyph.ink
	}
	return c
}

// solid tells whether the parcel covers a pixel of its sprite.
func (sp *sprite) solid(x, y int) bool {
	return x >= 0 && y >= 0 && x < sp.w && y < sp.h && sp.pix[(y*sp.w+x)*4+3] >= 128
}

// onLabel tells whether its label covers a pixel of its sprite.
func (sp *sprite) onLabel(x, y int) bool {
	return sp.solid(x, y) && image.Pt(x, y).In(sp.label)
}

// onHarm tells whether a pixel of its sprite shows what happened to it.
func (sp *sprite) onHarm(x, y int) bool {
	return sp.hurt != nil && sp.solid(x, y) && sp.hurt[y*sp.w+x]
}

func (sp *sprite) draw(dst *image.RGBA, x0, y0 int) {
	b := dst.Bounds()
	for y := max(0, -y0); y < min(sp.h, b.Max.Y-y0); y++ {
		src := sp.pix[y*sp.w*4 : (y+1)*sp.w*4]
		line := dst.Pix[(y+y0)*dst.Stride:]
		for x := max(0, -x0); x < min(sp.w, b.Max.X-x0); x++ {
			q := src[x*4 : x*4+4 : x*4+4]
			d := line[(x+x0)*4 : (x+x0)*4+4 : (x+x0)*4+4]
			switch a := uint32(q[3]); a {
			case 0:
			case 255:
				d[0], d[1], d[2] = q[0], q[1], q[2]
			default:
				for k := range 3 {
					d[k] = uint8((uint32(q[k])*a + uint32(d[k])*(255-a)) / 255)
				}
			}
		}
	}
}

// shadow darkens the belt below and right of the parcel.
func (sp *sprite) shadow(dst *image.RGBA, x0, y0 int, scale float64) {
	off := int(7 * scale)
	b := dst.Bounds()
	x0, y0 = x0+off, y0+off
	for y := max(0, -y0); y < min(sp.h, b.Max.Y-y0); y++ {
		line := dst.Pix[(y+y0)*dst.Stride:]
		for x := max(0, -x0); x < min(sp.w, b.Max.X-x0); x++ {
			if sp.pix[(y*sp.w+x)*4+3] < 128 {
				continue
			}
			d := line[(x+x0)*4 : (x+x0)*4+4 : (x+x0)*4+4]
			d[0], d[1], d[2] = d[0]-d[0]>>2-d[0]>>3, d[1]-d[1]>>2-d[1]>>3, d[2]-d[2]>>2-d[2]>>3
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tensor

import (
	"encoding/binary"
	"image"
)

// bits is the precision of one interpolation weight. Two weights and a pixel of 8
// bits fit a lane of 32: 8+11+11 = 30.
const bits = 11

const one = 1 << bits

// tap is one output pixel in one direction: two neighbours of the source and the
// weight of the second, 0 to one. For columns a and b are byte offsets.
type tap struct {
	a, b int
	w    uint32
}

// Mapping takes places in a network's input back to the picture.
type Mapping struct {
	// OffX and OffY are where the picture begins in the input, in its pixels.
	OffX, OffY float32
	// ScaleX and ScaleY are picture pixels for one pixel of the input.
	ScaleX, ScaleY float32
	// Width and Height are the picture's, in pixels.
	Width, Height int
}

// Box takes corners in the input to corners in the picture, clipped to it. It is
// false for what is empty, outside, or no number.
func (m *Mapping) Box(x0, y0, x1, y1 float32) (box [4]float32, ok bool) {
	w, h := float32(m.Width), float32(m.Height)
	x0 = min(max((x0-m.OffX)*m.ScaleX, 0), w)
	x1 = min(max((x1-m.OffX)*m.ScaleX, 0), w)
	y0 = min(max((y0-m.OffY)*m.ScaleY, 0), h)
	y1 = min(max((y1-m.OffY)*m.ScaleY, 0), h)
	// min and max pass NaN on, and a comparison with it is false.
	return [4]float32{x0, y0, x1, y1}, x1 > x0 && y1 > y0
}

// plan makes the tables for pictures of one size, and the padding around them.
func (p *Prep) plan(w, h int) {
	s := &p.spec
	fw, fh := s.Width, s.Height
	if s.Mode == Letterbox {
		// The longer side fills the input, the other is rounded down, in integers.
		if s.Width*h <= s.Height*w {
			fh = max(1, h*s.Width/w)
		} else {
			fw = max(1, w*s.Height/h)
		}
	}
	var at image.Point
	if s.Anchor == Centre {
		at = image.Pt((s.Width-fw)/2, (s.Height-fh)/2)
	}
	p.src = image.Rect(0, 0, w, h)
	p.fit = image.Rect(0, 0, fw, fh).Add(at)
	p.cols = taps(p.cols, fw, w, 4)
	p.rows = taps(p.rows, fh, h, 1)
	p.m = Mapping{
		OffX: float32(at.X), OffY: float32(at.Y),
		ScaleX: float32(w) / float32(fw), ScaleY: float32(h) / float32(fh),
		Width: w, Height: h,
	}
	p.pad()
}

// taps fills a table for n output pixels over size source pixels. Output pixel i
// has its centre at (i+0.5)*size/n - 0.5 in the source: exact in integers.
func taps(t []tap, n, size, unit int) []tap {
	if cap(t) < n {
		t = make([]tap, n)
	}
	t = t[:n]
	for i := range t {
		// In 1/(2n) of a source pixel, then in 1/one, rounded to the nearest.
		num := (2*i+1)*size - n
		fixed := max(0, (num*one+n)/(2*n))
		if num < 0 {
			fixed = 0
		}
		a := min(fixed>>bits, size-1)
		b := min(a+1, size-1)
		t[i] = tap{a: a * unit, b: b * unit, w: uint32(fixed & (one - 1))}
	}
	return t
}

// pad colours what the picture leaves empty. It is done once for a picture size,
// since no frame of that size writes there.
func (p *Prep) pad() {
	s := &p.spec
	if p.fit == image.Rect(0, 0, s.Width, s.Height) {
		return
	}
	for c := range 3 {
		v := float32(s.Pad*p.mul[c]) - p.sub[c]
		d := p.dst[p.plane[c]:]
		for y := range s.Height {
			for x := range s.Width {
				if !(image.Pt(x, y).In(p.fit)) {
					d[(y*s.Width+x)*p.step] = v
				}
			}
		}
	}
}

// blend writes one row of the input from two rows of the source, the second with
// weight wy of one. Red and blue share a 64-bit word, 32 bits each; green has its
// own: three channels for two multiplications.
func (p *Prep) blend(y int, r0, r1 []byte, wy uint32) {
	at := ((y+p.fit.Min.Y)*p.spec.Width + p.fit.Min.X) * p.step
	// Float products stand in float32() so that no machine fuses them with the
	// subtraction: the bits are the same on amd64 and arm64.
	const unit = 1.0 / (one * one)
	mr, mg, mb := p.mul[0]*unit, p.mul[1]*unit, p.mul[2]*unit
	sr, sg, sb := p.sub[0], p.sub[1], p.sub[2]
	dr, dg, db := p.dst[p.plane[0]+at:], p.dst[p.plane[1]+at:], p.dst[p.plane[2]+at:]
	v1 := uint64(wy)
	v0 := one - v1
	i, step := 0, p.step
	for c := range p.cols {
		t := &p.cols[c]
		a0, b0 := binary.LittleEndian.Uint32(r0[t.a:]), binary.LittleEndian.Uint32(r0[t.b:])
		a1, b1 := binary.LittleEndian.Uint32(r1[t.a:]), binary.LittleEndian.Uint32(r1[t.b:])
		h1 := uint64(t.w)
		h0 := one - h1
		rb := (redBlue(a0)*h0+redBlue(b0)*h1)*v0 + (redBlue(a1)*h0+redBlue(b1)*h1)*v1
		g := (green(a0)*h0+green(b0)*h1)*v0 + (green(a1)*h0+green(b1)*h1)*v1
		dr[i] = float32(float32(int32(uint32(rb)))*mr) - sr
		dg[i] = float32(float32(int32(uint32(g)))*mg) - sg
		db[i] = float32(float32(int32(rb>>32))*mb) - sb
		i += step
	}
}

func redBlue(p uint32) uint64 { return uint64(p&0xff) | uint64(p&0xff0000)<<16 }

func green(p uint32) uint64 { return uint64(p >> 8 & 0xff) }

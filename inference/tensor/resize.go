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

// tap is one output pixel in one direction: the first of two neighbours of the
// source, and the weight of the second, 0 to one. For columns a is a byte offset.
type tap struct {
	a, w uint32
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
	p.exact, p.half = fw == w && fh == h, 2*fw == w && 2*fh == h
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
// has its centre at (i+0.5)*size/n - 0.5 in the source: exact in integers. The last
// pixel of the source is the second neighbour of the one before, with all the weight.
func taps(t []tap, n, size, unit int) []tap {
	if cap(t) < n {
		t = make([]tap, n)
	}
	t = t[:n]
	for i := range t {
		// In 1/(2n) of a source pixel, then in 1/one, rounded to the nearest.
		num := max(0, (2*i+1)*size-n)
		fixed := min((num*one+n)/(2*n), (size-1)*one)
		a := min(fixed>>bits, max(0, size-2))
		t[i] = tap{a: uint32(a * unit), w: uint32(fixed - a<<bits)}
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
	area := image.Rect(0, 0, s.Width, s.Height)
	for c := range 3 {
		v := float32(s.Pad*p.mul[c]) - p.sub[c]
		for _, r := range [...]image.Rectangle{
			{area.Min, image.Pt(s.Width, p.fit.Min.Y)},                           // above
			{image.Pt(0, p.fit.Max.Y), area.Max},                                 // below
			{image.Pt(0, p.fit.Min.Y), image.Pt(p.fit.Min.X, p.fit.Max.Y)},       // left
			{image.Pt(p.fit.Max.X, p.fit.Min.Y), image.Pt(s.Width, p.fit.Max.Y)}, // right
		} {
			for y := r.Min.Y; y < r.Max.Y; y++ {
				d := p.dst[p.plane[c]+y*s.Width*p.step:]
				for x := r.Min.X; x < r.Max.X; x++ {
					d[x*p.step] = v
				}
			}
		}
	}
}

// blend writes one row of the input from two rows of the source, the second with
// weight v of one. Red and blue share a 64-bit word, 32 bits each; green has its
// own. The steps of an interpolation, a*one + (b-a)*w, borrow between the two halves
// and give it back: as whole numbers the sums are exact, and each half of the last
// one is positive and under 31 bits.
func (p *Prep) blend(to *[3][]float32, r0, r1 []byte, v uint64) {
	// Float products stand in float32() so that no machine fuses them with the
	// subtraction: the bits are the same on amd64 and arm64.
	const unit = 1.0 / (one * one)
	mr, mg, mb := p.mul[0]*unit, p.mul[1]*unit, p.mul[2]*unit
	sr, sg, sb := p.sub[0], p.sub[1], p.sub[2]
	cols := p.cols
	// The lengths tell the compiler that no index below needs a check.
	dr, dg, db := to[0][:len(cols)], to[1][:len(cols)], to[2][:len(cols)]
	r1 = r1[:len(r0)]
	for i, t := range cols {
		h := uint64(t.w)
		a := binary.LittleEndian.Uint64(r0[t.a:])
		b := binary.LittleEndian.Uint64(r1[t.a:])
		rb0, g0 := redBlue(a), a>>8&0xff
		rb1, g1 := redBlue(b), b>>8&0xff
		rb0 = rb0<<bits + (redBlue(a>>32)-rb0)*h
		rb1 = rb1<<bits + (redBlue(b>>32)-rb1)*h
		rb := rb0<<bits + (rb1-rb0)*v
		dr[i] = float32(float32(int32(uint32(rb)))*mr) - sr
		db[i] = float32(float32(int32(rb>>32))*mb) - sb
		g0 = g0<<bits + (a>>40&0xff-g0)*h
		g1 = g1<<bits + (b>>40&0xff-g1)*h
		dg[i] = float32(float32(int32(uint32(g0<<bits+(g1-g0)*v)))*mg) - sg
	}
}

// copyRow writes one row of the input whose pixels are the source's, one by one: a
// camera that gives the network's own size.
func (p *Prep) copyRow(to *[3][]float32, row []byte) {
	n := len(p.cols)
	dr, dg, db, row := to[0][:n], to[1][:n], to[2][:n], row[:4*n]
	lr, lg, lb := &p.quarters[0], &p.quarters[1], &p.quarters[2]
	for i := range dr {
		px := binary.LittleEndian.Uint32(row[4*i:])
		dr[i] = lr[px&0xff<<2]
		dg[i] = lg[px>>8&0xff<<2]
		db[i] = lb[px>>16&0xff<<2]
	}
}

// halve writes one row of the input whose pixels are the middles of 2x2 of the
// source's: a camera that gives twice the network's size. The bits are those that
// blend would write.
func (p *Prep) halve(to *[3][]float32, r0, r1 []byte) {
	n := len(p.cols)
	dr, dg, db := to[0][:n], to[1][:n], to[2][:n]
	r0, r1 = r0[:8*n], r1[:8*n]
	lr, lg, lb := &p.quarters[0], &p.quarters[1], &p.quarters[2]
	const even = 0x00ff00ff00ff00ff // red and blue, 16 bits each
	for i := range dr {
		a, b := binary.LittleEndian.Uint64(r0[8*i:]), binary.LittleEndian.Uint64(r1[8*i:])
		rb, g := a&even+b&even, a>>8&even+b>>8&even
		rb, g = rb+rb>>32, g+g>>32
		dr[i] = lr[rb&0x3ff]
		dg[i] = lg[g&0x3ff]
		db[i] = lb[rb>>16&0x3ff]
	}
}

func redBlue(p uint64) uint64 { return p&0xff | p&0xff0000<<16 }

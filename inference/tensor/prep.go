// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tensor

import (
	"errors"
	"fmt"
	"image"
	"image/draw"
)

// MaxSide bounds a picture's width and height, in pixels: no camera on these
// boards has more, and a broken header must not size our tables.
const MaxSide = 1 << 14

// ErrImage is wrapped by the errors for pictures that cannot be looked at.
var ErrImage = errors.New("picture refused")

// Order is the order of the colours in the network's input.
type Order uint8

// The colour orders.
const (
	RGB Order = iota
	BGR
)

// Layout is the order of the input's dimensions.
type Layout uint8

// The layouts: planes of colours, or colours of pixels.
const (
	NCHW Layout = iota
	NHWC
)

// Mode says how a picture is fitted to the network's input.
type Mode uint8

// The modes. A letterboxed picture keeps its proportions and the rest is padded;
// a stretched one fills the input.
const (
	Letterbox Mode = iota
	Stretch
)

// Anchor says where a letterboxed picture lies in the input.
type Anchor uint8

// The anchors.
const (
	TopLeft Anchor = iota
	Centre
)

// Spec pins all of the way from a picture to a network's input. Any part of it
// that is wrong costs accuracy in silence, so none has a default but the zero
// values named above.
type Spec struct {
	Width, Height int // of the input, pixels
	Layout        Layout
	Order         Order
	Mode          Mode
	Anchor        Anchor
	// Pad is the colour of what a letterboxed picture leaves empty, 0 to 255; it
	// is scaled and shifted like the pixels.
	Pad float32
	// An input value is (v*Scale - Mean)/Std with v from 0 to 255; Mean and Std are
	// in the input's own colour order.
	Scale     float32
	Mean, Std [3]float32
}

// Validate checks sizes and numbers.
func (s *Spec) Validate() error {
	if s.Width < 1 || s.Height < 1 || s.Width > MaxSide || s.Height > MaxSide {
		return fmt.Errorf("input of %dx%d, wants 1 to %d each", s.Width, s.Height, MaxSide)
	}
	if s.Layout > NHWC || s.Order > BGR || s.Mode > Stretch || s.Anchor > Centre {
		return errors.New("layout, colour, mode or anchor is none of those known")
	}
	if !(s.Pad >= 0 && s.Pad <= 255) {
		return fmt.Errorf("pad is %v, wants 0 to 255", s.Pad)
	}
	if !finite(s.Scale) || s.Scale == 0 {
		return fmt.Errorf("scale is %v, wants a finite number other than 0", s.Scale)
	}
	for c := range 3 {
		if !finite(s.Mean[c]) || !finite(s.Std[c]) || s.Std[c] == 0 {
			return fmt.Errorf("mean %v and std %v want finite numbers, std other than 0", s.Mean, s.Std)
		}
	}
	return nil
}

func finite(v float32) bool { return v-v == 0 }

// Prep fills a network's input from pictures. The picture is resized with bilinear
// interpolation between pixel centres, without an antialias filter, clamped at the
// borders; weights are integers of 11 bits, so that each machine gives the same
// bits. Alpha is blended on black.
//
// A Prep belongs to one destination: it remembers which part of it is padding.
type Prep struct {
	spec Spec
	dst  []float32

	src   image.Rectangle // size of the picture that the tables are for
	fit   image.Rectangle // where it lies in the input
	cols  []tap
	rows  []tap
	exact bool // the picture has the size of its place
	half  bool // the picture has twice the size of its place
	m     Mapping

	// mul and sub take a sum of 22 fraction bits to an input value, by channel of
	// the source: R, G, B.
	mul, sub [3]float32
	// quarters are the input values of sums of four pixels, 0 to 4*255.
	quarters [3][1024]float32
	plane    [3]int // where each source channel's values begin in dst
	step     int    // between two pixels of one channel

	planar [3][]float32 // one row by channel, where the input has pixels (NHWC)

	line [2]*image.RGBA // converted rows of pictures that are not RGBA, by parity
	held [2]int         // which source row each holds; -1 none
}

// NewPrep checks the spec and the size of its destination, 3*Width*Height values.
func NewPrep(spec Spec, dst []float32) (*Prep, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("preprocessing: %w", err)
	}
	area := spec.Width * spec.Height
	if len(dst) != 3*area {
		return nil, fmt.Errorf("preprocessing: the input has %d values, wants 3x%dx%d", len(dst), spec.Height, spec.Width)
	}
	p := &Prep{spec: spec, dst: dst, step: 1}
	for c := range 3 {
		in := c // channel c of the source is this one of the input
		if spec.Order == BGR {
			in = 2 - c
		}
		p.mul[c] = spec.Scale / spec.Std[in]
		p.sub[c] = spec.Mean[in] / spec.Std[in]
		for i := range p.quarters[c] {
			p.quarters[c][i] = float32(float32(i)*(p.mul[c]/4)) - p.sub[c]
		}
		p.plane[c] = in * area
		if spec.Layout == NHWC {
			p.plane[c], p.step = in, 3
			p.planar[c] = make([]float32, spec.Width)
		}
	}
	return p, nil
}

// Run fills the destination from a picture and returns the way back.
func (p *Prep) Run(img image.Image) (Mapping, error) {
	if img == nil {
		return Mapping{}, fmt.Errorf("%w: there is none", ErrImage)
	}
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if w < 1 || h < 1 || w > MaxSide || h > MaxSide {
		return Mapping{}, fmt.Errorf("%w: %dx%d pixels, wants 1 to %d each", ErrImage, w, h, MaxSide)
	}
	if p.src.Dx() != w || p.src.Dy() != h {
		p.plan(w, h)
	}
	if rgba, ok := img.(*image.RGBA); ok {
		if len(rgba.Pix) < rgba.PixOffset(b.Max.X-1, b.Max.Y-1)+4 || rgba.Stride < 4*w {
			return Mapping{}, fmt.Errorf("%w: its memory is shorter than its %dx%d pixels", ErrImage, w, h)
		}
		if w > 1 { // blend reads two pixels at once
			for y := range p.rows {
				a := int(p.rows[y].a)
				b := min(a+1, h-1)
				p.row(y, rgba.Pix[a*rgba.Stride:][:4*w], rgba.Pix[b*rgba.Stride:][:4*w])
			}
			return p.m, nil
		}
	}
	p.held = [2]int{-1, -1}
	for y := range p.rows {
		a := int(p.rows[y].a)
		p.row(y, p.convert(img, a), p.convert(img, min(a+1, h-1)))
	}
	return p.m, nil
}

// row writes row y of the picture's place from the two rows of its tap.
func (p *Prep) row(y int, r0, r1 []byte) {
	at := (y+p.fit.Min.Y)*p.spec.Width + p.fit.Min.X
	to := p.planar
	if p.step == 1 {
		for c := range to {
			to[c] = p.dst[p.plane[c]+at:]
		}
	}
	switch t := &p.rows[y]; {
	case p.half:
		p.halve(&to, r0, r1)
	case !p.exact:
		p.blend(&to, r0, r1, uint64(t.w))
	case t.w == one: // the last row, see taps
		p.copyRow(&to, r1)
	default:
		p.copyRow(&to, r0)
	}
	if p.step == 1 {
		return
	}
	for c := range to {
		d := p.dst[p.plane[c]+at*p.step:]
		for i, v := range to[c][:len(p.cols)] {
			d[i*p.step] = v
		}
	}
}

// convert gives row y of any picture as RGBA, and an empty pixel after it. The two
// rows of a tap differ by at most 1, so one line for each parity is enough.
func (p *Prep) convert(img image.Image, y int) []byte {
	i := y & 1
	if p.line[i] == nil || p.line[i].Rect.Dx() != p.src.Dx()+1 {
		p.line[i] = image.NewRGBA(image.Rect(0, 0, p.src.Dx()+1, 1))
		p.held[i] = -1
	}
	if p.held[i] != y {
		at := img.Bounds().Min
		draw.Draw(p.line[i], image.Rect(0, 0, p.src.Dx(), 1), img, image.Pt(at.X, at.Y+y), draw.Src)
		p.held[i] = y
	}
	return p.line[i].Pix
}

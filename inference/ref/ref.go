// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ref is the reference that tests hold the fast code against: the way from
// a picture to a network's input and from its output to boxes, in float64, pixel by
// pixel and box by box, as the formulas stand in the papers and the models' own
// code. It shares no code with packages tensor and detect, only their words. It is
// slow and for tests only.
package ref

import (
	"image"
	"math"
	"sort"

	"fulmar/inference/detect"
	"fulmar/inference/tensor"
	"fulmar/schema"
)

// Fit is where a picture lies in the input: its left top corner and the ratio of
// input pixels to picture pixels.
type Fit struct {
	X, Y, RatioX, RatioY float64
	W, H                 int // of the picture, in the input's pixels
}

// Place computes the fit of a picture of w x h.
func Place(s *tensor.Spec, w, h int) Fit {
	iw, ih := float64(s.Width), float64(s.Height)
	f := Fit{RatioX: iw / float64(w), RatioY: ih / float64(h), W: s.Width, H: s.Height}
	if s.Mode == tensor.Letterbox {
		r := math.Min(f.RatioX, f.RatioY)
		const slip = 1e-9 // a product just below a whole number
		f.W, f.H = max(1, int(float64(w)*r+slip)), max(1, int(float64(h)*r+slip))
		// The models' own code goes back by r, which is off by up to a pixel of the
		// input at the far side, where the size was rounded down.
		f.RatioX, f.RatioY = float64(f.W)/float64(w), float64(f.H)/float64(h)
	}
	if s.Anchor == tensor.Centre {
		f.X, f.Y = float64((s.Width-f.W)/2), float64((s.Height-f.H)/2)
	}
	return f
}

// Input is the network's input for a picture.
func Input(s *tensor.Spec, img image.Image) []float64 {
	b := img.Bounds()
	f := Place(s, b.Dx(), b.Dy())
	src := colours(img)
	out := make([]float64, 3*s.Width*s.Height)
	for y := range s.Height {
		for x := range s.Width {
			rgb := [3]float64{float64(s.Pad), float64(s.Pad), float64(s.Pad)}
			px, py := x-int(f.X), y-int(f.Y)
			if px >= 0 && py >= 0 && px < f.W && py < f.H {
				rgb = src.sample((float64(px)+0.5)*float64(b.Dx())/float64(f.W)-0.5, (float64(py)+0.5)*float64(b.Dy())/float64(f.H)-0.5)
			}
			for c := range 3 {
				v := rgb[c]
				if s.Order == tensor.BGR {
					v = rgb[2-c]
				}
				v = (v*float64(s.Scale) - float64(s.Mean[c])) / float64(s.Std[c])
				if s.Layout == tensor.NHWC {
					out[(y*s.Width+x)*3+c] = v
				} else {
					out[(c*s.Height+y)*s.Width+x] = v
				}
			}
		}
	}
	return out
}

// picture is a picture's colours, 0 to 255.
type picture struct {
	w, h int
	rgb  [][3]float64
}

func colours(img image.Image) picture {
	b := img.Bounds()
	p := picture{w: b.Dx(), h: b.Dy()}
	for y := range p.h {
		for x := range p.w {
			r, g, bl, _ := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
			p.rgb = append(p.rgb, [3]float64{float64(r >> 8), float64(g >> 8), float64(bl >> 8)})
		}
	}
	return p
}

// sample is the colour at a place between pixel centres, clamped at the borders.
func (p *picture) sample(x, y float64) (rgb [3]float64) {
	x0, y0 := math.Floor(x), math.Floor(y)
	for _, n := range [4][3]float64{
		{x0, y0, (x0 + 1 - x) * (y0 + 1 - y)},
		{x0 + 1, y0, (x - x0) * (y0 + 1 - y)},
		{x0, y0 + 1, (x0 + 1 - x) * (y - y0)},
		{x0 + 1, y0 + 1, (x - x0) * (y - y0)},
	} {
		ix := min(max(int(n[0]), 0), p.w-1)
		iy := min(max(int(n[1]), 0), p.h-1)
		for c, v := range p.rgb[iy*p.w+ix] {
			rgb[c] += n[2] * v
		}
	}
	return rgb
}

type box struct {
	class          int
	score          float64
	x0, y0, x1, y1 float64
}

// YOLOX reads an output [1,N,5+classes] into boxes of a picture of w x h.
func YOLOX(s *tensor.Spec, c *detect.Config, out []float32, w, h int) []schema.Box {
	var all []box
	row, width := 0, 5+c.Classes
	for _, stride := range c.Strides {
		for y := range s.Height / stride {
			for x := range s.Width / stride {
				v := out[row*width : (row+1)*width]
				row++
				b := centred((float64(v[0])+float64(x))*float64(stride), (float64(v[1])+float64(y))*float64(stride),
					math.Exp(float64(v[2]))*float64(stride), math.Exp(float64(v[3]))*float64(stride))
				for k := range c.Classes {
					if p := float64(v[4]) * float64(v[5+k]); p > b.score {
						b.class, b.score = k, p
					}
				}
				all = append(all, b)
			}
		}
	}
	return finish(s, c, all, w, h)
}

// UltraFace reads scores [1,4420,2] and offsets [1,4420,4] into boxes of a picture
// of w x h, with the prior boxes of the 320x240 network, relative to the input.
func UltraFace(s *tensor.Spec, c *detect.Config, scores, offsets []float32, w, h int) []schema.Box {
	var all []box
	i := 0
	clip := func(v float64) float64 { return math.Min(math.Max(v, 0), 1) }
	for k, sizes := range [][]float64{{10, 16, 24}, {32, 48}, {64, 96}, {128, 192, 256}} {
		shrink := []float64{8, 16, 32, 64}[k]
		for y := range []int{30, 15, 8, 4}[k] {
			for x := range []int{40, 20, 10, 5}[k] {
				for _, size := range sizes {
					cx, cy := clip((float64(x)+0.5)/(320/shrink)), clip((float64(y)+0.5)/(240/shrink))
					pw, ph := clip(size/320), clip(size/240)
					o := offsets[4*i : 4*i+4]
					b := centred(
						(float64(o[0])*0.1*pw+cx)*320, (float64(o[1])*0.1*ph+cy)*240,
						math.Exp(float64(o[2])*0.2)*pw*320, math.Exp(float64(o[3])*0.2)*ph*240)
					b.score = float64(scores[2*i+1])
					all = append(all, b)
					i++
				}
			}
		}
	}
	return finish(s, c, all, w, h)
}

func centred(x, y, w, h float64) box {
	return box{x0: x - w/2, y0: y - h/2, x1: x + w/2, y1: y + h/2}
}

// finish drops weak boxes, suppresses, and takes the rest to the picture.
func finish(s *tensor.Spec, c *detect.Config, all []box, w, h int) []schema.Box {
	sort.SliceStable(all, func(i, j int) bool { return all[i].score > all[j].score })
	f := Place(s, w, h)
	x := func(v float64) float32 { return float32(math.Min(math.Max((v-f.X)/f.RatioX, 0), float64(w))) }
	y := func(v float64) float32 { return float32(math.Min(math.Max((v-f.Y)/f.RatioY, 0), float64(h))) }
	var kept []box
	for _, b := range all {
		ok := b.score >= float64(c.Score) && len(kept) < c.Max && x(b.x1) > x(b.x0) && y(b.y1) > y(b.y0)
		for _, k := range kept {
			ok = ok && (k.class != b.class || overlap(k, b) <= float64(c.IoU))
		}
		if ok {
			kept = append(kept, b)
		}
	}
	var out []schema.Box
	for _, b := range kept {
		out = append(out, schema.Box{Class: uint16(b.class), Score: float32(b.score), X0: x(b.x0), Y0: y(b.y0), X1: x(b.x1), Y1: y(b.y1)})
	}
	return out
}

func overlap(a, b box) float64 {
	w := math.Max(0, math.Min(a.x1, b.x1)-math.Max(a.x0, b.x0))
	h := math.Max(0, math.Min(a.y1, b.y1)-math.Max(a.y0, b.y0))
	return w * h / ((a.x1-a.x0)*(a.y1-a.y0) + (b.x1-b.x0)*(b.y1-b.y0) - w*h)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"image"
	"math"
)

// rnd is splitmix64: small, seedable by place, the same on every machine.
type rnd struct{ s uint64 }

func newRand(seed, place uint64) *rnd {
	r := &rnd{seed*0x9e3779b97f4a7c15 ^ place*0xd1342543de82ef95}
	r.next()
	return r
}

func (r *rnd) next() uint64 {
	r.s += 0x9e3779b97f4a7c15
	z := r.s
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rnd) float() float64            { return float64(r.next()>>11) / (1 << 53) }
func (r *rnd) in(lo, hi float64) float64 { return lo + (hi-lo)*r.float() }
func (r *rnd) n(n int) int               { return int(r.next() % uint64(n)) }

// hash2 gives smooth-noise lattice values, 0 to 1.
func hash2(seed uint64, x, y int) float64 {
	z := seed ^ uint64(uint32(x))*0x9e3779b97f4a7c15 ^ uint64(uint32(y))*0xc2b2ae3d27d4eb4f
	z = (z ^ z>>29) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>32) * 0x94d049bb133111eb
	return float64(z>>11) / (1 << 53)
}

// smooth is value noise of unit cell size.
func smooth(seed uint64, x, y float64) float64 {
	ix, iy := math.Floor(x), math.Floor(y)
	fx, fy := x-ix, y-iy
	fx, fy = fx*fx*(3-2*fx), fy*fy*(3-2*fy)
	i, j := int(ix), int(iy)
	a := hash2(seed, i, j) + fx*(hash2(seed, i+1, j)-hash2(seed, i, j))
	b := hash2(seed, i, j+1) + fx*(hash2(seed, i+1, j+1)-hash2(seed, i, j+1))
	return a + fy*(b-a)
}

// rgb is linear in byte values, 0 to 255 each.
type rgb struct{ r, g, b float64 }

func (c rgb) mul(k float64) rgb { return rgb{c.r * k, c.g * k, c.b * k} }
func (c rgb) mix(o rgb, k float64) rgb {
	return rgb{c.r + (o.r-c.r)*k, c.g + (o.g-c.g)*k, c.b + (o.b-c.b)*k}
}

// belts is how many kinds of belt there are; split by Split.
const belts = 6

// strip is the ground: floor, rails and one period of the belt.
type strip struct {
	w, h   int
	top    int // of the belt, pixels
	bottom int
	period int
	floor  []uint8 // w x h RGBA, still
	moving []uint8 // period x (bottom-top) RGBA
}

func newStrip(s Settings, scale float64) *strip {
	b := &strip{w: s.Width, h: s.Height, top: int(44 * scale), bottom: s.Height - int(44*scale), period: int(840 * scale)}
	b.floor = make([]uint8, b.w*b.h*4)
	b.moving = make([]uint8, b.period*(b.bottom-b.top)*4)
	seed := s.Seed*31 + uint64(s.Belt)
	tone := []rgb{{58, 62, 66}, {44, 58, 52}, {70, 66, 60}, {46, 50, 64}, {62, 58, 68}, {74, 78, 74}}[s.Belt]
	floor := []rgb{{128, 124, 116}, {104, 112, 118}, {140, 132, 120}, {112, 116, 108}, {96, 100, 108}, {132, 128, 132}}[s.Belt]
	rail := rgb{168, 172, 176}
	for y := range b.h {
		for x := range b.w {
			c := floor.mul(0.82 + 0.36*smooth(seed, float64(x)/37/scale, float64(y)/29/scale))
			d := min(math.Abs(float64(y-b.top)), math.Abs(float64(y-b.bottom))) / scale
			switch {
			case d < 7: // rails, lit from above
				c = rail.mul(1.08 - 0.07*d)
				if int(float64(x)/scale)%96 < 8 {
					c = rgb{92, 96, 100}
				}
			case d < 12:
				c = c.mul(0.55)
			case d > 20 && d < 26 && int(float64(x+y)/scale)%28 < 14:
				c = rgb{186, 152, 30} // warning stripes
			}
			put(b.floor[(y*b.w+x)*4:], c)
		}
	}
	for y := range b.bottom - b.top {
		for x := range b.period {
			// The texture closes on itself after one period.
			a := 2 * math.Pi * float64(x) / float64(b.period)
			k := smooth(seed+1, 40+24*math.Cos(a), 24*math.Sin(a)+float64(y)/11/scale)
			fine := hash2(seed+2, x, y)
			c := tone.mul(0.86 + 0.2*k + 0.1*fine)
			if m := x % (b.period / 6); m < int(3*scale) { // seams of the belt
				c = c.mul(0.72)
			}
			if int(float64(y)/scale)%24 == 0 {
				c = c.mul(0.93)
			}
			put(b.moving[(y*b.period+x)*4:], c)
		}
	}
	return b
}

// lane is the middle of a row of parcels.
func (b *strip) lane(r int) float64 {
	return float64(b.top) + float64(b.bottom-b.top)*(0.28+0.44*float64(r))
}

func (b *strip) draw(dst *image.RGBA, shift float64) {
	off := int(math.Mod(-shift, float64(b.period)))
	if off < 0 {
		off += b.period
	}
	for y := range b.h {
		line := dst.Pix[y*dst.Stride : y*dst.Stride+b.w*4]
		copy(line, b.floor[y*b.w*4:(y+1)*b.w*4])
		if y < b.top+3 || y >= b.bottom-3 {
			continue
		}
		src := b.moving[(y-b.top)*b.period*4 : (y-b.top+1)*b.period*4]
		for x, o := 0, off; x < b.w; {
			n := copy(line[x*4:], src[o*4:])
			x, o = x+n/4, 0
		}
	}
}

// drawArm draws a gripper's beam across the belt and its wrist.
func (s *Scene) drawArm(dst *image.RGBA, x0 int) {
	half := int(9 * s.scale)
	wrist := int(float64(s.set.Height) * 0.5)
	for y := range s.set.Height {
		w := half
		if d := y - wrist; d > -int(16*s.scale) && d < int(16*s.scale) {
			w = half * 2
		}
		for x := max(x0-w, 0); x < min(x0+w, s.set.Width); x++ {
			k := 1 - math.Abs(float64(x-x0))/float64(w)
			c := rgb{214, 120, 32}.mul(0.55 + 0.5*k)
			if w > half {
				c = rgb{70, 74, 80}.mul(0.6 + 0.6*k)
			}
			put(dst.Pix[y*dst.Stride+x*4:], c)
			s.owner[y/cell*s.ow+x/cell] = 255
		}
	}
}

func put(p []uint8, c rgb) {
	p[0], p[1], p[2], p[3] = clamp(int32(c.r)), clamp(int32(c.g)), clamp(int32(c.b)), 255
}

// vignette is the lens: light falling off to the corners, 256 = 1.
func vignette(w, h int) []uint16 {
	v := make([]uint16, w*h)
	for y := range h {
		for x := range w {
			dx, dy := float64(2*x-w)/float64(w), float64(2*y-h)/float64(w)
			v[y*w+x] = uint16(256 * (1.04 - 0.16*(dx*dx+dy*dy)))
		}
	}
	return v
}

const noiseLen = 1 << 16

// noiseTable holds Gaussian noise, looked up from a random place each line.
func noiseTable(seed uint64, sigma float64) []int8 {
	r := newRand(seed, 0x6e6f)
	t := make([]int8, noiseLen)
	for i := range t {
		sum := r.float() + r.float() + r.float() + r.float() - 2 // variance 1/3
		t[i] = int8(max(-127, min(127, math.Round(sum*sigma*math.Sqrt(3)))))
	}
	return t
}

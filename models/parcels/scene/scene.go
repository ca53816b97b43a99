// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"fmt"
	"image"
	"math"
)

// The classes, in the order of model.yaml.
const (
	ClassParcel  = 0
	ClassDamaged = 1
	ClassLabel   = 2
)

// Classes names the classes by index.
func Classes() []string { return []string{"parcel", "damaged", "label"} }

// Bounds of the settings.
const (
	minSide, maxSide = 128, 2048
	maxSpeed         = 64   // pixels a frame
	maxNoise         = 64   // standard deviation, of 255
	minVisible       = 0.35 // a parcel seen less than this is not truth: nobody could tell
	minHarm          = 0.25 // a parcel whose harm is seen less than this is not called damaged
)

// Settings shape the world. The same settings, seed and frame number draw the
// same picture, bit for bit.
type Settings struct {
	Width, Height int     // of the picture, pixels
	Seed          uint64  // which parcels, which belt
	Speed         float64 // belt, pixels a frame
	Density       float64 // share of places on the belt that hold a parcel, 0 to 1
	LightMin      float64 // gain of the darkest moment, 0.2 to 2
	LightMax      float64 // gain of the brightest moment
	Noise         float64 // sensor noise, standard deviation of 255
	Blur          int     // motion blur, pixels along the belt
	Belt          int     // which belt, 0 to 5
	Occluder      float64 // share of the time an arm hangs over the belt, 0 to 1
}

// Default is the camera of the running system. Training, calibration and test use
// settings; see Split.
func Default() Settings {
	return Settings{
		Width: 640, Height: 384, Seed: 1, Speed: 4, Density: 0.8, LightMin: 0.85, LightMax: 1.1,
		Noise: 4, Blur: 2, Belt: 0, Occluder: 0.2,
	}
}

// Validate says which setting is out of its bounds.
func (s *Settings) Validate() error {
	in := func(v, lo, hi float64) bool { return v >= lo && v <= hi }
	switch {
	case s.Width < minSide || s.Width > maxSide || s.Height < minSide || s.Height > maxSide:
		return fmt.Errorf("scene of %dx%d pixels, wants %d to %d each", s.Width, s.Height, minSide, maxSide)
	case !in(s.Speed, 0, maxSpeed):
		return fmt.Errorf("scene speed %v, wants 0 to %d pixels a frame", s.Speed, maxSpeed)
	case !in(s.Density, 0, 1) || !in(s.Occluder, 0, 1):
		return fmt.Errorf("scene density %v and occluder %v, want 0 to 1", s.Density, s.Occluder)
	case !in(s.LightMin, 0.2, 2) || !in(s.LightMax, s.LightMin, 2):
		return fmt.Errorf("scene light %v to %v, wants a rising range within 0.2 to 2", s.LightMin, s.LightMax)
	case !in(s.Noise, 0, maxNoise):
		return fmt.Errorf("scene noise %v, wants 0 to %d", s.Noise, maxNoise)
	case s.Blur < 0 || s.Blur > 16:
		return fmt.Errorf("scene blur %d, wants 0 to 16 pixels", s.Blur)
	case s.Belt < 0 || s.Belt >= belts:
		return fmt.Errorf("scene belt %d, wants 0 to %d", s.Belt, belts-1)
	}
	return nil
}

// Truth is one thing in the picture.
type Truth struct {
	Class   int
	Box     [4]float32 // x0, y0, x1, y1 in pixels, the far corner exclusive, clipped to the picture
	Digit   int8       // lane digit on a label; -1 where there is none
	Visible float32    // share of it that can be seen
}

// Scene draws one camera. It is not safe for use by several goroutines.
type Scene struct {
	set     Settings
	scale   float64 // of all lengths: 1 at a height of 384
	belt    *strip
	vign    []uint16 // light falling off to the corners, 256 = 1
	noise   []int8
	sprites map[slot]*sprite
	owner   []uint8 // which thing is on top, one cell for 4x4 pixels
	ow, oh  int
	row     []uint8 // for the motion blur
}

type slot struct{ row, n int }

// rows of parcels on the belt and the length of one place, at scale 1.
const (
	rows      = 2
	slotWidth = 210.0
	cell      = 4
)

// New makes a scene.
func New(s Settings) (*Scene, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	sc := &Scene{set: s, scale: float64(s.Height) / 384, sprites: map[slot]*sprite{}}
	sc.belt = newStrip(s, sc.scale)
	sc.vign = vignette(s.Width, s.Height)
	sc.noise = noiseTable(s.Seed, s.Noise)
	sc.ow, sc.oh = (s.Width+cell-1)/cell, (s.Height+cell-1)/cell
	sc.owner = make([]uint8, sc.ow*sc.oh)
	sc.row = make([]uint8, s.Width*4)
	return sc, nil
}

// Frame draws frame n into dst, which must have the scene's size, and tells what
// is in it. Frames may be drawn in any order; rising ones are cheapest.
func (s *Scene) Frame(n uint64, dst *image.RGBA) ([]Truth, error) {
	if dst.Bounds() != image.Rect(0, 0, s.set.Width, s.set.Height) {
		return nil, fmt.Errorf("scene of %dx%d drawn into %v", s.set.Width, s.set.Height, dst.Bounds())
	}
	shift := s.set.Speed * float64(n)
	s.belt.draw(dst, shift)
	clear(s.owner)
	placed := s.place(shift)
	for i, p := range placed {
		p.sp.shadow(dst, p.x, p.y, s.scale)
		p.sp.draw(dst, p.x, p.y)
		s.own(p, uint8(i+1))
	}
	if x, ok := s.arm(n); ok {
		s.drawArm(dst, x)
	}
	s.expose(n, dst)
	return s.truths(placed), nil
}

type placed struct {
	sp   *sprite
	x, y int
}

// place finds the parcels in view. Row 1 comes after row 0, so where they touch
// it lies on top.
func (s *Scene) place(shift float64) []placed {
	var out []placed
	width := slotWidth * s.scale
	first := int(math.Floor(-shift/width)) - 2
	last := int(math.Floor((float64(s.set.Width)-shift)/width)) + 1
	for r := range rows {
		for n := first; n <= last; n++ {
			sp := s.sprite(slot{r, n})
			if sp.empty {
				continue
			}
			x := int(math.Round((float64(n)+sp.jx)*width + shift))
			y := int(math.Round(s.belt.lane(r) + sp.jy*s.scale - float64(sp.h)/2))
			if x+sp.w > 0 && x < s.set.Width {
				out = append(out, placed{sp, x, y})
			}
		}
	}
	for k := range s.sprites { // bounded: only what is near the view is kept
		if k.n < first-1 || k.n > last+1 {
			delete(s.sprites, k)
		}
	}
	return out
}

func (s *Scene) sprite(k slot) *sprite {
	sp := s.sprites[k]
	if sp == nil {
		rng := newRand(s.set.Seed, uint64(k.row)<<40^uint64(uint32(k.n)))
		if rng.float() > s.set.Density {
			sp = &sprite{empty: true}
		} else {
			sp = newSprite(rng, s.scale)
		}
		s.sprites[k] = sp
	}
	return sp
}

// own marks the cells that a parcel covers now.
func (s *Scene) own(p placed, id uint8) {
	for cy := max(p.y/cell, 0); cy < min((p.y+p.sp.h)/cell+1, s.oh); cy++ {
		for cx := max(p.x/cell, 0); cx < min((p.x+p.sp.w)/cell+1, s.ow); cx++ {
			if p.sp.solid(cx*cell+cell/2-p.x, cy*cell+cell/2-p.y) {
				s.owner[cy*s.ow+cx] = id
			}
		}
	}
}

func (s *Scene) truths(all []placed) []Truth {
	out := make([]Truth, 0, 2*len(all))
	for i, p := range all {
		id := uint8(i + 1)
		class := ClassParcel
		if p.sp.damaged && s.share(p, p.sp.body, id, p.sp.onHarm) >= minHarm {
			class = ClassDamaged
		}
		if t, ok := s.truth(p, p.sp.body, id, p.sp.solid); ok {
			t.Class, t.Digit = class, -1
			out = append(out, t)
		}
		if t, ok := s.truth(p, p.sp.label, id, p.sp.onLabel); ok {
			t.Class, t.Digit = ClassLabel, p.sp.digit
			out = append(out, t)
		}
	}
	return out
}

// share is how much of what is covered, in the picture or out of it, is on top.
func (s *Scene) share(p placed, r image.Rectangle, id uint8, covers func(x, y int) bool) float32 {
	total, seen := 0, 0
	for y := r.Min.Y; y < r.Max.Y; y += 2 {
		for x := r.Min.X; x < r.Max.X; x += 2 {
			if !covers(x, y) {
				continue
			}
			total++
			if s.onTop(x+p.x, y+p.y, id) {
				seen++
			}
		}
	}
	return float32(seen) / float32(max(total, 1))
}

// onTop tells whether a pixel is in the picture and shows the thing.
func (s *Scene) onTop(x, y int, id uint8) bool {
	return x >= 0 && y >= 0 && x < s.set.Width && y < s.set.Height && s.owner[y/cell*s.ow+x/cell] == id
}

// truth boxes the part of a thing inside the picture and counts how much of the
// thing (all of it, also outside) is on top.
func (s *Scene) truth(p placed, r image.Rectangle, id uint8, covers func(x, y int) bool) (Truth, bool) {
	total, seen := 0, 0
	box := image.Rectangle{}
	for y := r.Min.Y; y < r.Max.Y; y += 2 {
		for x := r.Min.X; x < r.Max.X; x += 2 {
			if !covers(x, y) {
				continue
			}
			total++
			px, py := x+p.x, y+p.y
			if !s.onTop(px, py, id) {
				continue
			}
			seen++
			box = box.Union(image.Rect(px, py, px+2, py+2))
		}
	}
	if total == 0 {
		return Truth{}, false
	}
	visible := float32(seen) / float32(total)
	box = box.Intersect(image.Rect(0, 0, s.set.Width, s.set.Height))
	if visible < minVisible || box.Dx() < 4 || box.Dy() < 4 {
		return Truth{}, false
	}
	return Truth{
		Box:     [4]float32{float32(box.Min.X), float32(box.Min.Y), float32(box.Max.X), float32(box.Max.Y)},
		Visible: visible,
	}, true
}

// armHold is how long, in frames, an arm stays or stays away.
const armHold = 24

// arm tells whether the arm hangs over the belt in frame n and where.
func (s *Scene) arm(n uint64) (int, bool) {
	rng := newRand(s.set.Seed^0xa7, n/armHold)
	if rng.float() >= s.set.Occluder {
		return 0, false
	}
	at := rng.float() * float64(s.set.Width)
	phase := float64(n%armHold) / armHold
	return int(at + 60*s.scale*math.Sin(2*math.Pi*phase)), true
}

// expose turns what is there into what a camera gives: light, motion, noise.
func (s *Scene) expose(n uint64, dst *image.RGBA) {
	mid, amp := (s.set.LightMin+s.set.LightMax)/2, (s.set.LightMax-s.set.LightMin)/2
	slow := math.Sin(float64(n)/173+float64(s.set.Seed%64)) * 0.7
	flicker := (newRand(s.set.Seed^0xf1, n).float() - 0.5) * 0.6
	gain := uint32((mid + amp*(slow+flicker)) * 256)
	off := int(newRand(s.set.Seed^0x90, n).next() % noiseLen)
	w := s.set.Width
	for y := range s.set.Height {
		line := dst.Pix[y*dst.Stride : y*dst.Stride+w*4]
		if s.set.Blur > 0 {
			s.smear(line)
		}
		v := s.vign[y*w : (y+1)*w]
		k := (off + y*7919) % noiseLen
		for x := range w {
			g := gain * uint32(v[x]) >> 8
			nz := int32(s.noise[k])
			if k++; k == noiseLen {
				k = 0
			}
			q := line[x*4 : x*4+4 : x*4+4]
			q[0] = clamp(int32(uint32(q[0])*g>>8) + nz)
			q[1] = clamp(int32(uint32(q[1])*g>>8) + nz)
			q[2] = clamp(int32(uint32(q[2])*g>>8) + nz)
			q[3] = 255
		}
	}
}

// smear is a running mean along the belt.
func (s *Scene) smear(line []uint8) {
	copy(s.row, line)
	n := s.set.Blur + 1
	inv := uint32(65536 / n)
	var r, g, b uint32
	w := len(line) / 4
	for x := -n + 1; x < w; x++ {
		in := s.row[min(x+n-1, w-1)*4:]
		r, g, b = r+uint32(in[0]), g+uint32(in[1]), b+uint32(in[2])
		if x < 0 {
			continue
		}
		o := line[x*4 : x*4+4 : x*4+4]
		o[0], o[1], o[2] = uint8(r*inv>>16), uint8(g*inv>>16), uint8(b*inv>>16)
		out := s.row[x*4:]
		r, g, b = r-uint32(out[0]), g-uint32(out[1]), b-uint32(out[2])
	}
}

func clamp(v int32) uint8 {
	if v < 0 {
		return 0
	}
	if v > 255 {
		return 255
	}
	return uint8(v)
}

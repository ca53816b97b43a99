// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tensor_test

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"fulmar/inference/ref"
	"fulmar/inference/tensor"
)

func yolox(w, h int) tensor.Spec {
	return tensor.Spec{Width: w, Height: h, Order: tensor.BGR, Mode: tensor.Letterbox, Pad: 114, Scale: 1, Std: [3]float32{1, 1, 1}}
}

func noise(w, h int, seed uint64) *image.RGBA {
	r := rand.New(rand.NewPCG(seed, 1))
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8(r.Uint32())
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

// as turns a picture into another type, moved away from the origin and cut out of a
// larger one, as pictures may come.
func as(kind string, src *image.RGBA) image.Image {
	in := image.Rect(0, 0, src.Rect.Dx()+7, src.Rect.Dy()+5)
	cut := src.Rect.Add(image.Pt(4, 2))
	var dst draw.Image
	switch kind {
	case "rgba":
		dst = image.NewRGBA(in)
	case "nrgba":
		dst = image.NewNRGBA(in)
	case "gray":
		dst = image.NewGray(in)
	case "ycbcr":
		y := image.NewYCbCr(in, image.YCbCrSubsampleRatio420)
		for py := range in.Dy() {
			for px := range in.Dx() {
				c := src.RGBAAt(min(max(px-4, 0), src.Rect.Dx()-1), min(max(py-2, 0), src.Rect.Dy()-1))
				y.Y[y.YOffset(px, py)], y.Cb[y.COffset(px, py)], y.Cr[y.COffset(px, py)] = color.RGBToYCbCr(c.R, c.G, c.B)
			}
		}
		return y.SubImage(cut)
	}
	draw.Draw(dst, cut, src, image.Point{}, draw.Src)
	return dst.(interface {
		SubImage(image.Rectangle) image.Image
	}).SubImage(cut)
}

// The largest difference from the exact value, in steps of 0 to 255: two weights of
// 11 bits, each rounded by at most half a step of 1/2048.
const tolerance = 255.0/2048 + 0.01

// TestPrepLikeReference covers sizes, types, layouts and modes against float64.
func TestPrepLikeReference(t *testing.T) {
	specs := map[string]tensor.Spec{
		"yolox":     yolox(64, 48),
		"centre":    {Width: 48, Height: 64, Mode: tensor.Letterbox, Anchor: tensor.Centre, Pad: 128, Scale: 1.0 / 255, Std: [3]float32{1, 1, 1}},
		"stretch":   {Width: 40, Height: 30, Mode: tensor.Stretch, Scale: 1, Mean: [3]float32{127, 127, 127}, Std: [3]float32{128, 128, 128}},
		"imagenet":  {Width: 33, Height: 31, Order: tensor.BGR, Mode: tensor.Stretch, Scale: 1.0 / 255, Mean: [3]float32{0.406, 0.456, 0.485}, Std: [3]float32{0.225, 0.224, 0.229}},
		"nhwc, bgr": {Width: 32, Height: 32, Layout: tensor.NHWC, Order: tensor.BGR, Mode: tensor.Letterbox, Anchor: tensor.Centre, Pad: 7, Scale: 2, Mean: [3]float32{1, 2, 3}, Std: [3]float32{2, 3, 4}},
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			dst := make([]float32, 3*spec.Width*spec.Height)
			p, err := tensor.NewPrep(spec, dst)
			if err != nil {
				t.Fatal(err)
			}
			// One Prep through all sizes, so that padding of one does not stay for the next.
			for i, size := range [][2]int{{64, 48}, {128, 96}, {80, 60}, {66, 62}, {40, 30}, {200, 31}, {31, 200}, {1, 1}, {1, 90}, {90, 1}, {17, 13}, {64, 48}} {
				for _, kind := range []string{"rgba", "nrgba", "gray", "ycbcr"} {
					img := as(kind, noise(size[0], size[1], uint64(i)))
					m, err := p.Run(img)
					if err != nil {
						t.Fatal(err)
					}
					if m.Width != size[0] || m.Height != size[1] {
						t.Errorf("mapping leads to %dx%d, want %v", m.Width, m.Height, size)
					}
					if at, off := worst(&spec, dst, ref.Input(&spec, img)); off > tolerance {
						t.Errorf("%s of %v: value %d is off by %.3f of 255", kind, size, at, off)
					}
				}
			}
		})
	}
}

// worst is the largest difference, in steps of the source, 0 to 255.
func worst(s *tensor.Spec, got []float32, want []float64) (at int, off float64) {
	for i := range want {
		c := i / (s.Width * s.Height)
		if s.Layout == tensor.NHWC {
			c = i % 3
		}
		d := math.Abs(float64(got[i])-want[i]) * math.Abs(float64(s.Std[c])/float64(s.Scale))
		if !(d <= off) {
			at, off = i, d
		}
	}
	return at, off
}

// TestPrepBits pins the bits: they must be the same on each machine and release.
func TestPrepBits(t *testing.T) {
	spec := tensor.Spec{Width: 57, Height: 43, Mode: tensor.Letterbox, Anchor: tensor.Centre, Pad: 114, Scale: 1.0 / 255, Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}}
	dst := make([]float32, 3*spec.Width*spec.Height)
	p, err := tensor.NewPrep(spec, dst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(noise(101, 67, 3)); err != nil {
		t.Fatal(err)
	}
	h := uint64(14695981039346656037)
	for _, v := range dst {
		h = (h ^ uint64(math.Float32bits(v))) * 1099511628211
	}
	const want = 0x289af7cc2715ecbf
	if h != want {
		t.Errorf("the input's bits have hash %#x, want %#x", h, uint64(want))
	}
}

// TestShortcutsHaveTheSameBits compares the quick ways, for pictures of the input's
// size and of twice that, with the general one, over flat pictures of each colour.
func TestShortcutsHaveTheSameBits(t *testing.T) {
	spec := tensor.Spec{Width: 8, Height: 8, Mode: tensor.Stretch, Scale: 1.0 / 255, Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}}
	dst := make([]float32, 3*8*8)
	p, err := tensor.NewPrep(spec, dst)
	if err != nil {
		t.Fatal(err)
	}
	for v := range 256 {
		var first []float32
		for _, side := range []int{13, 8, 16} {
			img := image.NewRGBA(image.Rect(0, 0, side, side))
			draw.Draw(img, img.Rect, image.NewUniform(color.RGBA{uint8(v), uint8(255 - v), uint8(v ^ 0x55), 255}), image.Point{}, draw.Src)
			if _, err := p.Run(img); err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = slices.Clone(dst)
			} else if !slices.Equal(first, dst) {
				t.Fatalf("colour %d: a picture of %dx%d gives other bits than one of 13x13", v, side, side)
			}
		}
	}
}

func TestMappingGoesBack(t *testing.T) {
	for _, spec := range []tensor.Spec{yolox(416, 416), {Width: 320, Height: 240, Mode: tensor.Stretch, Scale: 1, Std: [3]float32{1, 1, 1}}, {Width: 300, Height: 500, Anchor: tensor.Centre, Scale: 1, Std: [3]float32{1, 1, 1}}, {Width: 900, Height: 300, Anchor: tensor.Centre, Scale: 1, Std: [3]float32{1, 1, 1}}} {
		p, err := tensor.NewPrep(spec, make([]float32, 3*spec.Width*spec.Height))
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Run(image.NewRGBA(image.Rect(0, 0, 640, 363)))
		if err != nil {
			t.Fatal(err)
		}
		f := ref.Place(&spec, 640, 363)
		in := [4]float32{float32(100*f.RatioX + f.X), float32(50*f.RatioY + f.Y), float32(300*f.RatioX + f.X), float32(350*f.RatioY + f.Y)}
		got, ok := m.Box(in[0], in[1], in[2], in[3])
		for i, want := range [4]float32{100, 50, 300, 350} {
			if !ok || math.Abs(float64(got[i]-want)) > 0.01 {
				t.Errorf("%+v: box is %v %v, want 100 50 300 350", spec, got, ok)
				break
			}
		}
		if got, ok := m.Box(-1e9, -1e9, 1e9, 1e9); !ok || got != [4]float32{0, 0, 640, 363} {
			t.Errorf("a box around all is %v %v, want the picture", got, ok)
		}
		nan := float32(math.NaN())
		for _, b := range [][4]float32{{nan, 0, 10, 10}, {0, 0, nan, 10}, {0, nan, 10, nan}, {10, 10, 5, 5}, {1e9, 0, 2e9, 10}, {5, 5, 5, 9}} {
			if got, ok := m.Box(b[0], b[1], b[2], b[3]); ok {
				t.Errorf("box %v became %v, want none", b, got)
			}
		}
	}
}

func TestPrepRefuses(t *testing.T) {
	good := yolox(16, 16)
	p, err := tensor.NewPrep(good, make([]float32, 3*16*16))
	if err != nil {
		t.Fatal(err)
	}
	for name, img := range map[string]image.Image{
		"none":    nil,
		"empty":   image.NewRGBA(image.Rect(0, 0, 0, 5)),
		"wide":    &image.RGBA{Rect: image.Rect(0, 0, tensor.MaxSide+1, 1)},
		"short":   &image.RGBA{Pix: make([]byte, 100), Stride: 64, Rect: image.Rect(0, 0, 16, 16)},
		"overlap": &image.RGBA{Pix: make([]byte, 4096), Stride: 4, Rect: image.Rect(0, 0, 16, 16)},
		"uniform": image.NewUniform(color.White), // a billion pixels a side
	} {
		if _, err := p.Run(img); !errors.Is(err, tensor.ErrImage) {
			t.Errorf("%s: %v, want %v", name, err, tensor.ErrImage)
		}
	}
	nan := float32(math.NaN())
	for i, change := range []func(*tensor.Spec){
		func(s *tensor.Spec) { s.Width = 0 },
		func(s *tensor.Spec) { s.Height = tensor.MaxSide + 1 },
		func(s *tensor.Spec) { s.Pad = 256 },
		func(s *tensor.Spec) { s.Pad = nan },
		func(s *tensor.Spec) { s.Scale = 0 },
		func(s *tensor.Spec) { s.Std[1] = 0 },
		func(s *tensor.Spec) { s.Mean[2] = nan },
		func(s *tensor.Spec) { s.Mode = 9 },
	} {
		s := good
		change(&s)
		if _, err := tensor.NewPrep(s, make([]float32, 3*16*16)); err == nil {
			t.Errorf("spec %d was taken: %+v", i, s)
		}
	}
	if _, err := tensor.NewPrep(good, make([]float32, 5)); err == nil {
		t.Error("a destination of 5 values was taken")
	}
}

func TestPrepAllocatesNothing(t *testing.T) {
	p, err := tensor.NewPrep(yolox(96, 96), make([]float32, 3*96*96))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"rgba", "ycbcr"} {
		img := as(kind, noise(160, 120, 1))
		if n := testing.AllocsPerRun(20, func() {
			if _, err := p.Run(img); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a frame allocates %v times, want 0", kind, n)
		}
	}
}

func TestTensor(t *testing.T) {
	f, err := tensor.New("f", tensor.Float32, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	f.Float32()[4] = 7
	if v, err := f.Dense().At(1, 1); err != nil || v != float32(7) {
		t.Errorf("the dense view has %v (%v) at 1,1, want 7", v, err)
	}
	if f.Int64() != nil {
		t.Error("float32 memory was given as int64")
	}
	n, err := tensor.New("n", tensor.Int64, 2)
	if err != nil {
		t.Fatal(err)
	}
	n.Int64()[1] = -5
	if v, err := n.Dense().At(1); err != nil || v != int64(-5) {
		t.Errorf("the dense view has %v (%v) at 1, want -5", v, err)
	}
	for _, v := range []*tensor.Tensor{f, n, f} { // f twice
		if err := v.Free(); err != nil {
			t.Error(err)
		}
	}
	if f.Float32() != nil || f.Dense() != nil {
		t.Error("a freed tensor gives its memory")
	}
	for _, shape := range [][]int{{}, {0}, {-1}, {3, 0}, {1 << 14, 1 << 14}, {1 << 62, 4}, {1, 1, 1, 1, 1, 1, 1, 1, 1}} {
		if _, err := tensor.New("bad", tensor.Float32, shape...); err == nil {
			t.Errorf("shape %v was taken", shape)
		}
	}
}

func TestPart(t *testing.T) {
	for _, typ := range []tensor.Type{tensor.Float32, tensor.Int64} {
		b, err := tensor.New("b", typ, 3, 2, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			p := b.Part(i)
			if p.Name() != "b" || p.Type() != typ || !slices.Equal(p.Shape(), []int{1, 2, 2}) || p.Len() != 4 {
				t.Errorf("part %d is %v with %d values", i, p, p.Len())
			}
			if typ == tensor.Float32 {
				p.Float32()[3] = float32(i + 1)
			} else {
				p.Int64()[3] = int64(i + 1)
			}
			if v, err := b.Dense().At(i, 1, 1); err != nil || fmt.Sprint(v) != fmt.Sprint(i+1) {
				t.Errorf("the batch has %v (%v) where part %d wrote %d", v, err, i, i+1)
			}
			if v, err := p.Dense().At(0, 1, 1); err != nil || fmt.Sprint(v) != fmt.Sprint(i+1) {
				t.Errorf("part %d has %v (%v) where it wrote %d", i, v, err, i+1)
			}
			if err := p.Free(); err != nil || p.Dense() != nil {
				t.Errorf("free of a part: %v", err)
			}
		}
		if v, err := b.Dense().At(2, 1, 1); err != nil || fmt.Sprint(v) != "3" {
			t.Errorf("after a part's Free the batch has %v (%v)", v, err)
		}
		for _, i := range []int{-1, 3} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("part %d of 3 was given", i)
					}
				}()
				b.Part(i)
			}()
		}
		if err := b.Free(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzPrep runs any size and kind of picture through any size of input.
func FuzzPrep(f *testing.F) {
	f.Add(uint16(16), uint16(12), uint16(30), uint16(7), uint8(0))
	f.Add(uint16(1), uint16(1), uint16(1), uint16(1), uint8(255))
	f.Fuzz(func(t *testing.T, iw, ih, w, h uint16, bits uint8) {
		const side = 96 // pixels; larger ones only cost time
		spec := tensor.Spec{
			Width: int(iw%side) + 1, Height: int(ih%side) + 1, Layout: tensor.Layout(bits & 1), Order: tensor.Order(bits >> 1 & 1),
			Mode: tensor.Mode(bits >> 2 & 1), Anchor: tensor.Anchor(bits >> 3 & 1), Pad: float32(bits), Scale: 1, Std: [3]float32{1, 1, 1},
		}
		dst := make([]float32, 3*spec.Width*spec.Height)
		p, err := tensor.NewPrep(spec, dst)
		if err != nil {
			t.Fatal(err)
		}
		img := as([]string{"rgba", "nrgba", "gray", "ycbcr"}[bits>>4&3], noise(int(w%side)+1, int(h%side)+1, uint64(bits)))
		if _, err := p.Run(img); err != nil {
			t.Fatal(err)
		}
		if at, off := worst(&spec, dst, ref.Input(&spec, img)); off > tolerance {
			t.Errorf("value %d is off by %.3f of 255", at, off)
		}
	})
}

func BenchmarkPrep(b *testing.B) {
	for _, kind := range []string{"rgba", "ycbcr"} {
		for _, size := range [][2]int{{416, 416}, {832, 832}, {640, 480}, {1920, 1080}} {
			b.Run(fmt.Sprintf("%s-%dx%d-416", kind, size[0], size[1]), func(b *testing.B) {
				p, err := tensor.NewPrep(yolox(416, 416), make([]float32, 3*416*416))
				if err != nil {
					b.Fatal(err)
				}
				img := as(kind, noise(size[0], size[1], 1))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := p.Run(img); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

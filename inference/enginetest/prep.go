// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"image"
	"math"
	"math/rand/v2"
	"testing"

	"fulmar/inference/tensor"
)

// Specs are what model packages may ask of the preprocessing.
func Specs() []tensor.Spec {
	var out []tensor.Spec
	for i, size := range [][2]int{{416, 416}, {320, 192}, {320, 240}, {640, 640}, {31, 17}} {
		for _, mode := range []tensor.Mode{tensor.Letterbox, tensor.Stretch} {
			s := tensor.Spec{
				Width: size[0], Height: size[1], Mode: mode, Pad: 114, Scale: 1.0 / 255,
				Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225},
			}
			if i%2 == 1 {
				s.Order, s.Layout, s.Scale, s.Mean, s.Std = tensor.BGR, tensor.NHWC, 1, [3]float32{}, [3]float32{1, 1, 1}
			}
			if i%3 == 0 {
				s.Anchor = tensor.Centre
			}
			out = append(out, s)
		}
	}
	return out
}

// Noise is a picture of noise, the same for the same size.
func Noise(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	r := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	return img
}

// Preprocess checks that run, once over a picture, gives each bit of what tensor.Prep
// gives, straight and through a graph.
func Preprocess(t *testing.T, run func(s tensor.Spec, img *image.RGBA, graph bool) ([]float32, error)) {
	n := 0
	for _, s := range Specs() {
		for _, size := range [][2]int{{1920, 1080}, {640, 480}, {s.Width, s.Height}, {2 * s.Width, 2 * s.Height}, {1, 1}, {5, 900}, {333, 222}} {
			img := Noise(size[0], size[1])
			want := make([]float32, 3*s.Width*s.Height)
			p, err := tensor.NewPrep(s, want)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Run(img); err != nil {
				t.Fatal(err)
			}
			for _, graph := range []bool{false, true} {
				got, err := run(s, img, graph)
				if err != nil {
					t.Fatalf("%+v of %v: %v", s, size, err)
				}
				for i := range want {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%+v of %v, graph %v: value %d is %v, want %v", s, size, graph, i, got[i], want[i])
					}
				}
				n++
			}
		}
	}
	t.Logf("%d pictures, each bit as on the CPU", n)
}

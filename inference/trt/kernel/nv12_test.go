// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"fulmar/inference/tensor"
	"fulmar/inference/trt/kernel"
)

// TestNV12BitsOfReference: the kernel against package tensor over the picture converted
// by the reference, with planes in either order and rows apart.
func TestNV12BitsOfReference(t *testing.T) {
	e := emulate(t)
	r := rand.New(rand.NewPCG(5, 6))
	sizes := [][4]int{{1, 1, 1, 1}, {8, 8, 1, 2}, {8, 8, 2, 1}, {16, 12, 16, 12}, {16, 12, 32, 24}, {15, 11, 15, 11}, {416, 416, 1920, 1080}, {640, 384, 1280, 720}, {4, 2, tensor.MaxSide, 3}}
	for range 400 {
		sizes = append(sizes, [4]int{1 + r.IntN(70), 1 + r.IntN(70), 1 + r.IntN(120), 1 + r.IntN(120)})
	}
	for i, s := range sizes {
		w, h := s[2], s[3]
		n := kernel.NV12{Width: w, Height: h, Stride: w + r.IntN(5), ChromaStride: (w+1)/2*2 + r.IntN(5), Matrix: kernel.Matrix(i & 1)}
		luma := bytesOf(r, n.Stride*(h-1)+w)
		chroma := bytesOf(r, n.ChromaStride*((h+1)/2-1)+(w+1)/2*2)
		mem, at := append(append([]byte{}, luma...), chroma...), 0
		n.Chroma = int64(len(luma))
		if i&2 != 0 { // chroma first
			mem, at = append(append([]byte{}, chroma...), luma...), len(chroma)
			n.Chroma = -int64(at)
		}
		spec := anySpec(r, s[0], s[1])
		img, err := n.RGBA(luma, chroma)
		if err != nil {
			t.Fatal(err)
		}
		wanted, back := want(t, spec, img)
		p, m, err := kernel.PlanNV12(spec, n)
		if err != nil {
			t.Fatal(err)
		}
		if m != back {
			t.Errorf("%+v, %+v: the way back is %+v, want %+v", n, spec, m, back)
		}
		same(t, fmt.Sprintf("%+v, %+v", n, spec), e.run(t, kernel.PrepNV12, &p, mem, at), wanted)
	}
}

func bytesOf(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestNV12LikeFormula holds the integers to the standards' formula in float64, over all
// colours: each level is within 1, and off by more than a rounding nowhere.
func TestNV12LikeFormula(t *testing.T) {
	for m, k := range map[kernel.Matrix][2]float64{kernel.BT601: {0.299, 0.114}, kernel.BT709: {0.2126, 0.0722}} {
		kr, kb := k[0], k[1]
		kg := 1 - kr - kb
		// A picture of 512x512 has 256x256 blocks: all of U and V. Four lumas a picture.
		n := kernel.NV12{Width: 512, Height: 512, Stride: 512, ChromaStride: 512, Chroma: 1 << 18, Matrix: m}
		luma, chroma := make([]byte, 1<<18), make([]byte, 1<<17)
		for i := range 1 << 16 {
			chroma[2*i], chroma[2*i+1] = byte(i), byte(i>>8)
		}
		for first := 0; first < 256; first += 4 {
			for i := range luma {
				luma[i] = byte(first + i&1 + i>>9&1*2)
			}
			img, err := n.RGBA(luma, chroma)
			if err != nil {
				t.Fatal(err)
			}
			for i, y := range luma {
				c := i>>10<<9 + i&511&^1 // of the block's U
				l, u, v := (float64(y)-16)/219, (float64(chroma[c])-128)/224, (float64(chroma[c+1])-128)/224
				r, b := l+2*(1-kr)*v, l+2*(1-kb)*u
				for ch, exact := range [3]float64{r, (l - kr*r - kb*b) / kg, b} {
					exact = math.Min(math.Max(255*exact, 0), 255)
					if got := img.Pix[4*i+ch]; math.Abs(float64(got)-exact) > 0.51 {
						t.Fatalf("matrix %d, YUV %d,%d,%d: channel %d is %d, want %.3f", m, y, chroma[c], chroma[c+1], ch, got, exact)
					}
				}
			}
		}
	}
}

func TestNV12RGBARefuses(t *testing.T) {
	n := kernel.NV12{Width: 5, Height: 5, Stride: 8, ChromaStride: 8, Chroma: 40}
	large := n
	large.Width = tensor.MaxSide + 1
	narrow := n
	narrow.Stride = 4
	for _, c := range []struct {
		n            kernel.NV12
		luma, chroma int
		ok           bool
	}{{n, 37, 22, true}, {n, 36, 22, false}, {n, 37, 21, false}, {large, 1 << 20, 1 << 20, false}, {narrow, 100, 100, false}} {
		if _, err := c.n.RGBA(make([]byte, c.luma), make([]byte, c.chroma)); (err == nil) != c.ok || err != nil && !errors.Is(err, kernel.ErrPlan) {
			t.Errorf("planes of %d and %d bytes: %v", c.luma, c.chroma, err)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	_ "embed"
	"errors"
	"fmt"
	"image"
	"math"

	"fulmar/inference/tensor"
)

// The kernels' names. Fault takes no parameters and writes to address 0: it is for trying
// the way out of a device that faulted.
const (
	Prep     = "fl_prep"
	PrepNV12 = "fl_prep_nv12"
	Fault    = "fl_fault"
)

//go:embed prep.ptx
var ptx string

// PTX is the kernels' text for cuModuleLoadData, which wants a zero byte after it: PTX ISA
// 6.3 for compute capability 7.0 and up.
func PTX() []byte { return []byte(ptx) }

// Params are the kernels' only parameter, by value: fl_prep_params of src/kernel.h, 128
// bytes without padding. Src and Dst are device addresses. Src must be a multiple of 4 for
// [Prep]; Dst has room for 3*DstWidth*DstHeight floats.
type Params struct {
	Src, Dst            uint64
	Chroma              int64 // NV12: from Src to the second plane, bytes
	SrcWidth, SrcHeight int32
	SrcStride           int32
	ChromaStride        int32 // NV12
	DstWidth, DstHeight int32
	FitX, FitY          int32 // where the picture lies in the input
	FitWidth, FitHeight int32
	Plane               [3]int32 // where R, G and B begin in the input, floats
	Step                int32    // between two pixels of one channel, floats
	Shift               int32    // fraction bits of a sum that are always 0
	Matrix              int32    // NV12
	Mul, Sub, Pad       [3]float32
	_                   int32 // keeps the size a multiple of 8
}

// ErrPlan is wrapped by the errors for what the kernels cannot do.
var ErrPlan = errors.New("no plan for the kernel")

// Plan computes everything but the two addresses for pictures of one size in RGBA, and the
// way back, which is the one that [tensor.Prep] gives. The rows are stride bytes apart, a
// multiple of 4; the last one may end with its last pixel.
func Plan(spec tensor.Spec, srcW, srcH, stride int) (Params, tensor.Mapping, error) {
	if err := check(&spec, srcW, srcH); err != nil {
		return Params{}, tensor.Mapping{}, err
	}
	if stride < 4*srcW || stride%4 != 0 || stride > math.MaxInt32 {
		return Params{}, tensor.Mapping{}, fmt.Errorf("%w: rows are %d bytes apart, wants a multiple of 4 from %d up", ErrPlan, stride, 4*srcW)
	}
	p, m, err := plan(&spec, srcW, srcH)
	if err != nil {
		return Params{}, tensor.Mapping{}, err
	}
	p.SrcStride = int32(stride)
	return p, m, nil
}

func check(spec *tensor.Spec, srcW, srcH int) error {
	if err := spec.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrPlan, err)
	}
	if srcW < 1 || srcH < 1 || srcW > tensor.MaxSide || srcH > tensor.MaxSide {
		return fmt.Errorf("%w: a picture of %dx%d pixels, wants 1 to %d each", ErrPlan, srcW, srcH, tensor.MaxSide)
	}
	return nil
}

// The sums of the kernel have 22 fraction bits.
const (
	sumBits = 22
	// flatBits are those that are 0 where each value is a quarter of a whole number: a
	// picture of the size of its place, or of twice that.
	flatBits = 20
)

func plan(spec *tensor.Spec, w, h int) (Params, tensor.Mapping, error) {
	fit := place(spec, w, h)
	p := Params{
		SrcWidth: int32(w), SrcHeight: int32(h), DstWidth: int32(spec.Width), DstHeight: int32(spec.Height),
		FitX: int32(fit.Min.X), FitY: int32(fit.Min.Y), FitWidth: int32(fit.Dx()), FitHeight: int32(fit.Dy()), Step: 1,
	}
	m := tensor.Mapping{
		OffX: float32(fit.Min.X), OffY: float32(fit.Min.Y),
		ScaleX: float32(w) / float32(fit.Dx()), ScaleY: float32(h) / float32(fit.Dy()),
		Width: w, Height: h,
	}
	// The unit of a sum. tensor.Prep takes other steps to the same value in the two flat
	// cases; they differ where a factor is so small that it loses bits.
	unit := float32(1.0 / (1 << sumBits))
	if fit.Dx() == w && fit.Dy() == h || 2*fit.Dx() == w && 2*fit.Dy() == h {
		p.Shift, unit = flatBits, 1.0/(1<<(sumBits-flatBits))
	}
	for c := range 3 {
		in := c // channel c of the source is this one of the input
		if spec.Order == tensor.BGR {
			in = 2 - c
		}
		p.Plane[c] = int32(in * spec.Width * spec.Height)
		if spec.Layout == tensor.NHWC {
			p.Plane[c], p.Step = int32(in), 3
		}
		mul := spec.Scale / spec.Std[in]
		p.Mul[c], p.Sub[c] = mul*unit, spec.Mean[in]/spec.Std[in]
		// A product in float32() is not fused with the difference after it.
		p.Pad[c] = float32(spec.Pad*mul) - p.Sub[c]
		if !finite(mul) || !finite(p.Sub[c]) {
			return Params{}, tensor.Mapping{}, fmt.Errorf("%w: scale %v, mean %v and std %v lead out of the range of float32", ErrPlan, spec.Scale, spec.Mean[in], spec.Std[in])
		}
	}
	return p, m, nil
}

func finite(v float32) bool { return v-v == 0 }

// place is where a picture lies in the input, as tensor.Prep computes it: the longer side
// fills the input, the other is rounded down, in integers.
func place(s *tensor.Spec, w, h int) image.Rectangle {
	fw, fh := s.Width, s.Height
	if s.Mode == tensor.Letterbox {
		if s.Width*h <= s.Height*w {
			fh = max(1, h*s.Width/w)
		} else {
			fw = max(1, w*s.Height/h)
		}
	}
	var at image.Point
	if s.Anchor == tensor.Centre {
		at = image.Pt((s.Width-fw)/2, (s.Height-fh)/2)
	}
	return image.Rect(0, 0, fw, fh).Add(at)
}

// Grid is how to launch [Prep] and [PrepNV12]: a thread for each pixel of the input, in
// blocks of 32 by 8, no shared memory.
func (p *Params) Grid() (grid, block [3]uint32) {
	const bw, bh = 32, 8
	return [3]uint32{(uint32(p.DstWidth) + bw - 1) / bw, (uint32(p.DstHeight) + bh - 1) / bh, 1}, [3]uint32{bw, bh, 1}
}

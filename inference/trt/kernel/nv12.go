// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"image"
	"math"

	"fulmar/inference/tensor"
)

// Matrix is how colours were taken to luma and chroma.
type Matrix uint8

// The matrices, both of limited range (luma 16 to 235, chroma 16 to 240). Cameras of
// standard definition and most USB cameras use BT.601, those of 720 rows and up BT.709.
const (
	BT601 Matrix = iota
	BT709
)

// NV12 describes a picture in two planes: one of luma, one of U and V by turns with half
// the columns and half the rows, both rounded up.
type NV12 struct {
	Width, Height        int
	Stride, ChromaStride int // bytes between two rows of each plane
	// Chroma is where the second plane begins, bytes from the first; negative if it lies
	// before it.
	Chroma int64
	Matrix Matrix
}

// sizes are the bytes that each plane takes; its last row may end with its last pixel.
func (n *NV12) sizes() (luma, chroma int64) {
	return int64(n.Stride)*int64(n.Height-1) + int64(n.Width),
		int64(n.ChromaStride)*int64((n.Height+1)/2-1) + n.pairs()
}

// pairs are the bytes of a row of U and V.
func (n *NV12) pairs() int64 { return int64(n.Width+1) / 2 * 2 }

func (n *NV12) check() error {
	switch luma, chroma := n.sizes(); {
	case n.Matrix > BT709:
		return fmt.Errorf("%w: colour matrix %d is none of those known", ErrPlan, n.Matrix)
	case n.Stride < n.Width || n.Stride > math.MaxInt32:
		return fmt.Errorf("%w: rows of luma are %d bytes apart, wants %d or more", ErrPlan, n.Stride, n.Width)
	case int64(n.ChromaStride) < n.pairs() || n.ChromaStride > math.MaxInt32:
		return fmt.Errorf("%w: rows of chroma are %d bytes apart, wants %d or more", ErrPlan, n.ChromaStride, n.pairs())
	case n.Chroma < luma && n.Chroma > -chroma:
		return fmt.Errorf("%w: the plane of chroma at %d lies in that of luma, which has %d bytes", ErrPlan, n.Chroma, luma)
	}
	return nil
}

// PlanNV12 is [Plan] for the kernel [PrepNV12]. Src is the address of the plane of luma.
func PlanNV12(spec tensor.Spec, n NV12) (Params, tensor.Mapping, error) {
	if err := check(&spec, n.Width, n.Height); err != nil {
		return Params{}, tensor.Mapping{}, err
	}
	if err := n.check(); err != nil {
		return Params{}, tensor.Mapping{}, err
	}
	p, m, err := plan(&spec, n.Width, n.Height)
	if err != nil {
		return Params{}, tensor.Mapping{}, err
	}
	p.SrcStride, p.Chroma, p.ChromaStride, p.Matrix = int32(n.Stride), n.Chroma, int32(n.ChromaStride), int32(n.Matrix)
	return p, m, nil
}

// factors are a matrix's, in 1/65536 of a level: R = luma + RV*V, G = luma - GU*U - GV*V
// and B = luma + BU*U, where luma is 76309*(Y-16), and U and V have 128 for 0.
type factors struct{ rv, gu, gv, bu int32 }

const lumaFactor = 76309 // 255/219

func (m Matrix) factors() factors {
	if m == BT709 {
		return factors{rv: 117489, gu: 13975, gv: 34925, bu: 138438}
	}
	return factors{rv: 104597, gu: 25675, gv: 53279, bu: 132201}
}

// colour is the conversion of one pixel: sums rounded to the nearest level and clipped.
func (f *factors) colour(y, u, v uint8) (r, g, b uint8) {
	luma, cu, cv := lumaFactor*(int32(y)-16), int32(u)-128, int32(v)-128
	return level(luma + f.rv*cv), level(luma - f.gu*cu - f.gv*cv), level(luma + f.bu*cu)
}

func level(v int32) uint8 { return uint8(min(max((v+1<<15)>>16, 0), 255)) }

// RGBA converts a picture on the CPU as [PrepNV12] does: [tensor.Prep] makes of its result
// the kernel's bits. luma and chroma are the two planes; a pixel has the U and V of its
// block of 2x2.
func (n *NV12) RGBA(luma, chroma []byte) (*image.RGBA, error) {
	if n.Width < 1 || n.Height < 1 || n.Width > tensor.MaxSide || n.Height > tensor.MaxSide {
		return nil, fmt.Errorf("%w: a picture of %dx%d pixels, wants 1 to %d each", ErrPlan, n.Width, n.Height, tensor.MaxSide)
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	if wantY, wantUV := n.sizes(); int64(len(luma)) < wantY || int64(len(chroma)) < wantUV {
		return nil, fmt.Errorf("%w: planes of %d and %d bytes, wants %d and %d", ErrPlan, len(luma), len(chroma), wantY, wantUV)
	}
	f := n.Matrix.factors()
	img := image.NewRGBA(image.Rect(0, 0, n.Width, n.Height))
	for y := range n.Height {
		row, uv, to := luma[y*n.Stride:], chroma[y/2*n.ChromaStride:], img.Pix[y*img.Stride:]
		for x := range n.Width {
			r, g, b := f.colour(row[x], uv[x&^1], uv[x|1])
			to[4*x], to[4*x+1], to[4*x+2], to[4*x+3] = r, g, b, 255
		}
	}
	return img, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"image"
	"image/draw"
	"unsafe"

	"fulmar/inference/model"
	"fulmar/inference/tensor"
	"fulmar/inference/trt/kernel"
)

// What package model asks of an engine that takes batches and fills its input itself.
var (
	_ model.Batcher  = (*Engine)(nil)
	_ model.Preparer = (*Engine)(nil)
)

// Prep fills one place of the batch from pictures, on the device, with the bits that
// tensor.Prep would write. It lives as long as its engine and belongs to the same
// goroutine.
type Prep struct {
	e      *Engine
	spec   tensor.Spec
	index  int
	name   [32]C.char
	room   image.RGBA // page-locked
	params kernel.Params
	grid   [3]C.uint32_t
	block  [3]C.uint32_t
	m      tensor.Mapping
}

// NewPrep gives what fills picture index of the batch from pictures, as spec says. From
// then on what the host writes into the first input is not looked at. An engine that
// has run already refuses.
func (e *Engine) NewPrep(spec tensor.Spec, index int) (model.Prep, error) {
	p, err := e.newPrep(spec, index)
	if err != nil {
		e.l.log.Warn("pictures are prepared on the CPU, not on the GPU", "error", err)
		return nil, err
	}
	return p, nil
}

func (e *Engine) newPrep(spec tensor.Spec, index int) (*Prep, error) {
	if e.e == nil {
		return nil, fmt.Errorf("preprocessing: %w", ErrClosed)
	}
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("preprocessing: %w", err)
	}
	if len(e.in) == 0 || e.in[0].Type() != tensor.Float32 || e.in[0].Len() != e.batch*3*spec.Width*spec.Height {
		return nil, fmt.Errorf("preprocessing: the first input is not %d pictures of 3x%dx%d float32", e.batch, spec.Height, spec.Width)
	}
	// Once for an engine is enough; it also loads the kernels.
	if !e.checked {
		if err := e.l.check(spec); err != nil {
			return nil, err
		}
		e.checked = true
	}
	p := &Prep{e: e, spec: spec, index: index}
	for i, c := range []byte(kernel.Prep) {
		p.name[i] = C.char(c)
	}
	if err := p.fit(spec.Width, spec.Height); err != nil {
		return nil, err
	}
	return p, nil
}

// fit makes room for pictures of one size and plans the kernel for them.
func (p *Prep) fit(w, h int) error {
	stride := 4 * w
	params, m, err := kernel.Plan(p.spec, w, h, stride)
	if err != nil {
		return err
	}
	var host unsafe.Pointer
	size := stride * h
	if rc := C.fl_picture_room(p.e.e, C.int32_t(p.index), C.size_t(size), &host, &p.e.err); rc != 0 {
		return fmt.Errorf("preprocessing: %w", p.e.l.note(failure(rc, &p.e.err)))
	}
	p.params, p.m = params, m
	grid, block := params.Grid()
	for i := range 3 {
		p.grid[i], p.block[i] = C.uint32_t(grid[i]), C.uint32_t(block[i])
	}
	p.room = image.RGBA{Pix: unsafe.Slice((*byte)(host), size), Stride: stride, Rect: image.Rect(0, 0, w, h)}
	return nil
}

// Run sends a picture to its place; the engine's next run sees it. It returns the way
// back.
func (p *Prep) Run(img image.Image) (tensor.Mapping, error) {
	switch {
	case img == nil:
		return tensor.Mapping{}, fmt.Errorf("%w: there is none", tensor.ErrImage)
	case p.e.e == nil:
		return tensor.Mapping{}, fmt.Errorf("preprocessing: %w", ErrClosed)
	}
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if w < 1 || h < 1 || w > tensor.MaxSide || h > tensor.MaxSide {
		return tensor.Mapping{}, fmt.Errorf("%w: %dx%d pixels, wants 1 to %d each", tensor.ErrImage, w, h, tensor.MaxSide)
	}
	if p.room.Rect.Dx() != w || p.room.Rect.Dy() != h {
		if err := p.fit(w, h); err != nil {
			return tensor.Mapping{}, err
		}
	}
	if rgba, ok := img.(*image.RGBA); ok {
		if len(rgba.Pix) < rgba.PixOffset(b.Max.X-1, b.Max.Y-1)+4 || rgba.Stride < 4*w {
			return tensor.Mapping{}, fmt.Errorf("%w: its memory is shorter than its %dx%d pixels", tensor.ErrImage, w, h)
		}
		for y := range h {
			copy(p.room.Pix[y*p.room.Stride:][:4*w], rgba.Pix[y*rgba.Stride:])
		}
	} else {
		draw.Draw(&p.room, p.room.Rect, img, b.Min, draw.Src)
	}
	rc := C.fl_picture_fill(p.e.e, C.int32_t(p.index), C.size_t(len(p.room.Pix)), &p.name[0],
		unsafe.Pointer(&p.params), C.size_t(unsafe.Sizeof(p.params)), &p.grid[0], &p.block[0], &p.e.err)
	if rc != 0 {
		return tensor.Mapping{}, fmt.Errorf("preprocessing: %w", p.e.l.note(failure(rc, &p.e.err)))
	}
	return p.m, nil
}

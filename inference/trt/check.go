// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"image"
	"math"
	"time"
	"unsafe"

	"fulmar/inference/tensor"
	"fulmar/inference/trt/kernel"
)

// errBits says that a device does not compute what it has to.
var errBits = errors.New("the GPU's preprocessing gives other numbers than the CPU's")

// load loads our kernels into the device.
func (l *Library) load(lib *C.fl_lib) error {
	ptx := C.CString(string(kernel.PTX()))
	defer C.free(unsafe.Pointer(ptx))
	var e C.fl_error
	return l.note(failure(C.fl_kernels(lib, ptx, &e), &e))
}

// Preprocess runs the preprocessing kernel once over a picture and gives the network's
// input, 3*Width*Height values; graph sends it through a CUDA graph.
func (l *Library) Preprocess(spec tensor.Spec, img *image.RGBA, graph bool) ([]float32, error) {
	out, _, err := l.preprocess(spec, img, graph, 0)
	return out, err
}

// TimePreprocess measures one run of the kernel over a picture of that size that lies in
// page-locked memory: with its way to the device, and without.
func (l *Library) TimePreprocess(spec tensor.Spec, img *image.RGBA, times int) (copied, alone time.Duration, err error) {
	_, took, err := l.preprocess(spec, img, false, max(1, times))
	return took[0] / time.Duration(max(1, times)), took[1] / time.Duration(max(1, times)), err
}

func (l *Library) preprocess(spec tensor.Spec, img *image.RGBA, graph bool, times int) (out []float32, took [2]time.Duration, err error) {
	lib, done, err := l.use()
	if err != nil {
		return nil, took, err
	}
	defer done()
	if err := l.load(lib); err != nil {
		return nil, took, fmt.Errorf("preprocessing: %w", err)
	}
	params, _, err := kernel.Plan(spec, img.Rect.Dx(), img.Rect.Dy(), img.Stride)
	if err != nil {
		return nil, took, err
	}
	grid, block := params.Grid()
	name := C.CString(kernel.Prep)
	defer C.free(unsafe.Pointer(name))
	out = make([]float32, 3*spec.Width*spec.Height)
	through := C.int32_t(0)
	if graph {
		through = 1
	}
	var e C.fl_error
	var ns [2]C.int64_t
	rc := C.fl_kernel_once(lib, name, unsafe.Pointer(&params), C.size_t(unsafe.Sizeof(params)), (*C.uint32_t)(&grid[0]), (*C.uint32_t)(&block[0]),
		unsafe.Pointer(&img.Pix[0]), C.size_t(len(img.Pix)), unsafe.Pointer(&out[0]), C.size_t(4*len(out)), through, C.int32_t(times), &ns[0], &e)
	if rc != 0 {
		return nil, took, fmt.Errorf("preprocessing: %w", l.note(failure(rc, &e)))
	}
	return out, [2]time.Duration{time.Duration(ns[0]), time.Duration(ns[1])}, nil
}

// check compares the kernel with tensor.Prep on a small picture, bit by bit: a driver
// that compiles it wrongly would cost accuracy in silence.
func (l *Library) check(spec tensor.Spec) error {
	img := image.NewRGBA(image.Rect(0, 0, 67, 45))
	state := uint32(1)
	for i := range img.Pix {
		state = state*1664525 + 1013904223 // Numerical Recipes' generator: any noise will do
		img.Pix[i] = byte(state >> 24)
	}
	want := make([]float32, 3*spec.Width*spec.Height)
	p, err := tensor.NewPrep(spec, want)
	if err != nil {
		return err
	}
	if _, err := p.Run(img); err != nil {
		return err
	}
	got, err := l.Preprocess(spec, img, false)
	if err != nil {
		return err
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			return fmt.Errorf("%w: value %d is %v, wants %v", errBits, i, got[i], want[i])
		}
	}
	return nil
}

// Fault runs a kernel that writes where it must not, so that the way out of a lost
// device can be tried: the error wraps [ErrDevice] and the process has to end.
func (l *Library) Fault() error {
	lib, done, err := l.use()
	if err != nil {
		return err
	}
	defer done()
	if err := l.load(lib); err != nil {
		return err
	}
	name := C.CString(kernel.Fault)
	defer C.free(unsafe.Pointer(name))
	var e C.fl_error
	return l.note(failure(C.fl_fault(lib, name, &e), &e))
}

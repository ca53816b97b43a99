// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unsafe"
)

const (
	// MaxBatch bounds the pictures of one run; no board here has more cameras.
	MaxBatch = 64
	// MaxNetwork bounds an ONNX file, as package model does.
	MaxNetwork = 256 << 20
	// pollEvery is how often a build's progress is looked at.
	pollEvery = 100 * time.Millisecond
)

// BuildOptions say what is built.
type BuildOptions struct {
	// INT8 is for networks with Q/DQ nodes: below 11 the library wants a flag for them.
	INT8 bool
	// FP16 lets the library choose half precision; from 11 on the network's own types
	// decide and this does nothing.
	FP16 bool
	// MaxBatch is the largest batch where the network leaves its first dimension open;
	// 0 means 1.
	MaxBatch int
	// Workspace bounds the memory that a layer may use while it runs, in bytes; 0
	// leaves it to the library.
	Workspace int64
	// Level is the builder's optimization level, 0 to 5, where the library has one
	// (8.6); negative leaves it.
	Level int
	// Threads bounds the builder's threads; 0 leaves it.
	Threads int
	// TimingCache is one that an earlier build gave; a foreign one is not looked at.
	TimingCache []byte
	// DLA puts the network on DLA core DLACore, layers that it cannot run on the GPU.
	DLA     bool
	DLACore int
	// Calibration is a calibration cache, for DLA with majors 8 and 10, which know no
	// Q/DQ there: the network is then one without.
	Calibration []byte
}

// Progress tells how far a build is.
type Progress struct {
	// Phase is the library's name for what it does.
	Phase string
	// Done of Of steps of the phase are done.
	Done, Of int
}

// Built is what a build gave.
type Built struct {
	Plan []byte
	// TimingCache makes the next build of the same board faster; nil if there is none.
	TimingCache []byte
	// Layers are those of the network; OnGPU names the ones that DLA leaves to the GPU.
	Layers int
	OnGPU  []string
}

func (o *BuildOptions) validate(network []byte) error {
	switch {
	case len(network) == 0 || len(network) > MaxNetwork:
		return fmt.Errorf("%w: the file has %d bytes, wants 1 to %d", ErrNetwork, len(network), MaxNetwork)
	case o.MaxBatch < 0 || o.MaxBatch > MaxBatch:
		return fmt.Errorf("a batch of %d, wants 1 to %d", o.MaxBatch, MaxBatch)
	case o.Workspace < 0 || o.Threads < 0 || o.Level > 5 || o.DLA && o.DLACore < 0:
		return fmt.Errorf("build options out of range: workspace %d, threads %d, level %d, DLA core %d", o.Workspace, o.Threads, o.Level, o.DLACore)
	}
	return nil
}

// Build makes a plan of the bytes of an ONNX file. It takes seconds to many minutes
// and up to gigabytes, which the process keeps in part: run it in a process of its
// own. progress (may be nil) is called about ten times a second. A context that ends
// cancels the build with majors 10 and 11 at its next step; 8 cannot be cancelled and
// its process has to be ended. What was timed until a failure or the cancelling comes
// back with the error. Errors wrap ErrNetwork, ErrLibrary, ErrDriver or ErrMemory.
func (l *Library) Build(ctx context.Context, network []byte, o BuildOptions, progress func(Progress)) (*Built, error) {
	if err := o.validate(network); err != nil {
		return nil, fmt.Errorf("build engine: %w", err)
	}
	lib, done, err := l.use()
	if err != nil {
		return nil, fmt.Errorf("build engine: %w", err)
	}
	defer done()
	// Copies outside of the Go heap: the library keeps pointers into what it parses.
	onnx := C.CBytes(network)
	defer C.free(onnx)
	watch := (*C.fl_watch)(C.calloc(1, C.sizeof_fl_watch))
	defer C.free(unsafe.Pointer(watch))
	opt := o.forC()
	timing, calibration := copyOut(o.TimingCache), copyOut(o.Calibration)
	defer C.free(timing)
	defer C.free(calibration)
	opt.timing, opt.timing_size = timing, C.size_t(len(o.TimingCache))
	opt.calibration, opt.calibration_size = calibration, C.size_t(len(o.Calibration))

	stop := context.AfterFunc(ctx, func() { C.fl_watch_cancel(watch) })
	end := l.follow(watch, progress)
	var out C.fl_built
	var e C.fl_error
	err = failure(C.fl_build(lib, onnx, C.size_t(len(network)), &opt, watch, &out, &e), &e)
	end()
	if !stop() {
		// The cancelling may still be on its way to the watch, which is freed below.
		<-ctx.Done()
		C.fl_watch_cancel(watch)
	}
	l.drain()
	defer C.fl_built_free(&out)
	b := &Built{Layers: int(out.layers), TimingCache: bytesOf(out.timing, out.timing_size)}
	if out.on_gpu != nil {
		b.OnGPU = strings.FieldsFunc(C.GoString(out.on_gpu), func(r rune) bool { return r == '\n' })
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return b, fmt.Errorf("build engine: %w", l.note(err))
	}
	b.Plan = bytesOf(out.plan, out.plan_size)
	return b, nil
}

func (o *BuildOptions) forC() C.fl_build_options {
	flag := func(b bool) C.int32_t {
		if b {
			return 1
		}
		return 0
	}
	core := C.int32_t(-1)
	if o.DLA {
		core = C.int32_t(o.DLACore)
	}
	return C.fl_build_options{
		fp16: flag(o.FP16), int8: flag(o.INT8), max_batch: C.int32_t(max(1, o.MaxBatch)),
		level: C.int32_t(o.Level), threads: C.int32_t(o.Threads), dla_core: core, workspace: C.int64_t(o.Workspace),
	}
}

// follow reports a build's progress until the function that it gives is called.
func (l *Library) follow(watch *C.fl_watch, progress func(Progress)) (end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		phase := (*C.char)(C.malloc(C.FL_NAME))
		defer C.free(unsafe.Pointer(phase))
		t := time.NewTicker(pollEvery)
		defer t.Stop()
		var last Progress
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			}
			l.drain()
			var done, of C.int32_t
			C.fl_watch_read(watch, &done, &of, phase, C.FL_NAME)
			if p := (Progress{C.GoString(phase), int(done), int(of)}); progress != nil && p != last {
				last = p
				progress(p)
			}
		}
	}()
	return func() { close(stop); <-ended }
}

func copyOut(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	return C.CBytes(b)
}

func bytesOf(p unsafe.Pointer, n C.size_t) []byte {
	if p == nil {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(p), int(n))...)
}

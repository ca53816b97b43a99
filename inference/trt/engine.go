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
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"fulmar/inference/tensor"
)

// MaxPlan bounds a plan: a detector's has under 100 MB.
const MaxPlan = 1 << 30

// EngineOptions say how a plan runs.
type EngineOptions struct {
	// Graphs captures a CUDA graph for each batch size at its second run, and replays
	// it from then on: small detectors are bound by launches.
	Graphs bool
	// DLA runs a plan that was built for DLA on core DLACore.
	DLA     bool
	DLACore int
}

// Engine runs a plan. Its tensors have the largest batch as their first dimension and
// stay the same for its life. It belongs to one goroutine at a time.
type Engine struct {
	l       *Library
	done    func()
	e       *C.fl_engine
	err     C.fl_error // here, so that a run allocates nothing
	in, out []*tensor.Tensor
	batch   int
	runs    int // up to early
	checked bool
	alarm   runtime.Cleanup
}

// early is how many runs are followed by a look at the log: the first ones load
// kernels and capture graphs, and say when something is wrong with that.
const early = 16

// Load makes an engine of a plan. Errors wrap ErrPlan where the plan has to be built
// anew, ErrDriver, ErrMemory or ErrDevice.
func (l *Library) Load(plan []byte, o EngineOptions) (*Engine, error) {
	if len(plan) == 0 || len(plan) > MaxPlan {
		return nil, fmt.Errorf("load engine: %w: it has %d bytes, wants 1 to %d", ErrPlan, len(plan), MaxPlan)
	}
	lib, done, err := l.use()
	if err != nil {
		return nil, fmt.Errorf("load engine: %w", err)
	}
	opt := C.fl_engine_options{dla_core: -1}
	if o.Graphs {
		opt.graphs = 1
	}
	if o.DLA {
		opt.dla_core = C.int32_t(o.DLACore)
	}
	e := &Engine{l: l, done: done}
	p := C.CBytes(plan)
	err = failure(C.fl_engine_load(lib, p, C.size_t(len(plan)), &opt, &e.e, &e.err), &e.err)
	C.free(p)
	l.drain()
	if err != nil {
		done()
		return nil, fmt.Errorf("load engine: %w", l.note(err))
	}
	e.batch = int(C.fl_engine_max_batch(e.e))
	if err := e.tensors(); err != nil {
		return nil, errors.Join(fmt.Errorf("load engine: %w", err), e.Close())
	}
	// An alarm only: freeing from here would race with whoever still runs it.
	e.alarm = runtime.AddCleanup(e, func(l *Library) {
		l.log.Error("an engine was dropped without Close: its GPU memory is lost until the process ends")
	}, l)
	return e, nil
}

// tensors puts the shapes and names around the memory that C holds.
func (e *Engine) tensors() error {
	for i := range int(C.fl_engine_tensors(e.e)) {
		t := C.fl_engine_tensor(e.e, C.int32_t(i))
		shape := make([]int, t.dims)
		for k := range shape {
			shape[k] = int(t.shape[k])
		}
		typ := tensor.Float32
		if t._type == C.FL_INT64 {
			typ = tensor.Int64
		}
		v, err := tensor.Over(C.GoString(&t.name[0]), typ, unsafe.Slice((*byte)(t.host), int(t.bytes)), shape...)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrPlan, err)
		}
		if t.input == 1 {
			e.in = append(e.in, v)
		} else {
			e.out = append(e.out, v)
		}
	}
	return nil
}

// Inputs are written before a run; the same tensors for the engine's life.
func (e *Engine) Inputs() []*tensor.Tensor { return e.in }

// Outputs hold the last run's results; the same tensors for the engine's life.
func (e *Engine) Outputs() []*tensor.Tensor { return e.out }

// MaxBatch is how many pictures a run may compute.
func (e *Engine) MaxBatch() int { return e.batch }

// Graphs tells for how many batch sizes a graph is replayed.
func (e *Engine) Graphs() int {
	if e.e == nil {
		return 0
	}
	return int(C.fl_engine_graphs(e.e))
}

// Scratch is the device memory between layers, in bytes, shared by all batch sizes.
func (e *Engine) Scratch() int64 {
	if e.e == nil {
		return 0
	}
	return int64(C.fl_engine_scratch(e.e))
}

// Run computes the whole batch. A context that ended before is returned as its error; a
// run that has begun takes its few milliseconds.
func (e *Engine) Run(ctx context.Context) error { return e.RunBatch(ctx, e.batch) }

// RunBatch computes the first n pictures.
func (e *Engine) RunBatch(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.e == nil {
		return fmt.Errorf("run engine: %w", ErrClosed)
	}
	rc := C.fl_engine_run(e.e, C.int32_t(n), &e.err)
	if e.runs < early {
		e.runs++
		e.l.drain()
	}
	if rc != 0 {
		return e.failed(rc)
	}
	return nil
}

// failed is apart so that a good run allocates nothing.
func (e *Engine) failed(rc C.int) error {
	e.l.drain()
	return fmt.Errorf("run engine: %w", e.l.note(failure(rc, &e.err)))
}

// Raw runs n pictures times times in a bare loop in C: the library's enqueue and a
// synchronize, with the copies of inputs and outputs or without, never through a
// graph. It is there to compare [Engine.RunBatch] with.
func (e *Engine) Raw(n, times int, copies bool) (time.Duration, error) {
	if e.e == nil {
		return 0, fmt.Errorf("run engine: %w", ErrClosed)
	}
	with := C.int32_t(0)
	if copies {
		with = 1
	}
	var ns C.int64_t
	if rc := C.fl_engine_raw(e.e, C.int32_t(n), C.int32_t(times), with, &ns, &e.err); rc != 0 {
		return 0, e.failed(rc)
	}
	return time.Duration(ns), nil
}

// Inspect is the library's description of the engine's layers, as JSON; "" if it
// gives none.
func (e *Engine) Inspect() string {
	if e.e == nil {
		return ""
	}
	p := C.fl_engine_inspect(e.e)
	defer C.free(unsafe.Pointer(p))
	e.l.drain()
	if p == nil {
		return ""
	}
	return C.GoString(p)
}

// Close frees the engine. A second call does nothing.
func (e *Engine) Close() error {
	if e.e == nil {
		return nil
	}
	var errs []error
	for _, t := range append(e.in, e.out...) {
		errs = append(errs, t.Free())
	}
	C.fl_engine_close(e.e)
	e.l.drain()
	e.e, e.in, e.out = nil, nil, nil
	e.alarm.Stop()
	e.done()
	return errors.Join(errs...)
}

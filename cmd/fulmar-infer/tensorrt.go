// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"fulmar/inference"
	"fulmar/inference/engines/build"
	"fulmar/inference/engines/cache"
	"fulmar/inference/model"
	"fulmar/inference/trt"
)

// gpu is TensorRT in the terms of packages engines and build.
type gpu struct {
	lib *trt.Library
}

// openGPU opens TensorRT in dirs, which is a list as in PATH, or "" for the usual
// places.
func openGPU(dirs string, log *slog.Logger) (*gpu, error) {
	lib, err := trt.Open(trt.Options{Dirs: filepath.SplitList(dirs), Log: log})
	if err != nil {
		return nil, known(err)
	}
	return &gpu{lib}, nil
}

// Device tells what was opened.
func (g *gpu) Device() cache.Device {
	i := g.lib.Info()
	return cache.Device{
		Flavour: i.Flavour, Version: i.Version, Name: i.Device, ComputeCapability: i.ComputeCapability,
		SMs: i.SMs, Memory: i.Memory, DLACores: i.DLACores, Parser: i.Parser, Driver: i.Driver,
	}
}

// Build makes a plan.
func (g *gpu) Build(ctx context.Context, n build.Network, progress func(phase string, done, of int)) (*build.Built, error) {
	o := trt.BuildOptions{
		INT8: n.INT8, FP16: true, MaxBatch: n.MaxBatch, Workspace: n.Workspace, Level: n.Level,
		TimingCache: n.Timing, DLA: n.DLACore >= 0, DLACore: max(0, n.DLACore),
		Calibration: n.Calibration,
	}
	b, err := g.lib.Build(ctx, n.ONNX, o, func(p trt.Progress) { progress(p.Phase, p.Done, p.Of) })
	var out *build.Built
	if b != nil {
		out = &build.Built{Plan: b.Plan, Timing: b.TimingCache, Layers: b.Layers, OnGPU: b.OnGPU}
	}
	return out, known(err)
}

// Load makes an engine of a plan.
func (g *gpu) Load(plan []byte, dla int, lost func(error)) (model.Engine, error) {
	e, err := g.lib.Load(plan, trt.EngineOptions{Graphs: true, DLA: dla >= 0, DLACore: max(0, dla)})
	if err != nil {
		return nil, known(err)
	}
	return &engine{Engine: e, lost: lost}, nil
}

// engine says when its device is lost.
type engine struct {
	*trt.Engine
	lost func(error)
}

// Run computes the whole batch.
func (e *engine) Run(ctx context.Context) error { return e.tell(e.Engine.Run(ctx)) }

// RunBatch computes the first n pictures.
func (e *engine) RunBatch(ctx context.Context, n int) error {
	return e.tell(e.Engine.RunBatch(ctx, n))
}

func (e *engine) tell(err error) error {
	if err == nil || !errors.Is(err, trt.ErrDevice) {
		return err
	}
	err = known(err)
	e.lost(err)
	return err
}

// kindError is an error of the bridge that is one of those that others know.
type kindError struct{ kind, err error }

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }

// known makes an error of the bridge one that others know, in its own words.
func known(err error) error {
	for _, k := range []struct{ theirs, ours error }{
		{trt.ErrDevice, inference.ErrDeviceLost},
		{trt.ErrLibrary, build.ErrAbsent},
		{trt.ErrDriver, build.ErrAbsent},
		{trt.ErrMemory, build.ErrMemory},
		{trt.ErrNetwork, build.ErrRefused},
		{trt.ErrPlan, build.ErrPlan},
	} {
		if errors.Is(err, k.theirs) {
			return &kindError{k.ours, err}
		}
	}
	return err
}

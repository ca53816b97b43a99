// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"fulmar/inference"
	"fulmar/inference/engines/cache"
	"fulmar/inference/model"
	"fulmar/inference/onnxfile"
)

// Errors that a [Builder] wraps its own in, where it is that.
var (
	// ErrAbsent says that there is no TensorRT, no parser or no GPU to use it on.
	ErrAbsent = errors.New("no TensorRT")
	// ErrRefused says that the library does not build this network.
	ErrRefused = errors.New("network refused by TensorRT")
	// ErrMemory says that there was not enough memory.
	ErrMemory = errors.New("not enough memory")
	// ErrPlan says that a plan is not for this library and GPU.
	ErrPlan = errors.New("plan refused")
)

// Code gives the exit code of a build that ended with err.
func Code(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return ExitCancelled
	case errors.Is(err, inference.ErrDeviceLost):
		return ExitDevice
	case errors.Is(err, ErrAbsent):
		return ExitLibrary
	case errors.Is(err, ErrMemory):
		return ExitMemory
	case errors.Is(err, cache.ErrQuota):
		return ExitQuota
	case errors.Is(err, cache.ErrFull):
		return ExitDisk
	case errors.Is(err, ErrRefused) || errors.Is(err, model.ErrPackage) || errors.Is(err, model.ErrNetwork) ||
		errors.Is(err, model.ErrGolden) || errors.Is(err, model.ErrGate):
		return ExitRefused
	}
	return 1
}

// Network is what is built.
type Network struct {
	ONNX      []byte
	INT8      bool // it has Q/DQ nodes
	MaxBatch  int
	Level     int
	Workspace int64
	DLACore   int // -1 for the GPU
	Timing    []byte
	// Calibration are the ranges of a network without Q/DQ nodes.
	Calibration []byte
}

// Built is what a [Builder] made. Timing may be there with an error too.
type Built struct {
	Plan, Timing []byte
	Layers       int
	OnGPU        []string
}

// Builder is a TensorRT that builds.
type Builder interface {
	Device() cache.Device
	Build(ctx context.Context, n Network, progress func(phase string, done, of int)) (*Built, error)
	Load(plan []byte, dla int, lost func(error)) (model.Engine, error)
}

// Maker builds one engine into a cache.
type Maker struct {
	Release string
	Files   fs.FS  // of the model package
	Variant string // "" for the first
	Cache   *cache.Cache
	Builder Builder
	L4T     string
	Options cache.Options
	// Anew builds though the engine is there or was refused.
	Anew   bool
	Teller *Teller
	Log    *slog.Logger
	// LogTail gives the end of what the library said; nil gives nothing.
	LogTail func() []string
}

// Make builds, judges, measures and keeps the engine. A refused one is written down,
// so that nobody tries again before something changes.
func (m *Maker) Make(ctx context.Context) (*Done, error) {
	p, err := model.Open(m.Files)
	if err != nil {
		return nil, err
	}
	v, err := FindVariant(&p.Manifest, m.Variant)
	if err != nil {
		return nil, err
	}
	pkg, err := Fingerprint(m.Files)
	if err != nil {
		return nil, err
	}
	device := m.Builder.Device()
	key := cache.NewKey(v.SHA256, v.Precision, &device, m.L4T, m.Options)
	id := key.ID()
	unlock, err := m.Cache.LockBuild(ctx, m.Teller.Waiting)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if m.Anew {
		if err := m.Cache.Forget(id); err != nil {
			return nil, err
		}
	} else if done, err := m.known(id, pkg); done != nil || err != nil {
		return done, err
	}
	done, err := m.build(ctx, p, &v, key, pkg)
	if err != nil && Code(err) == ExitRefused {
		if errors.Is(err, ErrRefused) {
			pkg = "" // whatever model.yaml says
		}
		err = errors.Join(err, m.Cache.Refuse(id, pkg, err.Error()))
	}
	return done, err
}

// known tells what the cache says of the engine: that it is there, or barred.
func (m *Maker) known(id, pkg string) (*Done, error) {
	r := m.Cache.Record(id)
	if why := r.BarredFor(pkg); why != "" {
		return nil, fmt.Errorf("%w: %s; --anew tries again", ErrRefused, why)
	}
	e, err := m.Cache.Take(id)
	if errors.Is(err, cache.ErrNone) || errors.Is(err, cache.ErrDamaged) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e.Release()
	if e.Meta.Package != pkg {
		return nil, nil // it has to be judged anew; what was timed makes that short
	}
	return &Done{ID: id, Already: true, Bytes: e.Meta.Bytes, Took: e.Meta.Took, RunUs: e.Meta.RunUs, Golden: e.Meta.Golden, Layers: e.Meta.Layers, OnGPU: e.Meta.OnGPU}, nil
}

// build makes the plan, judges and keeps it.
func (m *Maker) build(ctx context.Context, p *model.Package, v *model.Variant, key cache.Key, pkg string) (*Done, error) {
	onnx, err := network(m.Files, v)
	if err != nil {
		return nil, err
	}
	n := Network{
		ONNX: onnx, INT8: v.Precision == "int8", MaxBatch: key.MaxBatch, Level: key.Level,
		Workspace: key.Workspace, DLACore: key.DLACore, Timing: m.Cache.Timing(&key),
	}
	if err := m.fit(&n, &key); err != nil {
		return nil, err
	}
	began := time.Now()
	est := NewEstimate(began, m.Cache.Expect(key.Network))
	built, err := m.Builder.Build(ctx, n, func(phase string, done, of int) {
		now := time.Now()
		m.Teller.Progress(est.Step(phase, done, of, now), now)
	})
	if built != nil {
		// Also when it failed or was cancelled: the next try has to time less.
		if terr := m.Cache.PutTiming(&key, built.Timing); terr != nil {
			m.Log.Warn("timing cache not kept: the next build takes as long as this one", "error", terr)
		}
	}
	if err != nil {
		return nil, err
	}
	m.Teller.Progress(est.Over("golden pictures", time.Now()), time.Now())
	meta := cache.Meta{
		Key: key, Release: m.Release, Model: p.Manifest.Name + "@" + p.Manifest.Version, Package: pkg, Built: began.UTC(),
		Layers: built.Layers, OnGPU: built.OnGPU,
	}
	device := m.Builder.Device()
	meta.Device = device.String()
	if err := m.judge(ctx, p, v.Name, built.Plan, &meta, est); err != nil {
		return nil, err
	}
	meta.Took = time.Since(began).Seconds()
	if m.LogTail != nil {
		meta.Log = m.LogTail()
	}
	if err := m.Cache.Put(meta, built.Plan); err != nil {
		return nil, err
	}
	return &Done{ID: key.ID(), Bytes: int64(len(built.Plan)), Took: meta.Took, RunUs: meta.RunUs, Golden: meta.Golden, Layers: meta.Layers, OnGPU: meta.OnGPU}, nil
}

// fit changes the file to what the device wants: an open batch; for a DLA, which knows
// no Q/DQ nodes with the majors 8 and 10, the ranges beside it.
func (m *Maker) fit(n *Network, key *cache.Key) error {
	version, calibrated := calibrator(key.Version)
	if n.DLACore >= 0 && n.INT8 && calibrated {
		stripped, ranges, err := onnxfile.Calibration(n.ONNX, version)
		if err != nil {
			return fmt.Errorf("%w: for a DLA: %w", ErrRefused, err)
		}
		n.ONNX, n.Calibration = stripped, ranges
	}
	if n.MaxBatch > 1 {
		opened, err := onnxfile.OpenBatch(n.ONNX)
		if err != nil { // it runs picture by picture
			m.Log.Info("engine for one picture at a time", "reason", err)
			return nil
		}
		n.ONNX = opened
	}
	return nil
}

// calibrator is the library's version as it stands in calibration caches, 8601 or
// 100300, and whether the library knows them.
func calibrator(version string) (number int, known bool) {
	var major, minor, patch int
	if n, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n != 3 || err != nil {
		return 0, false
	}
	switch {
	case major == 8:
		return major*1000 + minor*100 + patch, true
	case major == 10:
		return major*10000 + minor*100 + patch, true
	}
	return 0, false
}

// judge runs the plan as the worker will: here a crash costs a build, there it would
// cost all cameras.
func (m *Maker) judge(ctx context.Context, p *model.Package, variant string, plan []byte, meta *cache.Meta, est *Estimate) (err error) {
	device := m.Builder.Device()
	if device.Driver == "" {
		return fmt.Errorf("%w: the engine cannot be tried without a CUDA driver", ErrAbsent)
	}
	var engine model.Engine
	d, err := p.Load(ctx, model.Config{Variant: variant, Engine: "tensorrt", Open: func([]byte) (model.Engine, error) {
		var err error
		engine, err = m.Builder.Load(plan, meta.Key.DLACore, func(error) {})
		return engine, err
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	meta.Golden = d.Info().Golden
	m.Teller.Progress(est.Over("accuracy gate", time.Now()), time.Now())
	r, err := d.Gate(ctx, p)
	if err != nil {
		return err
	}
	if r.Pictures > 0 {
		meta.Gate = fmt.Sprintf("%.3f in %d pictures, card %.3f, at least %.3f", r.Measured, r.Pictures, r.Card, r.Least)
	}
	meta.RunUs, err = measure(ctx, engine)
	return err
}

// measure is the median of some runs for one picture, in microseconds.
func measure(ctx context.Context, e model.Engine) (int64, error) {
	run := e.Run
	if b, ok := e.(interface {
		RunBatch(ctx context.Context, n int) error
	}); ok {
		run = func(ctx context.Context) error { return b.RunBatch(ctx, 1) }
	}
	const runs = 21
	took := make([]time.Duration, runs)
	for i := range took {
		start := time.Now()
		if err := run(ctx); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[runs/2].Microseconds(), nil
}

// FindVariant is the variant of a name, the first for "".
func FindVariant(m *model.Manifest, name string) (model.Variant, error) {
	i := slices.IndexFunc(m.Variants, func(v model.Variant) bool { return name == "" || v.Name == name })
	if i < 0 {
		return model.Variant{}, fmt.Errorf("%w: it has no variant %q", model.ErrPackage, name)
	}
	return m.Variants[i], nil
}

// Fingerprint is the SHA-256 of a package's model.yaml, in hexadecimal: how a model is
// judged hangs on it, and not on the network alone.
func Fingerprint(files fs.FS) (string, error) {
	b, err := fs.ReadFile(files, "model.yaml")
	if err != nil {
		return "", fmt.Errorf("%w: %w", model.ErrPackage, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// network reads the variant's ONNX file and compares it with the manifest.
func network(files fs.FS, v *model.Variant) ([]byte, error) {
	st, err := fs.Stat(files, v.File)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", model.ErrPackage, err)
	}
	const limit = 256 << 20 // package model's
	if st.Size() > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d", model.ErrPackage, v.File, st.Size(), limit)
	}
	b, err := fs.ReadFile(files, v.File)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", model.ErrPackage, err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != v.SHA256 {
		return nil, fmt.Errorf("%w: %s has SHA-256 %x, model.yaml says %s", model.ErrPackage, v.File, sum, v.SHA256)
	}
	return b, nil
}

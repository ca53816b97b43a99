// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"fulmar/inference"
	"fulmar/inference/engines/build"
	"fulmar/inference/engines/cache"
	"fulmar/inference/model"
	"fulmar/inference/worker"
)

// GPU is an opened TensorRT.
type GPU interface {
	Device() cache.Device
	// Load makes an engine of a plan on DLA core dla, or on the GPU for -1. lost is
	// called, from any goroutine, when a run says that the device is lost. Errors wrap
	// build.ErrPlan or inference.ErrDeviceLost where it is that.
	Load(plan []byte, dla int, lost func(error)) (model.Engine, error)
}

// Config is what a chooser works with.
type Config struct {
	// Files opens the files of a model package.
	Files func(path string) (fs.FS, func() error, error)
	// CPU loads a network into ONNX Runtime; CPUVersion names it once one is loaded.
	CPU        func(network []byte, threads int) (model.Engine, error)
	CPUVersion func() string
	// GPU opens TensorRT. It is called once, when the first model asks for it.
	GPU func() (GPU, error)
	// Root is "/" but for tests; the L4T release is looked for under it.
	Root   string
	Builds *build.Children
	Log    *slog.Logger
}

// Chooser gives models their engines.
type Chooser struct {
	cfg Config
	gpu func() (GPU, error)

	mu    sync.Mutex
	kept  worker.Engines
	cache *cache.Cache
}

// NewChooser makes one. It keeps no engines before [Chooser.Keep].
func NewChooser(cfg Config) *Chooser {
	return &Chooser{cfg: cfg, gpu: sync.OnceValues(cfg.GPU)}
}

// Keep says where engines are kept from now on.
func (c *Chooser) Keep(e worker.Engines) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e != c.kept {
		c.kept, c.cache = e, nil
	}
}

// open opens the cache once; a failure is tried again with the next model.
func (c *Chooser) open() (*cache.Cache, worker.Engines, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cache != nil {
		return c.cache, c.kept, nil
	}
	if c.kept.Cache == "" {
		return nil, c.kept, errors.New("no folder is set for built engines (infer.engine_cache)")
	}
	opened, err := cache.Open(c.kept.Cache, c.kept.Quota, c.cfg.Log)
	if err != nil {
		return nil, c.kept, err
	}
	c.cache = opened
	return opened, c.kept, nil
}

// choice is a model whose engine is to be chosen.
type choice struct {
	c       *Chooser
	m       worker.Model
	threads int
	gpu     GPU
	device  cache.Device
	cache   *cache.Cache
	kept    worker.Engines
	key     cache.Key
	id      string
}

// Load is the pipeline's way to a model; see the package's doc for what it chooses.
func (c *Chooser) Load(ctx context.Context, m worker.Model, threads int) (*inference.Loaded, error) {
	ch := &choice{c: c, m: m, threads: threads}
	if m.Engine == worker.EngineONNX {
		return ch.onCPU(ctx, inference.Notes{})
	}
	if err := ch.prepare(); err != nil {
		return ch.without(ctx, err.Error())
	}
	if why := ch.barred(); why != "" {
		return ch.without(ctx, why)
	}
	if !ch.cache.Has(ch.id) {
		return ch.building(ctx)
	}
	l, err := ch.onGPU(ctx)
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, inference.ErrDeviceLost):
		return l, err
	case errors.Is(err, build.ErrPlan) || errors.Is(err, cache.ErrDamaged) || errors.Is(err, cache.ErrNone):
		c.cfg.Log.Error("engine has to be built anew", "model", m.Name, "error", err)
		return ch.building(ctx)
	}
	return ch.without(ctx, err.Error())
}

// prepare finds out what an engine of the model would be built of and for.
func (ch *choice) prepare() (err error) {
	if ch.gpu, err = ch.c.gpu(); err != nil {
		return err
	}
	ch.device = ch.gpu.Device()
	if ch.device.Driver == "" {
		return fmt.Errorf("%w can be used: there is %s, but no CUDA driver (libcuda.so.1)", build.ErrAbsent, &ch.device)
	}
	if ch.cache, ch.kept, err = ch.c.open(); err != nil {
		return err
	}
	v, err := ch.variant()
	if err != nil {
		return err
	}
	l4t, err := cache.L4T(ch.c.cfg.Root)
	if err != nil {
		return err
	}
	ch.key = cache.NewKey(v.SHA256, v.Precision, &ch.device, l4t, ch.options())
	ch.id = ch.key.ID()
	return nil
}

func (ch *choice) options() cache.Options {
	return cache.Options{MaxBatch: ch.kept.MaxBatch, Level: -1, DLACore: -1}
}

// variant reads from the package which network it is.
func (ch *choice) variant() (v model.Variant, err error) {
	files, done, err := ch.c.cfg.Files(ch.m.Path)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, done()) }()
	p, err := model.Open(files)
	if err != nil {
		return v, err
	}
	return build.FindVariant(&p.Manifest, ch.m.Variant)
}

// barred is why no engine of this key is to be used, "" if one may be.
func (ch *choice) barred() string {
	r := ch.cache.Record(ch.id)
	return r.Barred()
}

// without runs the model on ONNX Runtime for good, or refuses it where it is to have
// TensorRT only.
func (ch *choice) without(ctx context.Context, why string) (*inference.Loaded, error) {
	if ch.m.Engine == worker.EngineTensorRT {
		return nil, fmt.Errorf("engine: tensorrt is asked for, and cannot be: %s", why)
	}
	return ch.onCPU(ctx, inference.Notes{Fallback: build.OneLine(why)})
}

// detector loads the package's network with one engine.
func (ch *choice) detector(ctx context.Context, name string, open func([]byte) (model.Engine, error)) (d *model.Detector, err error) {
	files, done, err := ch.c.cfg.Files(ch.m.Path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	p, err := model.Open(files)
	if err != nil {
		return nil, err
	}
	return p.Load(ctx, model.Config{Variant: ch.m.Variant, Engine: name, Open: open})
}

func (ch *choice) onCPU(ctx context.Context, n inference.Notes) (*inference.Loaded, error) {
	d, err := ch.detector(ctx, "onnxruntime-cpu", func(b []byte) (model.Engine, error) { return ch.c.cfg.CPU(b, ch.threads) })
	if err != nil {
		if n.Fallback != "" {
			// Both reasons: mending either would help.
			err = fmt.Errorf("%w (and not on TensorRT: %s)", err, n.Fallback)
		}
		return nil, err
	}
	l := loaded(d, ch.c.cfg.CPUVersion())
	l.Notes = n
	return l, nil
}

func loaded(d *model.Detector, version string) *inference.Loaded {
	i := d.Info()
	return &inference.Loaded{
		Detectors: []inference.Detector{d}, Labels: d.Labels(), Version: i.Version, Engine: i.Engine,
		SHA256: i.SHA256, Close: d.Close, EngineVersion: version,
	}
}

// beingBuilt is why the fallback runs during a build.
const beingBuilt = "its TensorRT engine is not built yet"

// building serves on ONNX Runtime, or not at all, while the engine is built.
func (ch *choice) building(ctx context.Context) (*inference.Loaded, error) {
	if !ch.device.Parser {
		return ch.without(ctx, fmt.Sprintf("its engine is not built, and %s has no parser for ONNX files (libnvonnxparser)", &ch.device))
	}
	n := inference.Notes{Fallback: beingBuilt, Build: "waiting"}
	var l *inference.Loaded
	if ch.m.Engine == worker.EngineTensorRT {
		n.Fallback = ""
		l = &inference.Loaded{Notes: n, Close: func() error { return nil }}
	} else {
		var err error
		if l, err = ch.onCPU(ctx, n); err != nil {
			return nil, err
		}
	}
	l.Tend = func(ctx context.Context, say func(inference.Notes)) (*inference.Loaded, error) {
		return ch.upgrade(ctx, n, say)
	}
	return l, nil
}

// upgrade builds the engine and takes it into use.
func (ch *choice) upgrade(ctx context.Context, n inference.Notes, say func(inference.Notes)) (*inference.Loaded, error) {
	job := build.Job{Path: ch.m.Path, Variant: ch.m.Variant, Cache: ch.kept.Cache, Quota: ch.kept.Quota, Options: ch.options()}
	stay := func(why string) {
		n.Build = ""
		if n.Fallback != "" {
			n.Fallback = build.OneLine(why)
		} else {
			n.Build = build.OneLine(why) // nothing serves meanwhile
		}
		say(n)
	}
	err := ch.c.cfg.Builds.Build(ctx, job, ch.cache.Free, func(text string) { n.Build = text; say(n) })
	if ctx.Err() != nil {
		return nil, nil
	}
	if err != nil {
		var be *build.Error
		if errors.As(err, &be) && be.Final() {
			// The child wrote it down too, if it could.
			err = errors.Join(err, ch.cache.Refuse(ch.id, err.Error()))
		}
		stay("the build of its TensorRT engine failed: " + err.Error())
		return nil, err
	}
	n.Build = "built, taking it into use"
	say(n)
	l, err := ch.onGPU(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, inference.ErrDeviceLost) {
		stay("its TensorRT engine was built, but: " + err.Error())
	}
	return l, err
}

// onGPU takes the engine out of the cache into use. Its record says that it is being
// tried until it ran well for a while or was given back in order.
func (ch *choice) onGPU(ctx context.Context) (*inference.Loaded, error) {
	e, err := ch.cache.Take(ch.id)
	if err != nil {
		return nil, err
	}
	if err := ch.cache.Begin(ch.id); err != nil {
		// A full disk must not cost the GPU; only the count of deaths is off.
		ch.c.cfg.Log.Warn("use of an engine not noted", "model", ch.m.Name, "error", err)
	}
	lost := make(chan error, 1)
	d, err := ch.detector(ctx, "tensorrt", func([]byte) (model.Engine, error) {
		defer debug.FreeOSMemory() // the plan's bytes, tens of megabytes, are the library's now
		eng, err := ch.gpu.Load(e.Plan, ch.key.DLACore, func(err error) {
			select {
			case lost <- err:
			default: // it was told
			}
		})
		e.Plan = nil
		return eng, err
	})
	if err != nil {
		e.Release()
		return nil, ch.notLoaded(err, lost)
	}
	l := loaded(d, ch.device.String())
	l.OnDevice = true
	l.Close = func() error { return ch.giveBack(d, e, lost) }
	l.Tend = func(ctx context.Context, _ func(inference.Notes)) (*inference.Loaded, error) {
		return nil, ch.watch(ctx, lost)
	}
	return l, nil
}

// notLoaded settles an engine that could not be taken into use. The process goes on,
// unless the device is lost, so it is no death.
func (ch *choice) notLoaded(err error, lost chan error) error {
	select {
	case l := <-lost:
		return deviceLost(l)
	default:
	}
	switch {
	case errors.Is(err, inference.ErrDeviceLost):
		return err
	case errors.Is(err, model.ErrGolden) || errors.Is(err, model.ErrNetwork):
		return errors.Join(err, ch.cache.Refuse(ch.id, "its engine is refused: "+err.Error()), ch.cache.Remove(ch.id))
	case errors.Is(err, build.ErrPlan):
		return errors.Join(err, ch.cache.Good(ch.id), ch.cache.Remove(ch.id))
	}
	return errors.Join(err, ch.cache.Good(ch.id))
}

func deviceLost(err error) error {
	if errors.Is(err, inference.ErrDeviceLost) {
		return err
	}
	return fmt.Errorf("%w: %w", inference.ErrDeviceLost, err)
}

// watch forgives the engine its past when it ran for a while, and tells when its
// device is lost.
func (ch *choice) watch(ctx context.Context, lost chan error) error {
	t := time.NewTimer(cache.GoodAfter)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			lost <- err // for giveBack
			return deviceLost(err)
		case <-t.C:
			if err := ch.cache.Good(ch.id); err != nil {
				ch.c.cfg.Log.Warn("use of an engine not noted", "model", ch.m.Name, "error", err)
			}
		}
	}
}

// giveBack closes the engine. Its record is cleared, unless its device was lost.
func (ch *choice) giveBack(d *model.Detector, e *cache.Entry, lost chan error) error {
	defer e.Release()
	err := d.Close()
	select {
	case l := <-lost:
		return errors.Join(err, l)
	default:
		return errors.Join(err, ch.cache.Good(ch.id))
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

	good time.Duration // cache.GoodAfter but for tests
}

// Chooser gives models their engines.
type Chooser struct {
	cfg Config
	gpu func() (GPU, error)

	mu     sync.Mutex
	kept   worker.Engines
	cache  *cache.Cache
	trying map[string]int // engines in use that were not forgiven yet, by key
}

// NewChooser makes one. It keeps no engines before [Chooser.Keep].
func NewChooser(cfg Config) *Chooser {
	cfg.good = cmp.Or(cfg.good, cache.GoodAfter)
	return &Chooser{cfg: cfg, gpu: sync.OnceValues(cfg.GPU), trying: map[string]int{}}
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
	id      string // the key's, for the GPU
	dla     string // the same for a DLA
	pkg     string // fingerprint of the package
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
	r := ch.cache.Record(ch.id)
	if why := r.BarredFor(ch.pkg); why != "" {
		return ch.without(ctx, why)
	}
	if !ch.ready(ch.id) {
		return ch.building(ctx)
	}
	l, err := ch.onDevices(ctx)
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
	v, err := ch.read()
	if err != nil {
		return err
	}
	l4t, err := cache.L4T(ch.c.cfg.Root)
	if err != nil {
		return err
	}
	key := cache.NewKey(v.SHA256, v.Precision, &ch.device, l4t, ch.options(onGPU))
	ch.id = key.ID()
	dla := cache.NewKey(v.SHA256, v.Precision, &ch.device, l4t, ch.options(onDLA))
	ch.dla = dla.ID()
	return nil
}

// Where an engine is built for. One for a DLA runs on each of its cores.
const (
	onGPU = -1
	onDLA = 0
)

func (ch *choice) options(core int) cache.Options {
	return cache.Options{MaxBatch: ch.kept.MaxBatch, Level: -1, DLACore: core}
}

func (ch *choice) job(core int) build.Job {
	return build.Job{Path: ch.m.Path, Variant: ch.m.Variant, Cache: ch.kept.Cache, Quota: ch.kept.Quota, Options: ch.options(core)}
}

// ready says whether there is an engine that was judged by this model.yaml.
func (ch *choice) ready(id string) bool {
	m, err := ch.cache.Meta(id)
	// One whose description is broken is found out, and removed, by its use.
	return err == nil && m.Package == ch.pkg || errors.Is(err, cache.ErrDamaged)
}

// read learns from the package which network it is.
func (ch *choice) read() (v model.Variant, err error) {
	files, done, err := ch.c.cfg.Files(ch.m.Path)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, done()) }()
	p, err := model.Open(files)
	if err != nil {
		return v, err
	}
	if ch.pkg, err = build.Fingerprint(files); err != nil {
		return v, err
	}
	return build.FindVariant(&p.Manifest, ch.m.Variant)
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
	stay := func(why string) {
		n.Build = ""
		if n.Fallback != "" {
			n.Fallback = build.OneLine(why)
		} else {
			n.Build = build.OneLine(why) // nothing serves meanwhile
		}
		say(n)
	}
	err := ch.c.cfg.Builds.Build(ctx, ch.job(onGPU), ch.cache.Free, func(text string) { n.Build = text; say(n) })
	if ctx.Err() != nil {
		return nil, nil
	}
	if err != nil {
		var be *build.Error
		if errors.As(err, &be) && be.Final() {
			// The child wrote it down too, if it could.
			if r := ch.cache.Record(ch.id); r.BarredFor(ch.pkg) == "" {
				err = errors.Join(err, ch.cache.Refuse(ch.id, ch.pkg, err.Error()))
			}
		}
		stay("the build of its TensorRT engine failed: " + err.Error())
		return nil, err
	}
	n.Build = "built, taking it into use"
	say(n)
	l, err := ch.onDevices(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, inference.ErrDeviceLost) {
		stay("its TensorRT engine was built, but: " + err.Error())
	}
	return l, err
}

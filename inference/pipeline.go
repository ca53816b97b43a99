// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/inference/camera"
	"fulmar/inference/worker"
	"fulmar/internal/run"
	"fulmar/schema"
)

// stopGrace bounds the stop: a lane ends with the frame it looks at.
const stopGrace = 10 * time.Second

// Config is what a pipeline is made of.
type Config struct {
	Release string
	Clock   schema.Clock
	Log     *slog.Logger
	// Load makes a model ready or says in a sentence why not. It is called by
	// several goroutines.
	Load func(ctx context.Context, m worker.Model, threads int) (*Loaded, error)
	// Engines (may be nil) is told how engines are kept before models are loaded with
	// it. It must not block.
	Engines func(e worker.Engines)
	// Open makes a camera's source.
	Open func(c worker.Camera) (camera.Source, error)
	// OpenPictures opens the folder of kept pictures.
	OpenPictures func(dir string, quota int64) (Pictures, error)
	// Send takes a result; it must not block for long.
	Send func(r worker.Result)
}

// Pipeline looks at the cameras of the newest setup.
type Pipeline struct {
	cfg      Config
	log      *slog.Logger
	board    *board
	pictures *keeper
	dropped  atomic.Uint64 // events whose queue was full
	wake     chan struct{} // 1-buffered: there is a newer setup

	mu      sync.Mutex
	next    worker.Setup
	threads int
	engines worker.Engines
	cameras map[string]*cameraRun
	models  map[string]*modelRun
	stats   map[string]*stats
}

// New makes a pipeline; it does nothing until Run and Apply.
func New(cfg Config) *Pipeline {
	return &Pipeline{
		cfg: cfg, log: cfg.Log, board: newBoard(),
		pictures: &keeper{open: cfg.OpenPictures},
		wake:     make(chan struct{}, 1),
		cameras:  map[string]*cameraRun{}, models: map[string]*modelRun{}, stats: map[string]*stats{},
	}
}

// Apply makes s the setup that stands. What s leaves as it was goes on undisturbed;
// only cameras and models that differ are stopped and started.
func (p *Pipeline) Apply(s worker.Setup) {
	p.mu.Lock()
	p.next = s
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run looks at cameras until the context ends.
func (p *Pipeline) Run(ctx context.Context) error {
	g := run.New(ctx)
	stop := context.AfterFunc(g.Context(), p.board.end)
	defer stop()
	p.board.staff(func() { g.Go("lane", p.lane) })
	g.Go("setup", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.wake:
				p.reconcile(ctx, g)
			}
		}
	})
	return g.Wait(stopGrace)
}

// reconcile starts and stops what differs from the newest setup.
func (p *Pipeline) reconcile(ctx context.Context, g *run.Group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.next
	threads := max(s.Threads, 1)
	p.board.limit(runtime.GOMAXPROCS(0) / threads)
	p.pictures.point(s.BlobDir, s.BlobQuota)
	// What holds for all models makes all of them anew.
	all := threads != p.threads || s.Engines != p.engines
	if p.cfg.Engines != nil {
		p.cfg.Engines(s.Engines)
	}

	for name, c := range p.cameras {
		if !slices.Contains(s.Cameras, c.cfg) {
			c.cancel()
			if !slices.ContainsFunc(s.Cameras, func(n worker.Camera) bool { return n.Name == name }) {
				delete(p.cameras, name)
				delete(p.stats, name)
			}
		}
	}
	for name, m := range p.models {
		if !slices.Contains(s.Models, m.cfg) || all {
			m.cancel()
			if !slices.ContainsFunc(s.Models, func(n worker.Model) bool { return n.Name == name }) {
				delete(p.models, name)
			}
		}
	}
	for _, cfg := range s.Models {
		if old := p.models[cfg.Name]; old == nil || old.cfg != cfg || all {
			p.startModel(ctx, g, cfg, old, threads)
		}
	}
	for _, cfg := range s.Cameras {
		if old := p.cameras[cfg.Name]; old == nil || old.cfg != cfg {
			p.startCamera(ctx, g, cfg, old, s.Asked[cfg.Name])
		}
		p.cameras[cfg.Name].asked.Store(s.Asked[cfg.Name])
	}
	p.threads, p.engines = threads, s.Engines
	p.log.Info("setup in force", "cameras", len(s.Cameras), "models", len(s.Models), "threads", threads)
}

// startModel puts a model in place of old (nil: there was none); p.mu is held.
func (p *Pipeline) startModel(ctx context.Context, g *run.Group, cfg worker.Model, old *modelRun, threads int) {
	ctx, cancel := context.WithCancel(ctx)
	m := &modelRun{cfg: cfg, p: p, cancel: cancel, ended: make(chan struct{})}
	if old != nil {
		m.after = old.ended
	}
	m.set(worker.ModelStatus{State: modelLoading})
	p.models[cfg.Name] = m
	g.Go("model "+cfg.Name, func(context.Context) error {
		defer cancel()
		return m.run(ctx, threads)
	})
}

// startCamera puts a camera in place of old (nil: there was none); p.mu is held. Of the
// pictures asked for it has given all: what is asked for from now on it gives.
func (p *Pipeline) startCamera(ctx context.Context, g *run.Group, cfg worker.Camera, old *cameraRun, asked uint64) {
	ctx, cancel := context.WithCancel(ctx)
	c := &cameraRun{
		cfg: cfg, p: p, cancel: cancel, ended: make(chan struct{}),
		period: time.Duration(float64(time.Second) / cfg.FPS),
		out:    make(chan outgoing, waitingEvents),
		given:  asked, // of a worker before this one
	}
	c.asked.Store(asked)
	if old != nil {
		c.after = old.ended
	}
	if c.stats = p.stats[cfg.Name]; c.stats == nil {
		c.stats = newStats(cfg.Name)
		p.stats[cfg.Name] = c.stats
	}
	p.cameras[cfg.Name] = c
	g.Go("camera "+cfg.Name, func(context.Context) error {
		defer cancel()
		c.run(ctx)
		return nil
	})
	g.Go("events of "+cfg.Name, func(context.Context) error {
		c.deliver(ctx)
		return nil
	})
}

// Status tells of now. A camera whose model was refused has failed, and says so.
func (p *Pipeline) Status() worker.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := worker.Status{Release: p.cfg.Release, ResultsDropped: p.dropped.Load()}
	s.BlobBytes, s.BlobsEvicted = p.pictures.usage()
	for _, m := range p.next.Models {
		if r := p.models[m.Name]; r != nil {
			s.Models = append(s.Models, r.now())
		}
	}
	for _, cfg := range p.next.Cameras {
		c := p.cameras[cfg.Name]
		if c == nil {
			continue // the setup came this moment
		}
		st := c.stats.status()
		if m := p.models[cfg.Model]; m != nil && m.now().State == modelRefused {
			st.State, st.Error = stateFailed, "waits for model "+cfg.Model+", which was refused"
		}
		s.Cameras = append(s.Cameras, st)
	}
	return s
}

// when gives the board's time of a moment.
func (p *Pipeline) when(at time.Time) schema.Time {
	t := p.cfg.Clock.Now()
	age := time.Since(at)
	t.Mono -= int64(age)
	t.Wall -= age.Milliseconds()
	return t
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"fulmar/inference/worker"
)

// A refused model is tried again, in case its files were mended: soon at first,
// seldom later, because each try may cost seconds of CPU.
const (
	reloadFirst = 10 * time.Second
	reloadMax   = 5 * time.Minute
)

// Loaded is a model that is ready.
type Loaded struct {
	// Detectors work side by side, each on frames of its own; one is the usual number,
	// a GPU and its DLA cores are several. The first that is free is taken.
	Detectors []Detector
	// OnDevice says that a run waits for a device and needs next to no CPU.
	OnDevice bool
	Labels   []string
	Version  string // of the model, "1"
	Engine   string // "onnxruntime-cpu/int8"
	SHA256   string // of the ONNX file that runs, hexadecimal
	Close    func() error
	// EngineVersion is what the engine is of and on, "TensorRT 10.3.0 on Orin".
	EngineVersion string
	// Notes are what there is to say at first.
	Notes Notes
	// Tend (may be nil) looks after the model while it serves, until ctx ends. A Loaded
	// that it gives takes over between two frames, and this one is closed. say changes
	// the notes. An error that wraps [ErrDeviceLost] ends the pipeline; after another,
	// and after neither, the model goes on as it is.
	Tend func(ctx context.Context, say func(Notes)) (*Loaded, error)
}

// Notes are what a model's status tells of its engine beside the state.
type Notes struct {
	Build    string // how a better engine comes along
	Fallback string // why this one is not the one wanted
}

// ErrDeviceLost says that an engine's device is lost to this process: no call of it
// works any more, for any model, until a new process begins.
var ErrDeviceLost = errors.New("GPU lost")

// lastWords is how long a pipeline that lost its device goes on, so that what waits
// to be sent, and the status that says why, can leave.
const lastWords = 1500 * time.Millisecond

// modelRun is one model of the setup while it stands.
type modelRun struct {
	cfg    worker.Model
	p      *Pipeline
	after  <-chan struct{} // the end of the model of this name before
	cancel context.CancelFunc
	ended  chan struct{}

	loaded *Loaded // set before join
	units  []*unit // made by join; what they hold is guarded by board.mu
	work   work

	mu     sync.Mutex
	status worker.ModelStatus
}

// The states of a model.
const (
	modelLoading = "loading"
	modelReady   = "ready"
	modelRefused = "refused"
)

func (m *modelRun) set(s worker.ModelStatus) {
	s.Name, s.Path = m.cfg.Name, m.cfg.Path
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = s
}

func (m *modelRun) now() worker.ModelStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// run loads the model, trying again if it is refused, keeps it on the board until
// the context ends and closes it when nobody uses it any more. What Tend gives takes
// its place meanwhile. An error ends the pipeline.
func (m *modelRun) run(ctx context.Context, threads int) error {
	defer close(m.ended)
	if m.after != nil {
		<-m.after // two of a name at once would cost the memory of both
	}
	l, err := m.first(ctx, threads)
	if l != nil {
		m.enter(l)
	}
	for l != nil && err == nil {
		var next *Loaded
		if next, err = m.tend(ctx); err != nil {
			break
		}
		// Off the board first, so that the lanes cannot keep it busy for ever; the frames
		// wait in their slots as they do while a lane is at work.
		m.p.board.leave(m)
		old := l
		if l = next; l != nil {
			m.enter(l) // also when it is to end: the next Tend returns at once
		}
		m.close(old)
	}
	if err == nil {
		return nil
	}
	// Nothing is closed: each call to the device would fail.
	m.p.log.Error("model lost its device, the worker has to end", "model", m.cfg.Name, "error", err)
	m.set(worker.ModelStatus{State: modelRefused, Error: err.Error() + "; the worker ends and has to be started again"})
	sleep(ctx, lastWords)
	return err
}

// first loads the model, trying again while it is refused. Without an error nil means
// that the context ended.
func (m *modelRun) first(ctx context.Context, threads int) (*Loaded, error) {
	for wait := reloadFirst; ; wait = min(wait*2, reloadMax) {
		start := time.Now()
		l, err := m.load(ctx, threads)
		switch {
		case err == nil:
			m.p.log.Info("model loaded", "model", m.cfg.Name, "took", time.Since(start))
			return l, nil
		case ctx.Err() != nil:
			return nil, nil
		case errors.Is(err, ErrDeviceLost):
			return nil, err
		}
		m.p.log.Error("model refused", "model", m.cfg.Name, "error", err, "next_try", wait)
		m.set(worker.ModelStatus{State: modelRefused, Error: err.Error()})
		if !sleep(ctx, wait) {
			return nil, nil
		}
	}
}

// enter puts a loaded model on the board. One without a detector is not there yet:
// its Tend will give one.
func (m *modelRun) enter(l *Loaded) {
	m.loaded = l
	m.say(l.Notes)
	if !l.sees() {
		return
	}
	m.p.log.Info("model ready", "model", m.cfg.Name, "version", l.Version, "engine", l.Engine, "on", l.EngineVersion)
	m.p.board.join(m)
}

// sees says whether there is something to look at frames with.
func (l *Loaded) sees() bool { return len(l.Detectors) > 0 }

// say makes the status that of the loaded model with these notes.
func (m *modelRun) say(n Notes) {
	l := m.loaded
	s := worker.ModelStatus{
		State: modelReady, Engine: l.Engine, Version: l.Version, SHA256: l.SHA256,
		EngineVersion: cut(l.EngineVersion), Build: n.Build, Fallback: n.Fallback,
	}
	if !l.sees() {
		s.State = modelLoading
	}
	m.set(s)
}

// tend looks after the loaded model. Its error wraps ErrDeviceLost; nil and nil mean
// that the context ended.
func (m *modelRun) tend(ctx context.Context) (*Loaded, error) {
	next, err := m.tendOnce(ctx)
	if next != nil || errors.Is(err, ErrDeviceLost) {
		return next, err
	}
	if err != nil && ctx.Err() == nil {
		m.p.log.Error("engine of a model not looked after any more", "model", m.cfg.Name, "error", err)
	}
	<-ctx.Done()
	return nil, nil
}

func (m *modelRun) tendOnce(ctx context.Context) (next *Loaded, err error) {
	defer func() {
		if p := recover(); p != nil {
			next, err = nil, fmt.Errorf("tend model %s: panic: %v", m.cfg.Name, p)
		}
	}()
	if m.loaded.Tend == nil {
		return nil, nil
	}
	return m.loaded.Tend(ctx, m.say)
}

func (m *modelRun) close(l *Loaded) {
	if err := l.Close(); err != nil {
		m.p.log.Error("close model", "model", m.cfg.Name, "error", err)
	}
}

// load calls the loader; its panic refuses the model and ends nothing else.
func (m *modelRun) load(ctx context.Context, threads int) (l *Loaded, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("load model %s: panic: %v", m.cfg.Name, p)
		}
	}()
	return m.p.cfg.Load(ctx, m.cfg, threads)
}

// sleep waits; false means that the context ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
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
}

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
	s.Name = m.cfg.Name
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
// the context ends and closes it when nobody uses it any more.
func (m *modelRun) run(ctx context.Context, threads int) {
	defer close(m.ended)
	if m.after != nil {
		<-m.after // two of a name at once would cost the memory of both
	}
	for wait := reloadFirst; ; wait = min(wait*2, reloadMax) {
		start := time.Now()
		l, err := m.load(ctx, threads)
		if err == nil {
			m.loaded = l
			m.p.log.Info("model ready", "model", m.cfg.Name, "version", l.Version, "engine", l.Engine, "took", time.Since(start))
			m.set(worker.ModelStatus{State: modelReady, Engine: l.Engine, Version: l.Version, SHA256: l.SHA256})
			break
		}
		if ctx.Err() != nil {
			return
		}
		m.p.log.Error("model refused", "model", m.cfg.Name, "error", err, "next_try", wait)
		m.set(worker.ModelStatus{State: modelRefused, Error: err.Error()})
		if !sleep(ctx, wait) {
			return
		}
	}
	m.p.board.join(m)
	<-ctx.Done()
	m.p.board.leave(m)
	if err := m.loaded.Close(); err != nil {
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

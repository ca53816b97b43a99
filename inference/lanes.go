// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"fmt"
	"image"
	"runtime/debug"
	"sync"
	"time"

	"fulmar/inference/camera"
	"fulmar/schema"
)

// maxWait bounds a frame's deadline: what a slow camera sees is no less urgent than
// that, and with a deadline of its whole frame time it would lose every second frame
// to faster cameras when the model has too much to do.
const maxWait = 100 * time.Millisecond

// Detector finds things in pictures. It is used by one goroutine at a time.
type Detector interface {
	// Detect appends what it finds to dst.
	Detect(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error)
}

// board is where cameras put frames and lanes take them: one slot per camera.
type board struct {
	mu     sync.Mutex
	moved  *sync.Cond // a frame came, a model came or got free, or somebody is to stop
	slots  map[*cameraRun]*slot
	models map[string]*modelRun // those that are ready
	busy   int                  // lanes at work
	lanes  int                  // how many may be
	ending bool
}

type slot struct {
	frame    *camera.Frame // nil while empty
	deadline time.Time
}

func newBoard() *board {
	b := &board{slots: map[*cameraRun]*slot{}, models: map[string]*modelRun{}, lanes: 1}
	b.moved = sync.NewCond(&b.mu)
	return b
}

// offer puts a frame into its camera's slot. It gives back the frame that waited
// there, which is late now.
func (b *board) offer(c *cameraRun, f *camera.Frame) *camera.Frame {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.slots[c]
	if s == nil {
		s = &slot{}
		b.slots[c] = s
	}
	old := s.frame
	if old == nil {
		s.deadline = f.At.Add(min(c.period, maxWait))
	}
	s.frame = f
	b.moved.Broadcast()
	return old
}

// withdraw takes a camera off the board, with the frame that waits.
func (b *board) withdraw(c *cameraRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.slots[c]; s != nil && s.frame != nil {
		s.frame.Release()
	}
	delete(b.slots, c)
}

// take waits for the frame with the earliest deadline whose model is free, and
// makes the model busy. It returns false when the board ends.
func (b *board) take() (*cameraRun, *camera.Frame, *modelRun, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.ending {
		var best *cameraRun
		for c, s := range b.slots {
			if s.frame == nil {
				continue
			}
			if m := b.models[c.cfg.Model]; m == nil || m.busy {
				continue
			}
			if best == nil || s.deadline.Before(b.slots[best].deadline) {
				best = c
			}
		}
		if best != nil && b.busy < b.lanes {
			s, m := b.slots[best], b.models[best.cfg.Model]
			f := s.frame
			s.frame = nil
			m.busy = true
			b.busy++
			return best, f, m, true
		}
		b.moved.Wait()
	}
	return nil, nil, nil, false
}

// done makes a model free again.
func (b *board) done(m *modelRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.busy = false
	b.busy--
	b.moved.Broadcast()
}

// join puts a loaded model on the board.
func (b *board) join(m *modelRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.models[m.cfg.Name] = m
	b.moved.Broadcast()
}

// leave takes a model off the board and waits until no lane uses it.
func (b *board) leave(m *modelRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.models[m.cfg.Name] == m {
		delete(b.models, m.cfg.Name)
	}
	for m.busy {
		b.moved.Wait()
	}
}

// awaitModel waits until the model is on the board or the context ends.
func (b *board) awaitModel(ctx context.Context, name string) error {
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.moved.Broadcast()
	})
	defer stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.models[name] == nil && ctx.Err() == nil {
		b.moved.Wait()
	}
	return ctx.Err()
}

// limit sets how many lanes may be at work.
func (b *board) limit(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lanes = max(n, 1)
	b.moved.Broadcast()
}

func (b *board) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending = true
	b.moved.Broadcast()
}

// lane looks at frames until the board ends.
func (p *Pipeline) lane(ctx context.Context) error {
	var boxes []schema.Box
	for {
		c, f, m, ok := p.board.take()
		if !ok {
			return ctx.Err()
		}
		var err error
		boxes, err = detect1(ctx, m.loaded.Detector, f.Image, boxes[:0])
		switch {
		case err == nil:
			c.finish(f, m.loaded, boxes)
		case ctx.Err() == nil:
			c.stats.bad(fmt.Errorf("model %s: %w", m.cfg.Name, err))
			fallthrough
		default:
			f.Release()
		}
		// Only now: what finish keeps for the camera is guarded by the model's turn.
		p.board.done(m)
	}
}

// detect1 runs the model on one frame; a panic of its Go code is an error of this
// frame, not the end of all cameras.
func detect1(ctx context.Context, d Detector, img image.Image, dst []schema.Box) (boxes []schema.Box, err error) {
	defer func() {
		if p := recover(); p != nil {
			boxes, err = dst, fmt.Errorf("panic: %v at %.400s", p, debug.Stack())
		}
	}()
	return d.Detect(ctx, img, dst)
}

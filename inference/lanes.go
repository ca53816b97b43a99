// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"fulmar/inference/camera"
)

// maxWait bounds a frame's deadline: what a slow camera sees is no less urgent than
// that, and with a deadline of its whole frame time it would lose every second frame
// to faster cameras when the model has too much to do.
const maxWait = 100 * time.Millisecond

// board is where cameras put frames and lanes take them: one slot per camera.
type board struct {
	mu     sync.Mutex
	moved  *sync.Cond // a frame came, a model came or got free, or somebody is to stop
	slots  map[*cameraRun]*slot
	models map[string]*modelRun // those that are ready
	busy   int                  // lanes at work on the CPU
	lanes  int                  // how many may be
	hired  int                  // lanes there are
	hire   func()               // starts one more
	ending bool
}

type slot struct {
	frame    *camera.Frame // nil while empty
	deadline time.Time
	taken    bool // a lane looks at a frame of this camera
}

func newBoard() *board {
	b := &board{slots: map[*cameraRun]*slot{}, models: map[string]*modelRun{}, lanes: 1, hire: func() {}}
	b.moved = sync.NewCond(&b.mu)
	return b
}

// staff says how a lane is started. It comes before the first join.
func (b *board) staff(hire func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hire = hire
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

// take waits for the frame with the earliest deadline whose model has a free unit,
// puts it into t with others that wait for the same model, and makes the unit busy.
// It returns false when the board ends.
func (b *board) take(t *batch) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.ending {
		c, s, u := b.first()
		if c == nil {
			b.moved.Wait()
			continue
		}
		t.model, t.unit = b.models[c.cfg.Model], u
		t.items = append(t.items[:0], item{camera: c, slot: s})
		if u.most > 1 {
			b.fill(t)
		}
		for i := range t.items {
			it := &t.items[i]
			it.frame, it.slot.frame, it.slot.taken = it.slot.frame, nil, true
		}
		u.busy = true
		if !t.model.loaded.OnDevice {
			b.busy++
		}
		return true
	}
	return false
}

// first is the waiting frame with the earliest deadline among those that can be
// looked at now, and the unit for it; nil if there is none.
func (b *board) first() (c *cameraRun, s *slot, u *unit) {
	for nc, ns := range b.slots {
		if ns.frame == nil || ns.taken || (s != nil && !ns.deadline.Before(s.deadline)) {
			continue
		}
		m := b.models[nc.cfg.Model]
		if m == nil || (!m.loaded.OnDevice && b.busy >= b.lanes) {
			continue
		}
		if nu := m.free(); nu != nil {
			c, s, u = nc, ns, nu
		}
	}
	return c, s, u
}

// fill adds to the first frame of t those of other cameras that wait for its model,
// in the order of their deadlines, as many as the unit has room for.
func (b *board) fill(t *batch) {
	name, shortest := t.model.cfg.Name, maxWait
	for c, s := range b.slots {
		if c.cfg.Model != name {
			continue
		}
		shortest = min(shortest, c.period)
		if s.frame == nil || s.taken || s == t.items[0].slot {
			continue
		}
		at := len(t.items)
		for at > 1 && s.deadline.Before(t.items[at-1].slot.deadline) {
			at--
		}
		if at < t.unit.most {
			t.items = slices.Insert(t.items[:min(len(t.items), t.unit.most-1)], at, item{camera: c, slot: s})
		}
	}
	if len(t.items) > 1 {
		t.items = t.items[:t.unit.room(len(t.items), time.Until(t.items[0].slot.deadline), shortest)]
	}
}

// done makes the unit and the cameras of a batch free again. took is how long a run
// of n pictures was; n is 0 if that was not seen.
func (b *board) done(t *batch, n int, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range t.items {
		t.items[i].slot.taken = false
	}
	if n > 0 {
		t.unit.measured(n, took)
	}
	t.unit.busy = false
	if !t.model.loaded.OnDevice {
		b.busy--
	}
	clear(t.items)
	b.moved.Broadcast()
}

// join puts a loaded model on the board. There are as many lanes as units were ever
// there at once: more could not have work.
func (b *board) join(m *modelRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.units = nil
	for _, d := range m.loaded.Detectors {
		m.units = append(m.units, newUnit(d))
	}
	b.models[m.cfg.Name] = m
	units := 0
	for _, m := range b.models {
		units += len(m.units)
	}
	for ; b.hired < units; b.hired++ {
		b.hire()
	}
	b.moved.Broadcast()
}

// leave takes a model off the board and waits until no lane uses it.
func (b *board) leave(m *modelRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.models[m.cfg.Name] == m {
		delete(b.models, m.cfg.Name)
	}
	for m.used() {
		b.moved.Wait()
	}
}

// free is a unit that no lane uses, or nil; board.mu is held.
func (m *modelRun) free() *unit {
	for _, u := range m.units {
		if !u.busy {
			return u
		}
	}
	return nil
}

// used says whether a lane uses one of the units; board.mu is held.
func (m *modelRun) used() bool {
	return slices.ContainsFunc(m.units, func(u *unit) bool { return u.busy })
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

// limit sets how many lanes may be at work on the CPU.
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
	var t batch
	for p.board.take(&t) {
		m, start := t.model, time.Now()
		n := t.look(ctx)
		took := time.Since(start)
		m.work.frames.Add(uint64(len(t.items)))
		m.work.runs.Add(1)
		for i := range t.items {
			it := &t.items[i]
			switch err := t.errs[i]; {
			case err == nil:
				it.camera.finish(it.frame, m.loaded, t.boxes[i])
			case ctx.Err() == nil:
				it.camera.stats.bad(fmt.Errorf("model %s: %w", m.cfg.Name, err))
				fallthrough
			default:
				it.frame.Release()
			}
		}
		// Only now: what finish keeps for a camera is guarded by its frame's turn.
		p.board.done(&t, n, took)
	}
	return ctx.Err()
}

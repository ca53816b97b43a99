// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"fmt"
	"image"
	"runtime/debug"
	"sync/atomic"
	"time"

	"fulmar/inference/camera"
	"fulmar/schema"
)

// Detector finds things in pictures. It is used by one goroutine at a time.
type Detector interface {
	// Detect appends what it finds to dst.
	Detect(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error)
}

// Batcher is a Detector that looks at several pictures in one run.
type Batcher interface {
	Detector
	// MaxBatch is how many at most, the same for its life.
	MaxBatch() int
	// DetectBatch appends what it finds in imgs[i] to dst[i]. errs[i] says why it could
	// not look at that picture, which must not spoil the others.
	DetectBatch(ctx context.Context, imgs []image.Image, dst [][]schema.Box, errs []error)
}

// unit is one Detector of a model that is on the board.
type unit struct {
	detector Detector
	batcher  Batcher // nil: one picture at a time
	most     int     // pictures in one run
	busy     bool
	took     []time.Duration // how long a run of n+1 pictures takes; 0: not known
}

func newUnit(d Detector) *unit {
	u := &unit{detector: d, most: 1}
	if b, ok := d.(Batcher); ok && b.MaxBatch() > 1 {
		u.batcher, u.most = b, b.MaxBatch()
	}
	u.took = make([]time.Duration, u.most)
	return u
}

// measured takes in how long a run of n pictures took.
func (u *unit) measured(n int, took time.Duration) {
	const weight = 4 // of the past against the newest
	if old := u.took[n-1]; old != 0 {
		took = (weight*old + took) / (weight + 1)
	}
	u.took[n-1] = max(took, 1)
}

// estimate is how long a run of n pictures takes, by all that was measured: no longer
// than one of more pictures, and no longer a picture than one of fewer. Before the
// first run it is 0.
func (u *unit) estimate(n int) time.Duration {
	var least time.Duration
	for i, t := range u.took {
		if t == 0 {
			continue
		}
		if m := i + 1; m < n {
			t = t * time.Duration(n) / time.Duration(m)
		}
		if least == 0 || t < least {
			least = t
		}
	}
	return least
}

// room is how many of the waiting frames go into one run. left is the time to the
// deadline of the first, which the others must not cost it if alone it would be in
// time; shortest is the shortest frame time among all cameras of the model, which the
// run must not outlast, for the sake of a frame that comes when it has just begun. When
// the deadline has passed, all go: what is short then is throughput.
func (u *unit) room(waiting int, left, shortest time.Duration) int {
	waiting = min(waiting, u.most)
	if left < 0 {
		return waiting
	}
	limit := shortest
	if u.estimate(1) <= left {
		limit = min(limit, left)
	}
	n := 1
	for n < waiting && u.estimate(n+1) <= limit {
		n++
	}
	return n
}

// batch is what a lane has taken: frames of different cameras in the order of their
// deadlines, and a unit of their model. A lane uses one over and over.
type batch struct {
	model *modelRun
	unit  *unit
	items []item // those of this turn
	imgs  []image.Image
	boxes [][]schema.Box
	errs  []error
}

type item struct {
	camera *cameraRun
	slot   *slot
	frame  *camera.Frame
}

// look runs the unit on the frames. It returns how many pictures the run was for, 0
// if it was not one run, or was none.
func (b *batch) look(ctx context.Context) int {
	n := len(b.items)
	for len(b.boxes) < n {
		b.boxes = append(b.boxes, nil)
	}
	b.imgs, b.errs = b.imgs[:0], b.errs[:0]
	for i := range b.items {
		b.imgs, b.errs = append(b.imgs, b.items[i].frame.Image), append(b.errs, nil)
		b.boxes[i] = b.boxes[i][:0]
	}
	// Not kept until the next turn: the frames are given back before.
	defer clear(b.imgs)
	if n == 1 || b.detectAll(ctx, n) != nil {
		// After a panic of many, one by one shows whose picture it is.
		for i := range n {
			b.boxes[i], b.errs[i] = detect1(ctx, b.unit.detector, b.imgs[i], b.boxes[i][:0])
		}
		if n > 1 {
			return 0
		}
	}
	for _, err := range b.errs {
		if err != nil {
			n--
		}
	}
	return n
}

// detectAll runs the unit on n frames at once. Its error is a panic.
func (b *batch) detectAll(ctx context.Context, n int) (err error) {
	defer func() { err = caught(recover()) }()
	b.unit.batcher.DetectBatch(ctx, b.imgs, b.boxes[:n], b.errs)
	return nil
}

// detect1 runs the model on one frame; a panic of its Go code is an error of this
// frame, not the end of all cameras.
func detect1(ctx context.Context, d Detector, img image.Image, dst []schema.Box) (boxes []schema.Box, err error) {
	defer func() {
		if p := caught(recover()); p != nil {
			boxes, err = dst, p
		}
	}()
	return d.Detect(ctx, img, dst)
}

// caught makes an error of what recover gives.
func caught(p any) error {
	if p == nil {
		return nil
	}
	return fmt.Errorf("panic: %v at %.400s", p, debug.Stack())
}

// work counts what a model did since it was loaded.
type work struct {
	frames, runs atomic.Uint64
}

// counts are the frames looked at, those that failed included, and the runs of the
// model they took; their ratio is the mean size of a batch.
func (w *work) counts() (frames, runs uint64) { return w.frames.Load(), w.runs.Load() }

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"fulmar/inference/camera"
	"fulmar/inference/detect"
	"fulmar/inference/worker"
	"fulmar/schema"
)

// A source that fails is opened again after these waits.
const (
	reopenFirst = time.Second
	reopenMax   = 30 * time.Second
)

// waitingEvents is how many events of one camera wait while a picture is kept: at
// the fastest useful rate (10 a second) a disk may stall for most of a second.
const waitingEvents = 8

// Bounds of an event, so that its record fits schema.MaxRecord: a box is at most 38
// bytes. The best boxes come first.
const (
	maxBoxes  = 180
	labelRoom = 1 << 10 // bytes for the names of the classes in one event
)

// cameraRun is one camera of the setup while it stands.
type cameraRun struct {
	cfg    worker.Camera
	p      *Pipeline
	stats  *stats
	period time.Duration
	after  <-chan struct{} // the end of the camera of this name before
	cancel context.CancelFunc
	ended  chan struct{}
	out    chan outgoing
	// The times of the newest event and picture; the lane that has a frame of this
	// camera uses them, and no two have one at a time.
	lastEvent, lastPicture time.Time
	asked                  atomic.Uint64 // of the setup; another than given: a picture is wanted
	given                  uint64        // as lastEvent
}

// outgoing is an event on its way, with the frame whose picture is to be kept.
type outgoing struct {
	result worker.Result
	frame  *camera.Frame // nil: keep no picture
}

// run takes frames until the context ends.
func (c *cameraRun) run(ctx context.Context) {
	defer close(c.ended)
	if c.after != nil {
		<-c.after
	}
	defer c.p.board.withdraw(c)
	for wait := reopenFirst; ctx.Err() == nil; wait = min(wait*2, reopenMax) {
		if c.p.board.awaitModel(ctx, c.cfg.Model) != nil {
			return
		}
		before := c.stats.status().Frames
		err := c.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.stats.status().Frames != before {
			wait = reopenFirst // it worked for a while
		}
		c.stats.set(stateFailed, err.Error())
		c.p.log.Warn("camera failed", "camera", c.cfg.Name, "error", err, "next_try", wait)
		if !sleep(ctx, wait) {
			return
		}
	}
}

// watch opens the source and takes its frames until it fails.
func (c *cameraRun) watch(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	src, err := c.p.cfg.Open(c.cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	c.stats.set(stateRunning, "")
	for {
		f, err := src.Next(ctx)
		switch {
		case errors.Is(err, camera.ErrBad):
			c.stats.bad(err)
			continue
		case err != nil:
			return err
		}
		c.stats.frame()
		if old := c.p.board.offer(c, f); old != nil {
			c.stats.late()
			old.Release()
		}
	}
}

// finish takes what a model found in a frame: counts it, and makes an event of it
// when there is something and one is due. It owns the frame; boxes stay the lane's.
func (c *cameraRun) finish(f *camera.Frame, m *Loaded, boxes []schema.Box) {
	latency := time.Since(f.At)
	right, wrong, missed := 0, 0, 0
	if f.HasTruth {
		right, wrong, missed = detect.Match(boxes, f.Truth)
	}
	c.stats.inferred(latency, right, wrong, missed)
	asked := c.asked.Load()
	wanted := asked != c.given
	if !wanted && (len(boxes) == 0 || f.At.Sub(c.lastEvent) < c.cfg.EventEvery-sameMoment) {
		f.Release()
		return
	}
	o := outgoing{result: worker.Result{Time: c.p.when(f.At), Event: c.event(f, m, boxes, latency)}}
	picture := wanted || c.cfg.SnapshotEvery > 0 && f.At.Sub(c.lastPicture) >= c.cfg.SnapshotEvery-sameMoment
	if picture {
		o.frame = f
	}
	select {
	case c.out <- o:
		c.lastEvent = f.At
		if picture {
			c.lastPicture, c.given = f.At, asked
			return // keep releases it
		}
	default:
		c.p.dropped.Add(1)
	}
	f.Release()
}

func (c *cameraRun) event(f *camera.Frame, m *Loaded, boxes []schema.Box, latency time.Duration) schema.Event {
	size := f.Image.Bounds().Size()
	e := schema.Event{
		Source: c.cfg.Name, Model: cut(c.cfg.Model + "@" + m.Version), Frame: f.Number,
		Width: size.X, Height: size.Y, LatencyUs: micros(latency), Engine: cut(m.Engine),
		Boxes:  slices.Clone(boxes[:min(len(boxes), maxBoxes)]),
		Truth:  slices.Clone(f.Truth[:min(len(f.Truth), maxBoxes)]),
		Labels: map[uint16]string{},
	}
	room := labelRoom
	for _, list := range [][]schema.Box{e.Boxes, e.Truth} {
		for _, b := range list {
			if _, known := e.Labels[b.Class]; known || int(b.Class) >= len(m.Labels) {
				continue
			}
			if l := cut(m.Labels[b.Class]); len(l) <= room {
				e.Labels[b.Class] = l
				room -= len(l) + 5 // its key and header
			}
		}
	}
	return e
}

// cut bounds a name that comes from a model package, so that it cannot make an
// event that no reader takes.
func cut(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), schema.MaxName)], "")
}

// deliver sends the camera's events in order, keeping pictures on the way, until
// the context ends and those that wait are sent, then without their pictures: a slow
// disk must not hold up the stop.
func (c *cameraRun) deliver(ctx context.Context) {
	for {
		select {
		case o := <-c.out:
			c.send(o)
		case <-ctx.Done():
			for {
				select {
				case o := <-c.out:
					if o.frame != nil {
						o.frame.Release()
						o.frame = nil
					}
					c.send(o)
				default:
					return
				}
			}
		}
	}
}

func (c *cameraRun) send(o outgoing) {
	if o.frame != nil {
		snap, err := c.p.pictures.keep(c.cfg.Name, o.result.Time, o.frame)
		o.frame.Release()
		if err != nil {
			c.p.log.Warn("picture not kept", "camera", c.cfg.Name, "error", err)
		} else {
			o.result.Snapshot, o.result.Event.Snapshot = snap, snap.Name
		}
	}
	c.p.cfg.Send(o.result)
}

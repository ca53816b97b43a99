// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package camera

import (
	"context"
	"errors"
	"image"
	"time"

	"fulmar/schema"
)

// Bounds of a picture. A header may claim anything; what it claims is memory.
const (
	MaxSide   = 8192        // pixels
	MaxPixels = 7680 * 4320 // an 8K frame: 133 MB as RGBA, the most a small board can spare
	MaxFile   = 64 << 20    // bytes of one picture file
)

// ErrBad is wrapped by Next's errors for one frame that could not be had: the
// source is fine and the next frame may be. Any other error ends the source.
var ErrBad = errors.New("bad frame")

// Source gives frames, one at a time.
type Source interface {
	// Next waits for the moment of the next frame and gives it.
	Next(ctx context.Context) (*Frame, error)
	Close() error
}

// Frame is one picture and what is known of it.
type Frame struct {
	// Image is the picture; nobody may write to it. It is valid until Release.
	Image image.Image
	// JPEG is the picture as the source had it, untouched; nil where the source
	// had none.
	JPEG   []byte
	Number uint64    // from 1, at its source
	At     time.Time // of capture, before reading and decoding; has a monotonic part
	// Truth is what is in the picture, where HasTruth says that it is known.
	Truth    []schema.Box
	HasTruth bool

	release func()
}

// Release gives the picture's memory back. The frame must not be used afterwards.
func (f *Frame) Release() {
	if r := f.release; r != nil {
		f.release = nil
		r()
	}
}

// pace keeps the moments of a source's frames on a grid of one period.
type pace struct {
	period time.Duration
	next   time.Time
	timer  *time.Timer
}

func newPace(fps float64) *pace {
	return &pace{period: time.Duration(float64(time.Second) / fps)}
}

// wait returns at the moment of the next frame. The first is now. Moments that
// passed while the caller was busy are left out.
func (p *pace) wait(ctx context.Context) error {
	now := time.Now()
	if p.next.IsZero() {
		p.next = now
	}
	if d := p.next.Sub(now); d > 0 {
		if p.timer == nil {
			p.timer = time.NewTimer(d)
		} else {
			p.timer.Reset(d)
		}
		select {
		case <-ctx.Done():
			p.timer.Stop()
			return ctx.Err()
		case <-p.timer.C:
		}
	} else if late := -d; late > p.period {
		p.next = p.next.Add(late.Truncate(p.period))
	}
	p.next = p.next.Add(p.period)
	return ctx.Err()
}

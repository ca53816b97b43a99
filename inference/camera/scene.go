// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package camera

import (
	"context"
	"fmt"
	"image"
	"time"

	"fulmar/models/parcels/scene"
	"fulmar/schema"
)

// poolSize is how many pictures a scene camera keeps for use again: one drawn, one
// waiting, one looked at, one being kept as a snapshot.
const poolSize = 4

type drawn struct {
	scene  *scene.Scene
	size   image.Rectangle
	pace   *pace
	number uint64
	pool   chan *image.RGBA
}

// NewScene is a camera over a sorting line that is drawn: fps frames a second of the
// scene that the settings shape. Its frames have their truth; they have no JPEG.
func NewScene(s scene.Settings, fps float64) (Source, error) {
	sc, err := scene.New(s)
	if err != nil {
		return nil, fmt.Errorf("draw scene: %w", err)
	}
	return &drawn{
		scene: sc, size: image.Rect(0, 0, s.Width, s.Height), pace: newPace(fps),
		pool: make(chan *image.RGBA, poolSize),
	}, nil
}

// Next draws the next frame.
func (d *drawn) Next(ctx context.Context) (*Frame, error) {
	if err := d.pace.wait(ctx); err != nil {
		return nil, err
	}
	var img *image.RGBA
	select {
	case img = <-d.pool:
	default:
		img = image.NewRGBA(d.size)
	}
	d.number++
	f := &Frame{Image: img, Number: d.number, At: time.Now(), HasTruth: true}
	f.release = func() {
		select {
		case d.pool <- img:
		default: // enough are kept; this one is the collector's
		}
	}
	things, err := d.scene.Frame(d.number, img)
	if err != nil {
		f.Release()
		return nil, fmt.Errorf("draw frame %d: %w", d.number, err)
	}
	f.Truth = make([]schema.Box, 0, len(things))
	for _, t := range things {
		f.Truth = append(f.Truth, schema.Box{
			Class: uint16(t.Class), Score: 1, X0: t.Box[0], Y0: t.Box[1], X1: t.Box[2], Y1: t.Box[3],
		})
	}
	return f, nil
}

// Close lets go of nothing: pictures still in use stay valid.
func (d *drawn) Close() error { return nil }

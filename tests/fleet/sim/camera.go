// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"time"

	"fulmar/models/parcels/scene"
	"fulmar/schema"
)

const (
	// sights is how many frames are drawn, once, for all boards to see; each is
	// sightStep frames of the scene after the one before.
	numSights = 24
	sightStep = 40
	// A small picture: 3 to 6 KB.
	sightWidth, sightHeight, sightQuality = 320, 192, 60
)

// camera is one of a board; its times are those of its next event.
type camera struct {
	name, model, engine string
	frame               uint64
	dead                bool
	next, picture       time.Time
}

// sight is one frame and what is in it; nobody changes it.
type sight struct {
	truth []schema.Box
	jpeg  []byte // nil where none are wanted
}

// drawSights draws what cameras see, with the generator of the model we train.
func drawSights(seed uint64, pictures bool) ([]sight, error) {
	set := scene.Default()
	set.Width, set.Height, set.Seed = sightWidth, sightHeight, seed+1
	s, err := scene.New(set)
	if err != nil {
		return nil, err
	}
	img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
	out := make([]sight, numSights)
	for i := range out {
		things, err := s.Frame(uint64(i*sightStep), img)
		if err != nil {
			return nil, fmt.Errorf("draw frame %d: %w", i, err)
		}
		for _, t := range things {
			out[i].truth = append(out[i].truth, schema.Box{Class: uint16(t.Class), Score: 1, X0: t.Box[0], Y0: t.Box[1], X1: t.Box[2], Y1: t.Box[3]})
		}
		if pictures {
			var b bytes.Buffer
			if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: sightQuality}); err != nil {
				return nil, fmt.Errorf("encode frame %d: %w", i, err)
			}
			out[i].jpeg = b.Bytes()
		}
	}
	return out, nil
}

// look makes an event when its time has come: most boxes are right, a few are missed,
// now and then one is false.
func (b *board) look(c *camera, now time.Time) {
	if c.dead || b.state.silent || now.Before(c.next) {
		return
	}
	c.next = now.Add(b.soon(b.f.cfg.EventEvery))
	c.frame += uint64(1 + b.rnd.IntN(300))
	see := &b.f.sights[b.rnd.IntN(len(b.f.sights))]
	e := &schema.Event{
		Source: c.name, Model: c.model, Frame: c.frame, Width: sightWidth, Height: sightHeight,
		Labels: map[uint16]string{}, LatencyUs: uint32(9000 + b.rnd.IntN(6000)), Engine: c.engine,
	}
	miss, wrong := 0.04, 0.03
	if b.trouble == TroubleOld {
		miss, wrong = 0.15, 0.1
	}
	for _, t := range see.truth {
		e.Labels[t.Class] = scene.Classes()[t.Class]
		if b.rnd.Float64() < miss {
			t.Match = schema.MatchMissed
			e.Truth = append(e.Truth, t)
			continue
		}
		t.Match = schema.MatchTrue
		e.Truth = append(e.Truth, t)
		t.Score = float32(0.72 + 0.27*b.rnd.Float64())
		e.Boxes = append(e.Boxes, t)
	}
	if b.rnd.Float64() < wrong {
		e.Labels[scene.ClassLabel] = scene.Classes()[scene.ClassLabel]
		e.Boxes = append(e.Boxes, schema.Box{Class: scene.ClassLabel, Score: 0.51, X0: 20, Y0: 20, X1: 44, Y1: 36, Match: schema.MatchFalse})
	}
	var pic *picture
	var index *schema.Snapshot
	if now.After(c.picture) && len(see.jpeg) > 0 {
		c.picture = now.Add(b.soon(b.f.cfg.PictureEvery))
		pic, index = b.newPicture(c.name, c.frame, see.jpeg)
		e.Snapshot = pic.name
	}
	b.keep(schema.ClassEvent, schema.Record{Kind: schema.KindEvent, Event: e}, now, nil)
	if pic != nil {
		b.keep(schema.ClassSnapshot, schema.Record{Kind: schema.KindSnapshot, Snapshot: index}, now, pic)
	}
}

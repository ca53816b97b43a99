// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // golden pictures
	_ "image/png"  // golden pictures
	"io"

	"fulmar/inference/detect"
	"fulmar/inference/tensor"
	"fulmar/schema"
)

// How far a golden picture's boxes may be off. Another engine, machine or precision
// moves them a little; a wrong colour order, scale or padding moves them more.
const (
	goldenIoU   = 0.75
	goldenScore = 0.15 // also how near the threshold a box may come or go
)

// expected is a file of expected boxes.
type expected struct {
	Boxes []expectedBox `json:"boxes"`
}

type expectedBox struct {
	Class uint16     `json:"class"`
	Score float32    `json:"score"`
	Box   [4]float32 `json:"box"`
}

// check runs the golden pictures, each in all places of the batch.
func (d *Detector) check(ctx context.Context, p *Package) error {
	for _, g := range p.Manifest.Golden {
		img, err := picture(p, g.Image, maxImage)
		if err != nil {
			return fmt.Errorf("%w: golden picture %s: %w", ErrPackage, g.Image, err)
		}
		want, err := boxes(p, g.Expected)
		if err != nil {
			return fmt.Errorf("%w: golden boxes %s: %w", ErrPackage, g.Expected, err)
		}
		got, err := d.everywhere(ctx, img)
		if err != nil {
			return fmt.Errorf("golden picture %s: %w", g.Image, err)
		}
		for i := range got {
			if err := agree(got[i], want, p.Manifest.Thresholds.Score); err != nil {
				return fmt.Errorf("%w: %s in place %d of %d: %w; the network, its preprocessing in model.yaml or this engine is wrong", ErrGolden, g.Image, i+1, len(got), err)
			}
		}
		d.info.Golden++
	}
	return nil
}

// agree is nil if each clear box of one side is there on the other. Boxes within the
// tolerance of the threshold may be missing.
func agree(got, want []schema.Box, threshold float32) error {
	clear := threshold + goldenScore
	for i := range want {
		w := &want[i]
		g, iou := partner(w, got)
		if w.Score < clear {
			continue
		}
		if g == nil || iou < goldenIoU {
			return fmt.Errorf("%d boxes found, %d expected: the one of class %d with score %.2f at %.0f,%.0f is not there (best overlap %.2f)", len(got), len(want), w.Class, w.Score, w.X0, w.Y0, iou)
		}
		if diff := g.Score - w.Score; diff > goldenScore || diff < -goldenScore {
			return fmt.Errorf("the box of class %d at %.0f,%.0f has score %.2f, expected %.2f", w.Class, w.X0, w.Y0, g.Score, w.Score)
		}
	}
	for i := range got {
		if g := &got[i]; g.Score >= clear {
			if _, iou := partner(g, want); iou < goldenIoU {
				return fmt.Errorf("%d boxes found, %d expected: one of class %d with score %.2f at %.0f,%.0f is too many", len(got), len(want), g.Class, g.Score, g.X0, g.Y0)
			}
		}
	}
	return nil
}

// partner is the box of the same class that overlaps most.
func partner(b *schema.Box, others []schema.Box) (*schema.Box, float64) {
	var at *schema.Box
	most := 0.0
	for i := range others {
		if iou := detect.IoU(b, &others[i]); others[i].Class == b.Class && iou > most {
			at, most = &others[i], iou
		}
	}
	return at, most
}

func picture(p *Package, name string, limit int) (image.Image, error) {
	b, err := read(p.files, name, limit)
	if err != nil {
		return nil, err
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: it is no PNG or JPEG: %w", tensor.ErrImage, err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxPixels/c.Height {
		return nil, fmt.Errorf("%w: %dx%d pixels, at most %d", tensor.ErrImage, c.Width, c.Height, maxPixels)
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrImage, err)
	}
	return img, nil
}

func boxes(p *Package, name string) ([]schema.Box, error) {
	b, err := read(p.files, name, maxExpected)
	if err != nil {
		return nil, err
	}
	var e expected
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	if len(e.Boxes) > schema.MaxDetections {
		return nil, fmt.Errorf("%d boxes, at most %d", len(e.Boxes), schema.MaxDetections)
	}
	out := make([]schema.Box, len(e.Boxes))
	for i, x := range e.Boxes {
		if int(x.Class) >= len(p.Manifest.Labels) || !(x.Box[2] > x.Box[0] && x.Box[3] > x.Box[1]) {
			return nil, fmt.Errorf("box %d has no label or no area", i)
		}
		out[i] = schema.Box{Class: x.Class, Score: x.Score, X0: x.Box[0], Y0: x.Box[1], X1: x.Box[2], Y1: x.Box[3]}
	}
	return out, nil
}

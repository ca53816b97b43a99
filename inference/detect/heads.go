// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"fmt"

	"fulmar/inference/tensor"
)

// cell is a place of a grid or a prior box, in pixels of the input.
type cell struct {
	x, y float32 // YOLOX: column and row; priors: centre
	w, h float32 // YOLOX: the stride, twice; priors: size
}

func (d *Decoder) asYOLOX(outputs []*tensor.Tensor) error {
	c := &d.cfg
	if len(c.Strides) == 0 || len(c.Strides) > 8 {
		return fmt.Errorf("%d strides, wants 1 to 8", len(c.Strides))
	}
	n := 0
	for _, s := range c.Strides {
		if s < 1 || c.Width%s != 0 || c.Height%s != 0 {
			return fmt.Errorf("stride %d does not divide the input of %dx%d", s, c.Width, c.Height)
		}
		n += (c.Width / s) * (c.Height / s)
	}
	out, err := pick(outputs, tensor.Float32, 1, n, 5+c.Classes)
	if err != nil {
		return err
	}
	for _, s := range c.Strides {
		for y := range c.Height / s {
			for x := range c.Width / s {
				d.cells = append(d.cells, cell{float32(x), float32(y), float32(s), float32(s)})
			}
		}
	}
	d.scores, d.width, d.read = out.Float32(), 5+c.Classes, d.readYOLOX
	d.found = make([]candidate, 0, n)
	return nil
}

func (d *Decoder) readYOLOX() {
	least, width := d.cfg.Score, d.width
	for i := range d.cells {
		row := d.scores[i*width : (i+1)*width]
		// A score is at most the objectness: most cells end here, unread.
		obj := row[4]
		if !(obj >= least) {
			continue
		}
		class, best := top(row[5:])
		score := float32(obj * best)
		if !(score >= least) {
			continue
		}
		g := &d.cells[i]
		x, y := (row[0]+g.x)*g.w, (row[1]+g.y)*g.h
		w, h := exp(row[2])*g.w/2, exp(row[3])*g.h/2
		d.add(i, class-d.cfg.LabelOffset, score, x-w, y-h, x+w, y+h)
	}
}

// top is the largest of the scores and its place; NaN is never it.
func top(v []float32) (class int, best float32) {
	class = -1
	for i, s := range v {
		if s > best {
			class, best = i, s
		}
	}
	return class, best
}

// priorSizes are UltraFace's prior boxes for each stride, in pixels.
func priorSizes() [][]float32 {
	return [][]float32{{10, 16, 24}, {32, 48}, {64, 96}, {128, 192, 256}}
}

func (d *Decoder) asPriors(outputs []*tensor.Tensor) error {
	c := &d.cfg
	stride := 8
	for _, sizes := range priorSizes() {
		for y := range (c.Height + stride - 1) / stride {
			for x := range (c.Width + stride - 1) / stride {
				for _, s := range sizes {
					// Clamped to the input, as they were in training.
					d.cells = append(d.cells, cell{
						min((float32(x)+0.5)*float32(stride), float32(c.Width)),
						min((float32(y)+0.5)*float32(stride), float32(c.Height)),
						min(s, float32(c.Width)), min(s, float32(c.Height)),
					})
				}
			}
		}
		stride *= 2
	}
	d.read = d.readPriors
	return d.scored(outputs, len(d.cells))
}

// scored finds the outputs of scores and boxes over n places; n < 0 is any number.
func (d *Decoder) scored(outputs []*tensor.Tensor, n int) error {
	// With offset 1 the background stands before the labels' classes.
	d.width = d.cfg.LabelOffset + d.cfg.Classes
	if d.width == 4 {
		return fmt.Errorf("%w: scores and boxes both have rows of 4 and cannot be told apart", ErrOutputs)
	}
	s, err := pick(outputs, tensor.Float32, 1, n, d.width)
	if err != nil {
		return err
	}
	b, err := pick(outputs, tensor.Float32, 1, s.Dim(1), 4)
	if err != nil {
		return err
	}
	d.scores, d.boxes = s.Float32(), b.Float32()
	d.found = make([]candidate, 0, s.Dim(1))
	return nil
}

// The variances of SSD-style offsets, fixed in training.
const (
	centreVariance = 0.1
	sizeVariance   = 0.2
)

func (d *Decoder) readPriors() {
	for i := range d.cells {
		class, score := top(d.scores[i*d.width+d.cfg.LabelOffset : (i+1)*d.width])
		if !(score >= d.cfg.Score) {
			continue
		}
		g, b := &d.cells[i], d.boxes[4*i:4*i+4]
		x, y := b[0]*centreVariance*g.w+g.x, b[1]*centreVariance*g.h+g.y
		w, h := exp(b[2]*sizeVariance)*g.w/2, exp(b[3]*sizeVariance)*g.h/2
		d.add(i, class, score, x-w, y-h, x+w, y+h)
	}
}

func (d *Decoder) asCorners(outputs []*tensor.Tensor) error {
	d.read = d.readCorners
	return d.scored(outputs, -1)
}

func (d *Decoder) readCorners() {
	w, h := float32(d.cfg.Width), float32(d.cfg.Height)
	for i := range len(d.boxes) / 4 {
		class, score := top(d.scores[i*d.width+d.cfg.LabelOffset : (i+1)*d.width])
		if !(score >= d.cfg.Score) {
			continue
		}
		b := d.boxes[4*i : 4*i+4]
		d.add(i, class, score, b[0]*w, b[1]*h, b[2]*w, b[3]*h)
	}
}

func (d *Decoder) asBoxes(outputs []*tensor.Tensor) error {
	b, err := pick(outputs, tensor.Float32, 1, -1, 4)
	if err != nil {
		return err
	}
	s, err := pick(outputs, tensor.Float32, 1, b.Dim(1))
	if err != nil {
		return err
	}
	c, err := pick(outputs, tensor.Int64, 1, b.Dim(1))
	if err != nil {
		return err
	}
	d.boxes, d.scores, d.class, d.read = b.Float32(), s.Float32(), c.Int64(), d.readBoxes
	d.found = make([]candidate, 0, b.Dim(1))
	return nil
}

func (d *Decoder) readBoxes() {
	for i, score := range d.scores {
		if !(score >= d.cfg.Score) {
			continue
		}
		class := d.class[i] - int64(d.cfg.LabelOffset)
		if class < 0 || class >= int64(d.cfg.Classes) {
			continue
		}
		b := d.boxes[4*i : 4*i+4]
		d.add(i, int(class), score, b[0], b[1], b[2], b[3])
	}
}

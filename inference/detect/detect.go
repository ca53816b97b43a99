// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"fulmar/inference/tensor"
	"fulmar/schema"
)

// Family names the way a network writes its boxes.
type Family string

// The families known here.
const (
	// YOLOX: one output [1,N,5+classes] with x, y, w, h in units of its grid, an
	// objectness and a score for each class; N cells over all strides.
	YOLOX Family = "yolox"
	// UltraFace: scores [1,N,1+classes], background first, and offsets [1,N,4] from
	// prior boxes at strides 8, 16, 32 and 64.
	UltraFace Family = "ultraface"
	// Corners: scores as above and corners [1,N,4], 0 to 1 of the input.
	Corners Family = "corners"
	// Boxes: finished boxes: corners [1,N,4] in pixels of the input, scores [1,N] and
	// class numbers [1,N] as int64; nothing is left to suppress.
	Boxes Family = "boxes"
)

// MaxCandidates is how many boxes, the best ones, go into suppression: its cost
// rises with the square, and a picture with more is noise.
const MaxCandidates = 1000

// MaxClasses bounds the classes of a network.
const MaxClasses = 1024

// Config says what the network's outputs mean.
type Config struct {
	Family Family
	// Width and Height are the network's input, in pixels.
	Width, Height int
	// Strides are the cell sizes of the grids, in order (YOLOX).
	Strides []int
	// Classes is how many labels there are; LabelOffset is taken from a class number
	// of the network to get the label's. Classes outside are no detections.
	Classes     int
	LabelOffset int
	// Score is the least score of a detection, above 0; IoU the overlap at which the
	// weaker of two boxes of one class is dropped; Max the most boxes of a picture.
	Score float32
	IoU   float32
	Max   int
}

// Validate checks the numbers.
func (c *Config) Validate() error {
	switch {
	case c.Width < 1 || c.Height < 1 || c.Width > tensor.MaxSide || c.Height > tensor.MaxSide:
		return fmt.Errorf("input of %dx%d, wants 1 to %d each", c.Width, c.Height, tensor.MaxSide)
	case c.Classes < 1 || c.Classes > MaxClasses:
		return fmt.Errorf("%d classes, wants 1 to %d", c.Classes, MaxClasses)
	case c.LabelOffset < 0 || c.LabelOffset > MaxClasses:
		return fmt.Errorf("label offset %d, wants 0 to %d", c.LabelOffset, MaxClasses)
	case !(c.Score > 0 && c.Score <= 1):
		return fmt.Errorf("score threshold %v, wants above 0 and at most 1", c.Score)
	case !(c.IoU > 0 && c.IoU <= 1):
		return fmt.Errorf("suppression overlap %v, wants above 0 and at most 1", c.IoU)
	case c.Max < 1 || c.Max > schema.MaxDetections:
		return fmt.Errorf("at most %d detections, wants 1 to %d", c.Max, schema.MaxDetections)
	}
	return nil
}

// ErrOutputs says that the network's outputs are not those of the family.
var ErrOutputs = errors.New("outputs do not fit the head")

// candidate is a box in pixels of the input before suppression.
type candidate struct {
	x0, y0, x1, y1 float32
	score          float32
	class          uint16
	cell           int32 // its place in the output: the order of equal scores
}

// Decoder reads one network's outputs.
type Decoder struct {
	cfg    Config
	read   func()
	found  []candidate
	kept   []int32
	scores []float32
	boxes  []float32
	class  []int64
	width  int // values of one row of scores
	cells  []cell
}

// New matches the outputs with the family by their shapes.
func New(cfg Config, outputs []*tensor.Tensor) (*Decoder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("head %s: %w", cfg.Family, err)
	}
	d := &Decoder{cfg: cfg}
	var err error
	switch cfg.Family {
	case YOLOX:
		err = d.asYOLOX(outputs)
	case UltraFace:
		err = d.asPriors(outputs)
	case Corners:
		err = d.asCorners(outputs)
	case Boxes:
		err = d.asBoxes(outputs)
	default:
		return nil, fmt.Errorf("head %q is not known here; known are %s, %s, %s and %s", cfg.Family, YOLOX, UltraFace, Corners, Boxes)
	}
	if err != nil {
		return nil, fmt.Errorf("head %s: %w", cfg.Family, err)
	}
	d.kept = make([]int32, 0, cfg.Max)
	return d, nil
}

// Decode appends the detections in the outputs to dst, the best first, with corners
// in pixels of the picture that the mapping leads back to. What is no number, empty
// or outside the picture is left out, so outputs of any content are safe.
func (d *Decoder) Decode(m *tensor.Mapping, dst []schema.Box) []schema.Box {
	d.found = d.found[:0]
	d.read()
	slices.SortFunc(d.found, func(a, b candidate) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return int(a.cell - b.cell)
	})
	if len(d.found) > MaxCandidates {
		d.found = d.found[:MaxCandidates]
	}
	d.kept = d.kept[:0]
	for i := range d.found {
		if len(d.kept) == d.cfg.Max {
			break
		}
		c := &d.found[i]
		if d.cfg.Family != Boxes && d.hidden(c) {
			continue
		}
		box, ok := m.Box(c.x0, c.y0, c.x1, c.y1)
		if !ok {
			continue
		}
		d.kept = append(d.kept, int32(i))
		dst = append(dst, schema.Box{Class: c.class, Score: c.score, X0: box[0], Y0: box[1], X1: box[2], Y1: box[3]})
	}
	return dst
}

// hidden is true if a better box of the same class lies over this one.
func (d *Decoder) hidden(c *candidate) bool {
	for _, k := range d.kept {
		if o := &d.found[k]; o.class == c.class && overlap(o, c) > d.cfg.IoU {
			return true
		}
	}
	return false
}

// overlap is the intersection over union of two boxes.
func overlap(a, b *candidate) float32 {
	w := min(a.x1, b.x1) - max(a.x0, b.x0)
	h := min(a.y1, b.y1) - max(a.y0, b.y0)
	if w <= 0 || h <= 0 {
		return 0
	}
	both := w * h
	return both / ((a.x1-a.x0)*(a.y1-a.y0) + (b.x1-b.x0)*(b.y1-b.y0) - both)
}

// add takes a candidate if its numbers are finite; class is the label's number.
func (d *Decoder) add(cell int, class int, score, x0, y0, x1, y1 float32) {
	// Far outside any picture, and where areas would overflow.
	const far = 1 << 20
	if !(x0 > -far && y0 > -far && x1 < far && y1 < far && x1 > x0 && y1 > y0) {
		return
	}
	if class < 0 || class >= d.cfg.Classes {
		return
	}
	d.found = append(d.found, candidate{x0, y0, x1, y1, min(score, 1), uint16(class), int32(cell)})
}

// pick gives the one output of a type and shape; -1 fits any size. Two that fit
// cannot be told apart and are an error.
func pick(outputs []*tensor.Tensor, typ tensor.Type, shape ...int) (*tensor.Tensor, error) {
	var one *tensor.Tensor
	for _, t := range outputs {
		if !fits(t, typ, shape) {
			continue
		}
		if one != nil {
			return nil, fmt.Errorf("%w: %v and %v both have the shape %s", ErrOutputs, one, t, dims(shape))
		}
		one = t
	}
	if one == nil {
		return nil, fmt.Errorf("%w: none is %v %s; the network has %v", ErrOutputs, typ, dims(shape), outputs)
	}
	return one, nil
}

func fits(t *tensor.Tensor, typ tensor.Type, shape []int) bool {
	if t.Type() != typ || t.Dims() != len(shape) {
		return false
	}
	for i, n := range shape {
		if n >= 0 && t.Dim(i) != n {
			return false
		}
	}
	return true
}

// dims writes a wanted shape, open sizes as N.
func dims(shape []int) string {
	s := "["
	for i, n := range shape {
		if i > 0 {
			s += " "
		}
		if n < 0 {
			s += "N"
		} else {
			s += fmt.Sprint(n)
		}
	}
	return s + "]"
}

func exp(v float32) float32 { return float32(math.Exp(float64(v))) }

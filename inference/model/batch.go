// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"fmt"
	"image"
	"runtime/debug"

	"fulmar/inference/detect"
	"fulmar/inference/tensor"
	"fulmar/schema"
)

// Batcher is an Engine that computes several pictures in one run. The first dimension
// of each of its tensors is MaxBatch, which stays the same for its life.
type Batcher interface {
	MaxBatch() int
	// RunBatch computes the first n pictures, 1 to MaxBatch; what the outputs hold for
	// the others afterwards is not said. Run is RunBatch of them all.
	RunBatch(ctx context.Context, n int) error
}

// Prep fills one picture's part of a network's input and returns the way back;
// *tensor.Prep is one.
type Prep interface {
	Run(img image.Image) (tensor.Mapping, error)
}

// Preparer is an Engine that can fill its input on its device.
type Preparer interface {
	// NewPrep makes a Prep for picture index of the batch, from 0. An error for the
	// first means that it cannot for this spec: all are prepared on the CPU then. One
	// for a later picture refuses the model, for the device has taken over the input.
	NewPrep(spec tensor.Spec, index int) (Prep, error)
}

// place is where one picture of a batch goes in and its boxes come out.
type place struct {
	prep    Prep
	decoder *detect.Decoder
	back    tensor.Mapping
	of      int // which of the pictures asked for is here
}

// furnish gives each place its parts of the input and the outputs.
func (d *Detector) furnish(spec tensor.Spec, head detect.Config, in *tensor.Tensor) error {
	preparer, _ := d.engine.(Preparer)
	for i := range d.places {
		p := &d.places[i]
		outputs, err := d.outputs(i)
		if err != nil {
			return err
		}
		if p.decoder, err = detect.New(head, outputs); err != nil {
			return fmt.Errorf("%w: %w", ErrNetwork, err)
		}
		if preparer != nil {
			p.prep, err = preparer.NewPrep(spec, i)
			if err == nil {
				continue
			}
			if i > 0 {
				// What the device fills it does not take from the host any more.
				return fmt.Errorf("place %d of %d: %w", i, len(d.places), err)
			}
			preparer = nil
		}
		if p.prep, err = tensor.NewPrep(spec, in.Part(i).Float32()); err != nil {
			return err
		}
	}
	return nil
}

// outputs are the parts of the outputs that belong to place i.
func (d *Detector) outputs(i int) ([]*tensor.Tensor, error) {
	all := d.engine.Outputs()
	n := len(d.places)
	if n == 1 {
		return all, nil
	}
	parts := make([]*tensor.Tensor, len(all))
	for j, t := range all {
		if t.Dim(0) != n {
			return nil, fmt.Errorf("%w: its output %v is not for the %d pictures of its input", ErrNetwork, t, n)
		}
		parts[j] = t.Part(i)
	}
	return parts, nil
}

// MaxBatch is how many pictures go through the network at once.
func (d *Detector) MaxBatch() int { return len(d.places) }

// DetectBatch does for several pictures what Detect does for one, up to MaxBatch of
// them in one run: dst[i] grows by what is in imgs[i], and errs[i] says why that
// picture could not be looked at (nil: it was). A picture that is refused, or whose
// own code panics, does not spoil the others. The three slices have one length.
// Nothing is allocated for frames of type *image.RGBA if dst has room.
func (d *Detector) DetectBatch(ctx context.Context, imgs []image.Image, dst [][]schema.Box, errs []error) {
	for len(imgs) > 0 {
		n := min(len(imgs), len(d.places))
		d.through(ctx, imgs[:n], dst[:n], errs[:n])
		imgs, dst, errs = imgs[n:], dst[n:], errs[n:]
	}
}

// through takes at most MaxBatch pictures through the network.
func (d *Detector) through(ctx context.Context, imgs []image.Image, dst [][]schema.Box, errs []error) {
	n := 0 // good ones; they lie side by side
	for i, img := range imgs {
		p := &d.places[n]
		if errs[i] = p.fill(img); errs[i] == nil {
			p.of = i
			n++
		}
	}
	if n == 0 {
		return
	}
	err := d.run(ctx, n)
	for k := range d.places[:n] {
		p := &d.places[k]
		if errs[p.of] = err; err == nil {
			dst[p.of] = p.decoder.Decode(&p.back, dst[p.of])
		}
	}
}

// fill prepares a picture; a panic of the picture's code is its error.
func (p *place) fill(img image.Image) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: panic: %v at %.400s", tensor.ErrImage, v, debug.Stack())
		}
	}()
	p.back, err = p.prep.Run(img)
	return err
}

// run computes the first n places.
func (d *Detector) run(ctx context.Context, n int) error {
	if d.batcher != nil {
		return d.batcher.RunBatch(ctx, n)
	}
	return d.engine.Run(ctx)
}

// everywhere looks at one picture from each place of the batch, all in one run, and
// gives what was seen from each: a place that is computed wrongly is found out before
// a camera's frame lies there.
func (d *Detector) everywhere(ctx context.Context, img image.Image) ([][]schema.Box, error) {
	n := len(d.places)
	imgs, got, errs := make([]image.Image, n), make([][]schema.Box, n), make([]error, n)
	for i := range imgs {
		imgs[i] = img
	}
	d.DetectBatch(ctx, imgs, got, errs)
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

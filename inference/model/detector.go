// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"slices"

	"fulmar/inference/tensor"
	"fulmar/schema"
)

// Engine runs one loaded network. Its tensors stay the same for its life, with fixed
// shapes: inputs are written, Run computes, outputs are read. It belongs to one
// goroutine at a time; package enginetest is what each engine has to pass. An engine
// may also be a [Batcher] and a [Preparer].
type Engine interface {
	Inputs() []*tensor.Tensor
	Outputs() []*tensor.Tensor
	Run(ctx context.Context) error
	Close() error
}

// Config says what runs a model.
type Config struct {
	// Variant of the package; "" is its first.
	Variant string
	// Engine names what Open makes, "onnxruntime-cpu".
	Engine string
	// Open loads a network from the bytes of its ONNX file.
	Open func(network []byte) (Engine, error)
}

// Info tells what a detector is.
type Info struct {
	Name, Version string
	// Engine is the engine and the precision, "onnxruntime-cpu/int8".
	Engine  string
	Variant string
	// SHA256 is that of the ONNX file, in hexadecimal.
	SHA256 string
	// Width and Height are the network's input, in pixels.
	Width, Height int
	// Golden is how many golden pictures were passed at load.
	Golden int
	// Card is the model card's text, Markdown; "" if the package has none.
	Card string
}

// Detector finds things in pictures.
type Detector struct {
	info    Info
	labels  []string
	engine  Engine
	batcher Batcher // nil: the engine looks at one picture at a time
	places  []place // of the pictures that go through at once
}

// Load reads one network of the package, makes a detector of it, and refuses it if
// it does not find in the golden pictures what it should.
func (p *Package) Load(ctx context.Context, cfg Config) (*Detector, error) {
	m := &p.Manifest
	v, err := m.variant(cfg.Variant)
	if err != nil {
		return nil, err
	}
	network, err := read(p.files, v.File, maxNetwork)
	if err != nil {
		return nil, fmt.Errorf("%w: variant %s: %w", ErrPackage, v.Name, err)
	}
	sum := sha256.Sum256(network)
	if !same(sum[:], v.SHA256) {
		return nil, fmt.Errorf("%w: %s has SHA-256 %x, model.yaml says %s; the file is not the one the package was made with", ErrPackage, v.File, sum, v.SHA256)
	}
	engine, err := cfg.Open(network)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.File, err)
	}
	d := &Detector{engine: engine, labels: m.Labels}
	d.info = Info{
		Name: m.Name, Version: m.Version, Variant: v.Name, SHA256: hex.EncodeToString(sum[:]),
		Engine: cfg.Engine + "/" + v.Precision,
	}
	if err := d.join(p); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", v.File, err), engine.Close())
	}
	if err := d.check(ctx, p); err != nil {
		return nil, errors.Join(fmt.Errorf("%s with %s: %w", v.File, d.info.Engine, err), engine.Close())
	}
	return d, nil
}

// join puts preprocessing, network and head together.
func (d *Detector) join(p *Package) error {
	m := &p.Manifest
	spec, err := m.prep()
	if err != nil {
		return err
	}
	d.info.Width, d.info.Height = spec.Width, spec.Height
	if m.Card != "" {
		card, err := read(p.files, m.Card, maxCard)
		if err != nil {
			return fmt.Errorf("%w: card: %w", ErrPackage, err)
		}
		d.info.Card = string(card)
	}
	in, err := d.input(m)
	if err != nil {
		return err
	}
	return d.furnish(spec, m.head(), in)
}

// input finds the pictures' tensor by its shape: the manifest's, for as many as go
// through at once. A second input may ask for the size that boxes are to be scaled
// to: it gets that of the input, for good, so that they come in its pixels as other
// heads' do.
func (d *Detector) input(m *Manifest) (*tensor.Tensor, error) {
	n := 1
	if b, ok := d.engine.(Batcher); ok && b.MaxBatch() > 1 {
		d.batcher, n = b, b.MaxBatch()
	}
	d.places = make([]place, n)
	shape := slices.Clone(m.Input.Shape)
	shape[0] = n
	var in *tensor.Tensor
	all := d.engine.Inputs()
	for _, t := range all {
		switch {
		case in == nil && t.Type() == tensor.Float32 && slices.Equal(t.Shape(), shape):
			in = t
		case t.Type() == tensor.Int64 && slices.Equal(t.Shape(), []int{n, 2}):
			for v := t.Int64(); len(v) > 0; v = v[2:] {
				v[0], v[1] = int64(d.info.Width), int64(d.info.Height)
			}
		default:
			return nil, fmt.Errorf("%w: it wants the input %v; model.yaml has %s float32 %v, here for %d at once", ErrNetwork, t, m.Input.Name, m.Input.Shape, n)
		}
	}
	if in == nil {
		return nil, fmt.Errorf("%w: none of its inputs %v is float32 %v, for %d at once", ErrNetwork, all, m.Input.Shape, n)
	}
	return in, nil
}

// Detect appends what is in the picture to dst, the best first, and returns the
// longer slice; on an error it is dst as it was. Nothing is allocated for a frame of
// type *image.RGBA if dst has room.
func (d *Detector) Detect(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
	p := &d.places[0]
	var err error
	if p.back, err = p.prep.Run(img); err != nil {
		return dst, err
	}
	if err := d.run(ctx, 1); err != nil {
		return dst, err
	}
	return p.decoder.Decode(&p.back, dst), nil
}

// Labels are the names of the classes, by the number in a box. Not to be changed.
func (d *Detector) Labels() []string { return d.labels }

// Info tells what the detector is.
func (d *Detector) Info() Info { return d.info }

// Close frees the network.
func (d *Detector) Close() error { return d.engine.Close() }

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"fulmar/inference/detect"
)

// Limits of the labelled pictures. Each costs one run before an engine is used.
const (
	maxGated     = 64      // pictures
	maxGatedSize = 2 << 20 // bytes of one picture
	maxDrop      = 0.5     // a gate that lets more through is none
	gateScore    = 0.01    // from which score on boxes count, as evaluations have it
)

// ErrGate says that an engine finds less in the labelled pictures than the card
// promises.
var ErrGate = errors.New("accuracy gate not passed")

// Gate is the section of model.yaml with the labelled pictures that an engine is
// judged by on the board before it is used.
type Gate struct {
	// Pictures is the folder of NAME.jpg with the truth in NAME.json, in the form of
	// expected boxes; the scores there do not count.
	Pictures string `yaml:"pictures"`
	// Metric is map50: mean average precision at overlap 0.50, boxes from score 0.01 on.
	Metric string `yaml:"metric"`
	// Card is what was measured on these pictures with ONNX Runtime, by precision.
	Card CardFigures `yaml:"card"`
	// MaxDrop is how far below that an engine may be.
	MaxDrop float64 `yaml:"max_drop"`
}

// CardFigures are the accuracies that the model's maker measured.
type CardFigures struct {
	FP32 float64 `yaml:"fp32"`
	INT8 float64 `yaml:"int8"`
}

// GateResult is what was measured on the labelled pictures.
type GateResult struct {
	// Pictures is how many there are; 0 if the package has no gate.
	Pictures int
	// Measured is the engine's accuracy, Card that of the model's maker for the variant's
	// precision, Least what the engine had to have.
	Measured, Card, Least float64
	Passed                bool
}

// Gate runs the labelled pictures of the package that the detector was loaded from,
// and gives an error that wraps ErrGate if it finds too little in them. The result is
// filled in then too. A package without a gate passes with 0 pictures.
//
// The golden check asks whether the model runs as it should at all, box by box; that
// an engine's numbers are a little off is judged here, where it counts.
func (d *Detector) Gate(ctx context.Context, p *Package) (GateResult, error) {
	g := &p.Manifest.Gate
	if *g == (Gate{}) {
		return GateResult{Passed: true}, nil
	}
	v, err := p.Manifest.variant(d.info.Variant)
	if err != nil {
		return GateResult{}, err
	}
	names, err := p.labelled()
	if err != nil {
		return GateResult{}, fmt.Errorf("%w: gate: %w", ErrPackage, err)
	}
	pairs, err := d.pairs(ctx, p, names)
	if err != nil {
		return GateResult{}, err
	}
	a := detect.Evaluate(pairs)
	if a.Classes == 0 {
		return GateResult{}, fmt.Errorf("%w: gate: nothing is labelled in the pictures of %s", ErrPackage, g.Pictures)
	}
	r := GateResult{Pictures: len(names), Measured: a.MAP50, Card: g.Card.of(v.Precision)}
	r.Least = r.Card - g.MaxDrop
	r.Passed = r.Measured >= r.Least
	if !r.Passed {
		return r, fmt.Errorf("%w: %s@%s with %s has mAP50 %.4f on its %d labelled pictures, wants at least %.4f (the card says %.4f); do not use it: keep what runs now, and try the other variant or ONNX Runtime",
			ErrGate, d.info.Name, d.info.Version, d.info.Engine, r.Measured, r.Pictures, r.Least, r.Card)
	}
	return r, nil
}

func (c *CardFigures) of(precision string) float64 {
	if precision == "int8" {
		return c.INT8
	}
	return c.FP32
}

// pairs is what the detector finds in the pictures, with the truth.
func (d *Detector) pairs(ctx context.Context, p *Package, names []string) ([]detect.Pair, error) {
	head := p.Manifest.head()
	head.Score, head.Max = gateScore, detect.MaxScored
	outputs, err := d.outputs(0)
	if err != nil {
		return nil, err
	}
	low, err := detect.New(head, outputs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNetwork, err)
	}
	first := &d.places[0] // where Detect looks
	usual := first.decoder
	first.decoder = low
	defer func() { first.decoder = usual }()
	var pairs []detect.Pair
	for _, name := range names {
		img, err := picture(p, name+".jpg", maxGatedSize)
		if err != nil {
			return nil, fmt.Errorf("%w: gate picture %s.jpg: %w", ErrPackage, name, err)
		}
		truth, err := boxes(p, name+".json")
		if err != nil {
			return nil, fmt.Errorf("%w: gate boxes %s.json: %w", ErrPackage, name, err)
		}
		found, err := d.Detect(ctx, img, nil)
		if err != nil {
			return nil, fmt.Errorf("gate picture %s.jpg: %w", name, err)
		}
		pairs = append(pairs, detect.Pair{Found: found, Truth: truth})
	}
	return pairs, nil
}

// labelled lists the pictures, without their endings, in order.
func (p *Package) labelled() ([]string, error) {
	dir := p.Manifest.Gate.folder()
	f, err := p.files.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	folder, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, fmt.Errorf("%s is no folder", dir)
	}
	entries, err := folder.ReadDir(2*maxGated + 1)
	if err != nil {
		return nil, fmt.Errorf("%s holds no labelled picture: %w", dir, err)
	}
	if len(entries) > 2*maxGated {
		return nil, fmt.Errorf("%s holds over %d labelled pictures", dir, maxGated)
	}
	halves := map[string]int{}
	for _, e := range entries {
		picture, isPicture := strings.CutSuffix(e.Name(), ".jpg")
		truth, isTruth := strings.CutSuffix(e.Name(), ".json")
		switch {
		case isPicture:
			halves[picture]++
		case isTruth:
			halves[truth]++
		default:
			return nil, fmt.Errorf("%s holds %s; wants NAME.jpg and NAME.json only", dir, e.Name())
		}
	}
	var names []string
	for name, n := range halves {
		if n != 2 {
			return nil, fmt.Errorf("%s holds %s as a picture or as a truth, not both", dir, name)
		}
		names = append(names, dir+"/"+name)
	}
	slices.Sort(names)
	return names, nil
}

func (g *Gate) folder() string { return strings.TrimSuffix(g.Pictures, "/") }

func (g *Gate) validate(variants []Variant) error {
	if *g == (Gate{}) {
		return nil
	}
	if !fs.ValidPath(g.folder()) || g.folder() == "." {
		return fmt.Errorf("gate: pictures %q is no folder inside the package", g.Pictures)
	}
	if g.Metric != "map50" {
		return fmt.Errorf("gate: metric is %q; map50 is the one known here", g.Metric)
	}
	if !(g.MaxDrop >= 0 && g.MaxDrop <= maxDrop) {
		return fmt.Errorf("gate: max_drop is %v, wants 0 to %v", g.MaxDrop, maxDrop)
	}
	for _, v := range variants {
		if c := g.Card.of(v.Precision); !(c > g.MaxDrop && c <= 1) {
			return fmt.Errorf("gate: the card's figure for %s is %v; it wants to be over max_drop and at most 1", v.Precision, c)
		}
	}
	for _, c := range []float64{g.Card.FP32, g.Card.INT8} {
		if !(c >= 0 && c <= 1) {
			return fmt.Errorf("gate: a figure of the card is %v, wants 0 to 1", c)
		}
	}
	return nil
}

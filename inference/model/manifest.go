// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"fulmar/inference/detect"
	"fulmar/inference/tensor"
	"fulmar/schema"
)

// Limits of what is read from a package before anything is allocated for it.
const (
	maxManifest = 64 << 10  // bytes of model.yaml; a thousand labels fit
	maxNetwork  = 256 << 20 // bytes of an ONNX file; detectors for these boards have under 100 MB
	maxGolden   = 16        // pictures; each costs one run at load
	maxImage    = 16 << 20  // bytes of one golden picture
	maxPixels   = 32 << 20  // pixels of one golden picture, 128 MiB as RGBA
	maxExpected = 64 << 10  // bytes of one file of expected boxes
	maxCard     = 64 << 10  // bytes of the card
	maxVariants = 8
)

// Errors that callers tell apart; each is wrapped with what is wrong.
var (
	// ErrPackage says that the package's files are missing, malformed or changed.
	ErrPackage = errors.New("model package refused")
	// ErrNetwork says that the network is not what model.yaml says it is.
	ErrNetwork = errors.New("network does not fit model.yaml")
	// ErrGolden says that the model does not find what it should in its pictures.
	ErrGolden = errors.New("golden check not passed")
)

// Manifest is model.yaml.
type Manifest struct {
	Name        string     `yaml:"name"`
	Version     string     `yaml:"version"`
	Task        string     `yaml:"task"`
	Input       Input      `yaml:"input"`
	Head        Head       `yaml:"head"`
	Labels      []string   `yaml:"labels"`
	LabelOffset int        `yaml:"label_offset"`
	Thresholds  Thresholds `yaml:"thresholds"`
	Variants    []Variant  `yaml:"variants"`
	Golden      []Golden   `yaml:"golden"`
	Gate        Gate       `yaml:"gate"`
	Card        string     `yaml:"card"`
}

// Input pins the way from a picture to the network.
type Input struct {
	Name   string    `yaml:"name"`
	Shape  []int     `yaml:"shape"`
	Layout string    `yaml:"layout"`
	Dtype  string    `yaml:"dtype"`
	Color  string    `yaml:"color"`
	Scale  float32   `yaml:"scale"`
	Mean   []float32 `yaml:"mean"`
	Std    []float32 `yaml:"std"`
	Resize Resize    `yaml:"resize"`
}

// Resize pins how a picture is fitted to the input.
type Resize struct {
	Mode   string  `yaml:"mode"`
	Filter string  `yaml:"filter"`
	Anchor string  `yaml:"anchor"`
	Pad    float32 `yaml:"pad"`
}

// Head names the way the network writes its boxes.
type Head struct {
	Family  string `yaml:"family"`
	Strides []int  `yaml:"strides"`
}

// Thresholds say what is a detection.
type Thresholds struct {
	Score         float32 `yaml:"score"`
	NMSIoU        float32 `yaml:"nms_iou"`
	MaxDetections int     `yaml:"max_detections"`
}

// Variant is one file of the network.
type Variant struct {
	Name      string `yaml:"name"`
	File      string `yaml:"file"`
	SHA256    string `yaml:"sha256"`
	Precision string `yaml:"precision"`
}

// Golden is a picture of the package and the file of the boxes expected in it.
type Golden struct {
	Image    string `yaml:"image"`
	Expected string `yaml:"expected"`
}

// Package is a model package whose manifest was read and found sound.
type Package struct {
	Manifest Manifest
	files    fs.FS
}

// Open reads and checks model.yaml in files; the networks are not read yet.
func Open(files fs.FS) (*Package, error) {
	b, err := read(files, "model.yaml", maxManifest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	p := &Package{files: files}
	if err := parse(b, &p.Manifest); err != nil {
		return nil, fmt.Errorf("%w: model.yaml: %w", ErrPackage, err)
	}
	if err := p.Manifest.validate(); err != nil {
		return nil, fmt.Errorf("%w: model.yaml: %w", ErrPackage, err)
	}
	return p, nil
}

// read reads a whole file of at most limit bytes.
func read(files fs.FS, name string, limit int) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s is over %d bytes", name, limit)
	}
	return b, nil
}

func (m *Manifest) validate() error {
	if err := m.validateNames(); err != nil {
		return err
	}
	if _, err := m.prep(); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	head := m.head()
	if err := head.Validate(); err != nil {
		return err
	}
	if err := m.validateFiles(); err != nil {
		return err
	}
	return m.Gate.validate(m.Variants)
}

func (m *Manifest) validateNames() error {
	for _, v := range []struct{ key, value string }{{"name", m.Name}, {"version", m.Version}, {"input.name", m.Input.Name}, {"head.family", m.Head.Family}} {
		if v.value == "" || len(v.value) > schema.MaxName {
			return fmt.Errorf("%s has %d bytes, wants 1 to %d", v.key, len(v.value), schema.MaxName)
		}
	}
	// An event names the model as name@version in one field.
	if len(m.Name)+1+len(m.Version) > schema.MaxName {
		return fmt.Errorf("name and version together have over %d bytes", schema.MaxName-1)
	}
	if m.Task != "detect" {
		return fmt.Errorf("task is %q; detect is the one known here", m.Task)
	}
	if len(m.Labels) == 0 || len(m.Labels) > detect.MaxClasses {
		return fmt.Errorf("%d labels, wants 1 to %d", len(m.Labels), detect.MaxClasses)
	}
	seen := map[string]bool{}
	for i, l := range m.Labels {
		if l == "" || len(l) > schema.MaxName || seen[l] {
			return fmt.Errorf("label %d (%q) is empty, twice there, or over %d bytes", i, l, schema.MaxName)
		}
		seen[l] = true
	}
	return nil
}

func (m *Manifest) validateFiles() error {
	if len(m.Variants) == 0 || len(m.Variants) > maxVariants {
		return fmt.Errorf("%d variants, wants 1 to %d", len(m.Variants), maxVariants)
	}
	seen := map[string]bool{}
	for _, v := range m.Variants {
		if v.Name == "" || len(v.Name) > schema.MaxName || seen[v.Name] {
			return fmt.Errorf("variant %q: its name is empty, twice there, or over %d bytes", v.Name, schema.MaxName)
		}
		seen[v.Name] = true
		if sum, err := hex.DecodeString(v.SHA256); err != nil || len(sum) != 32 {
			return fmt.Errorf("variant %s: sha256 is not 64 hexadecimal digits", v.Name)
		}
		if !slices.Contains([]string{"fp32", "int8"}, v.Precision) {
			return fmt.Errorf("variant %s: precision is %q; fp32 and int8 are known", v.Name, v.Precision)
		}
		if !fs.ValidPath(v.File) {
			return fmt.Errorf("variant %s: file %q is no path inside the package", v.Name, v.File)
		}
	}
	if len(m.Golden) > maxGolden {
		return fmt.Errorf("%d golden pictures, at most %d", len(m.Golden), maxGolden)
	}
	for _, g := range m.Golden {
		if !fs.ValidPath(g.Image) || !fs.ValidPath(g.Expected) {
			return fmt.Errorf("golden %q and %q want to be paths inside the package", g.Image, g.Expected)
		}
	}
	if m.Card != "" && !fs.ValidPath(m.Card) {
		return fmt.Errorf("card %q is no path inside the package", m.Card)
	}
	return nil
}

// prep is the manifest's input in the terms of package tensor.
func (m *Manifest) prep() (tensor.Spec, error) {
	in := &m.Input
	s := tensor.Spec{Scale: in.Scale, Pad: in.Resize.Pad}
	for _, err := range []error{
		choose("layout", in.Layout, &s.Layout, map[string]tensor.Layout{"nchw": tensor.NCHW, "nhwc": tensor.NHWC}),
		choose("color", in.Color, &s.Order, map[string]tensor.Order{"rgb": tensor.RGB, "bgr": tensor.BGR}),
		choose("resize.mode", in.Resize.Mode, &s.Mode, map[string]tensor.Mode{"letterbox": tensor.Letterbox, "stretch": tensor.Stretch}),
		choose("resize.filter", in.Resize.Filter, new(bool), map[string]bool{"bilinear": true}),
		choose("dtype", in.Dtype, new(tensor.Type), map[string]tensor.Type{"float32": tensor.Float32}),
	} {
		if err != nil {
			return s, err
		}
	}
	if s.Mode == tensor.Letterbox {
		if err := choose("resize.anchor", in.Resize.Anchor, &s.Anchor, map[string]tensor.Anchor{"top-left": tensor.TopLeft, "center": tensor.Centre}); err != nil {
			return s, err
		}
	}
	channels := 1
	if s.Layout == tensor.NHWC {
		channels = 3
	}
	if len(in.Shape) != 4 || in.Shape[0] != 1 || in.Shape[channels] != 3 {
		return s, fmt.Errorf("shape %v, wants one picture of 3 colours in the layout %s", in.Shape, in.Layout)
	}
	s.Height, s.Width = in.Shape[2], in.Shape[3]
	if s.Layout == tensor.NHWC {
		s.Height, s.Width = in.Shape[1], in.Shape[2]
	}
	if len(in.Mean) != 3 || len(in.Std) != 3 {
		return s, fmt.Errorf("mean has %d numbers and std %d, wants 3 of each", len(in.Mean), len(in.Std))
	}
	copy(s.Mean[:], in.Mean)
	copy(s.Std[:], in.Std)
	return s, s.Validate()
}

func choose[T any](key, value string, to *T, known map[string]T) error {
	v, ok := known[value]
	if !ok {
		names := make([]string, 0, len(known))
		for n := range known {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Errorf("%s is %q; known are %v", key, value, names)
	}
	*to = v
	return nil
}

// head is the manifest's head in the terms of package detect.
func (m *Manifest) head() detect.Config {
	s, _ := m.prep() // checked when the manifest was read
	return detect.Config{
		Family: detect.Family(m.Head.Family), Width: s.Width, Height: s.Height, Strides: m.Head.Strides,
		Classes: len(m.Labels), LabelOffset: m.LabelOffset,
		Score: m.Thresholds.Score, IoU: m.Thresholds.NMSIoU, Max: m.Thresholds.MaxDetections,
	}
}

// variant is the one of a name, or the first for "".
func (m *Manifest) variant(name string) (*Variant, error) {
	var names []string
	for i := range m.Variants {
		if v := &m.Variants[i]; name == "" || v.Name == name {
			return v, nil
		}
		names = append(names, m.Variants[i].Name)
	}
	return nil, fmt.Errorf("%w: it has no variant %q; it has %v", ErrPackage, name, names)
}

func same(a []byte, b string) bool {
	sum, err := hex.DecodeString(b)
	return err == nil && bytes.Equal(a, sum)
}

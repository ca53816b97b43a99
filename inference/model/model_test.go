// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/png"
	"strings"
	"testing"
	"testing/fstest"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/ort"
	"fulmar/inference/tensor"
)

const manifest = `name: box
version: "3"
task: detect
input:
  name: x
  shape: [1, 3, 32, 32]
  layout: nchw
  dtype: float32
  color: rgb
  scale: 1
  mean: [0, 0, 0]
  std: [1, 1, 1]
  resize: {mode: letterbox, filter: bilinear, anchor: top-left, pad: 114}
head: {family: yolox, strides: [8, 16, 32]}
labels: [parcel]
label_offset: 0
thresholds: {score: 0.3, nms_iou: 0.45, max_detections: 100}
variants:
  - {name: fp32, file: box.onnx, precision: fp32, sha256: SUM}
golden:
  - {image: golden/0.png, expected: golden/0.json}
card: CARD.md
`

// sees is a network that sees one box in any picture: 8 to 24 across and down of the
// input, with score 0.81.
func sees() []byte {
	const cells = 16 + 4 + 1
	v := make([]float32, cells*6)
	row := v[20*6:] // the one cell of stride 32
	// Centre 0.5*32, size exp(-0.693147)*32.
	copy(row, []float32{0.5, 0.5, -0.693147, -0.693147, 0.9, 0.9})
	return enginetest.Constant(enginetest.Dims{1, 3, 32, 32}, enginetest.Dims{1, cells, 6}, v)
}

// pack is a whole package around a network.
func pack(network []byte) fstest.MapFS {
	var img bytes.Buffer
	if err := png.Encode(&img, image.NewRGBA(image.Rect(0, 0, 64, 64))); err != nil {
		panic(err)
	}
	return fstest.MapFS{
		"model.yaml":    {Data: []byte(strings.Replace(manifest, "SUM", fmt.Sprintf("%x", sha256.Sum256(network)), 1))},
		"box.onnx":      {Data: network},
		"golden/0.png":  {Data: img.Bytes()},
		"golden/0.json": {Data: []byte(`{"boxes": [{"class": 0, "score": 0.8, "box": [16, 16, 48, 48]}]}`)},
		"CARD.md":       {Data: []byte("# box\n")},
	}
}

func edit(f fstest.MapFS, name, from, to string) {
	s := string(f[name].Data)
	if !strings.Contains(s, from) {
		panic(name + " has no " + from)
	}
	f[name] = &fstest.MapFile{Data: []byte(strings.Replace(s, from, to, 1))}
}

func TestLoad(t *testing.T) {
	d := load(t, pack(sees()), nil)
	i := d.Info()
	if i.Name != "box" || i.Version != "3" || i.Engine != "onnxruntime-cpu/fp32" || i.Width != 32 || i.Height != 32 || i.Golden != 1 || i.Card != "# box\n" || len(i.SHA256) != 64 || i.Variant != "fp32" {
		t.Errorf("info is %+v", i)
	}
	if l := d.Labels(); len(l) != 1 || l[0] != "parcel" {
		t.Errorf("labels are %v", l)
	}
	// 96x48 lies in 32x16: a box of the input's lower half is cut.
	got, err := d.Detect(t.Context(), image.NewRGBA(image.Rect(10, 10, 106, 58)), nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v: want one box", got, err)
	}
	if b := got[0]; b.X0 < 23.9 || b.X0 > 24.1 || b.Y1 != 48 || b.Score < 0.8 || b.Score > 0.82 {
		t.Errorf("box is %+v, want 24 24 72 48 with 0.81", b)
	}
	dst := got[:1:1]
	if back, err := d.Detect(t.Context(), nil, dst); !errors.Is(err, tensor.ErrImage) || len(back) != 1 {
		t.Errorf("no picture: %v, %v; want the slice as it was and %v", back, err, tensor.ErrImage)
	}
}

// TestRefused has one thing wrong in each package.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   error
		says   string
	}{
		"no manifest":       {func(f fstest.MapFS) { delete(f, "model.yaml") }, model.ErrPackage, "model.yaml"},
		"no network":        {func(f fstest.MapFS) { delete(f, "box.onnx") }, model.ErrPackage, "box.onnx"},
		"no card":           {func(f fstest.MapFS) { delete(f, "CARD.md") }, model.ErrPackage, "CARD.md"},
		"changed network":   {func(f fstest.MapFS) { f["box.onnx"].Data[9]++ }, model.ErrPackage, "SHA-256"},
		"corrupt network":   {func(f fstest.MapFS) { replace(f, []byte("no network")) }, ort.ErrModel, "box.onnx"},
		"empty network":     {func(f fstest.MapFS) { replace(f, nil) }, ort.ErrModel, "empty"},
		"other input":       {func(f fstest.MapFS) { edit(f, "model.yaml", "32, 32]", "64, 32]") }, model.ErrNetwork, "[1 3 64 32]"},
		"other classes":     {func(f fstest.MapFS) { edit(f, "model.yaml", "[parcel]", "[parcel, letter]") }, model.ErrNetwork, "[1 21 7]"},
		"no golden picture": {func(f fstest.MapFS) { delete(f, "golden/0.png") }, model.ErrPackage, "golden/0.png"},
		"unreadable golden": {func(f fstest.MapFS) { f["golden/0.png"].Data = []byte("no picture") }, tensor.ErrImage, "no PNG or JPEG"},
		"cut golden":        {func(f fstest.MapFS) { f["golden/0.png"].Data = f["golden/0.png"].Data[:60] }, tensor.ErrImage, "golden/0.png"},
		"bad expectation":   {func(f fstest.MapFS) { edit(f, "golden/0.json", "score", "scor") }, model.ErrPackage, "scor"},
		"box not found":     {func(f fstest.MapFS) { edit(f, "golden/0.json", "[16", "[40") }, model.ErrGolden, "is not there"},
		"box too many":      {func(f fstest.MapFS) { f["golden/0.json"].Data = []byte(`{"boxes": []}`) }, model.ErrGolden, "too many"},
		"other score":       {func(f fstest.MapFS) { edit(f, "golden/0.json", "0.8,", "0.5,") }, model.ErrGolden, "score"},
		"other class":       {func(f fstest.MapFS) { edit(f, "golden/0.json", `"class": 0`, `"class": 1`) }, model.ErrPackage, "no label"},
	} {
		t.Run(name, func(t *testing.T) {
			f := pack(sees())
			c.change(f)
			p, err := model.Open(f)
			if err == nil {
				var d *model.Detector
				if d, err = p.Load(t.Context(), config(t)); err == nil {
					d.Close()
				}
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if s := err.Error(); !strings.Contains(s, c.says) || strings.Contains(s, "\n") {
				t.Errorf("it says %q, want one line with %q", s, c.says)
			}
		})
	}
	p, err := model.Open(pack(sees()))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t)
	cfg.Variant = "int8"
	if _, err := p.Load(t.Context(), cfg); !errors.Is(err, model.ErrPackage) || !strings.Contains(err.Error(), "[fp32]") {
		t.Errorf("a variant that is not there: %v", err)
	}
}

// replace puts in another network and its right sum.
func replace(f fstest.MapFS, network []byte) {
	edit(f, "model.yaml", fmt.Sprintf("%x", sha256.Sum256(f["box.onnx"].Data)), fmt.Sprintf("%x", sha256.Sum256(network)))
	f["box.onnx"] = &fstest.MapFile{Data: network}
}

// TestManifest has one line of model.yaml changed in each case.
func TestManifest(t *testing.T) {
	for _, c := range []struct{ from, to, says string }{
		{"layout: nchw", "layuot: nchw", "line 7: input.layuot is no key known here; the nearest is input.layout"},
		{"nms_iou: 0.45", "nms: 0.45", "line 17: thresholds.nms is no key known here; the nearest is thresholds.nms_iou"},
		{"card:", "crd:", "line 22: crd is no key known here; the nearest is card"},
		{"precision: fp32", "precison: fp32", "line 19: variants.precison is no key known here; the nearest is variants.precision"},
		{"task: detect", "task: segment", "task is"},
		{"task: detect", "task: detect\ntask: detect", "line 4"},
		{"scale: 1", "scale: one", "line 10"},
		{"scale: 1", "scale: 0", "scale"},
		{"scale: 1", "", "scale"},
		{"scale: 1", "scale: [1]", "line 10: input.scale is a list"},
		{"scale: 1", "scale: .nan", "scale"},
		{"labels: [parcel]", "labels: {parcel: 1}", "line 15: labels has a key"},
		{"labels: [parcel]", "labels: []", "0 labels"},
		{"labels: [parcel]", "labels: [parcel, parcel]", "twice"},
		{"labels: [parcel]", "labels: &l [parcel]", "line 15: anchors"},
		{"labels: [parcel]", "labels: " + strings.Repeat("[", 5000), "line 15: nested"},
		{"color: rgb", "color: RGB", "known are [bgr rgb]"},
		{"filter: bilinear", "filter: cubic", "known are [bilinear]"},
		{"anchor: top-left", "anchor: left", "known are [center top-left]"},
		{"mean: [0, 0, 0]", "mean: [0]", "mean has 1"},
		{"std: [1, 1, 1]", "std: [1, 0, 1]", "std"},
		{"pad: 114", "pad: 300", "pad"},
		{"[1, 3, 32, 32]", "[1, 32, 32, 3]", "layout nchw"},
		{"[1, 3, 32, 32]", "[2, 3, 32, 32]", "one picture"},
		{"score: 0.3", "score: 0", "score threshold"},
		{"max_detections: 100", "max_detections: 1000", "at most"},
		{"file: box.onnx", "file: ../box.onnx", "no path inside"},
		{"image: golden/0.png", "image: /etc/passwd", "paths inside"},
		{"precision: fp32", "precision: fp99", "known"},
		{"sha256: SUM", "sha256: 12", "64 hexadecimal"},
		{"name: box", "name: " + strings.Repeat("x", 70), "wants 1 to 64"},
		{"name: box", "- box", "line"},
	} {
		s := strings.Replace(manifest, c.from, c.to, 1)
		s = strings.Replace(s, "SUM", strings.Repeat("a7", 32), 1)
		_, err := model.Open(fstest.MapFS{"model.yaml": {Data: []byte(s)}})
		if !errors.Is(err, model.ErrPackage) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q for %q: %v, want one line with %q", c.to, c.from, err, c.says)
		}
	}
	for _, s := range []string{"", "\n", "---\n---\n", "a", "[]", "null", strings.Repeat("#", 65<<10)} {
		if _, err := model.Open(fstest.MapFS{"model.yaml": {Data: []byte(s)}}); !errors.Is(err, model.ErrPackage) {
			t.Errorf("manifest %.10q: %v, want %v", s, err, model.ErrPackage)
		}
	}
}

// FuzzManifest checks that no bytes take the reader down, and that what it takes can
// be used.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(strings.Replace(manifest, "SUM", strings.Repeat("a7", 32), 1)))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [a\n: b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := model.Open(fstest.MapFS{"model.yaml": {Data: b}})
		if err != nil {
			if !errors.Is(err, model.ErrPackage) {
				t.Fatal(err)
			}
			return
		}
		if m := p.Manifest; len(m.Labels) == 0 || len(m.Variants) == 0 || len(m.Input.Shape) != 4 {
			t.Fatalf("taken: %+v", m)
		}
	})
}

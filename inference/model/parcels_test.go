// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"image"
	"io/fs"
	"testing"

	"fulmar/inference/detect"
	"fulmar/inference/model"
	"fulmar/inference/ort"
	"fulmar/models/parcels"
	"fulmar/models/parcels/scene"
	"fulmar/schema"
)

// TestParcels holds the model we ship to its bar, on drawn pictures of the test
// split: mAP50 of 0.85, and INT8 within 0.01 of FP32.
func TestParcels(t *testing.T) {
	const (
		pictures  = 100
		leastAP50 = 0.85
		mostLoss  = 0.01
		low       = 0.01 // score threshold of evaluations
	)
	variants := []string{"int8", "fp32"}
	detectors := map[string]*model.Detector{}
	for _, v := range variants {
		p, err := model.Open(parcels.Files())
		if err != nil {
			t.Fatal(err)
		}
		cfg := config(t)
		cfg.Variant = v
		d, err := p.Load(t.Context(), cfg) // with its own thresholds, past its golden pictures
		if err != nil {
			t.Fatal(err)
		}
		if i := d.Info(); i.Golden == 0 || i.Engine != "onnxruntime-cpu/"+v {
			t.Errorf("info is %+v: no golden picture, or another variant than %s", i, v)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		p.Manifest.Golden, p.Manifest.Thresholds.Score = nil, low
		if d, err = p.Load(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		detectors[v] = d
	}
	var belt line
	found := map[string][]detect.Pair{}
	for i := range pictures {
		img, truth := belt.picture(t, i)
		for _, v := range variants {
			got, err := detectors[v].Detect(t.Context(), img, nil)
			if err != nil {
				t.Fatal(err)
			}
			found[v] = append(found[v], detect.Pair{Found: got, Truth: truth})
		}
	}
	i, f := detect.Evaluate(found["int8"]), detect.Evaluate(found["fp32"])
	t.Logf("%d pictures: int8 mAP50 %.4f, mAP50-95 %.4f; fp32 %.4f, %.4f", pictures, i.MAP50, i.MAP, f.MAP50, f.MAP)
	if i.Classes != len(scene.Classes()) {
		t.Errorf("truth of %d classes, want %d", i.Classes, len(scene.Classes()))
	}
	if i.MAP50 < leastAP50 {
		t.Errorf("mAP50 of int8 is %.4f, want at least %.2f", i.MAP50, leastAP50)
	}
	if i.MAP50 < f.MAP50-mostLoss {
		t.Errorf("int8 has mAP50 %.4f and fp32 %.4f: more than %.2f is lost", i.MAP50, f.MAP50, mostLoss)
	}
}

// line draws pictures of the test split. Four in a row are of one world, whose scene
// is kept: making one takes longer than drawing a picture.
type line struct {
	set   scene.Settings
	scene *scene.Scene
}

// picture is picture i of the split and what is in it.
func (l *line) picture(tb testing.TB, i int) (*image.RGBA, []schema.Box) {
	tb.Helper()
	set, frame, err := scene.SplitTest.Sample(i)
	if err != nil {
		tb.Fatal(err)
	}
	if l.scene == nil || l.set != set {
		if l.scene, err = scene.New(set); err != nil {
			tb.Fatal(err)
		}
		l.set = set
	}
	img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
	truth, err := l.scene.Frame(frame, img)
	if err != nil {
		tb.Fatal(err)
	}
	boxes := make([]schema.Box, len(truth))
	for i, o := range truth {
		boxes[i] = schema.Box{Class: uint16(o.Class), Score: 1, X0: o.Box[0], Y0: o.Box[1], X1: o.Box[2], Y1: o.Box[3]}
	}
	return img, boxes
}

// BenchmarkParcels is BenchmarkDetect for the model we ship, on drawn pictures.
func BenchmarkParcels(b *testing.B) {
	for _, v := range []string{"int8", "fp32"} {
		b.Run(v, func(b *testing.B) {
			p, err := model.Open(parcels.Files())
			if err != nil {
				b.Fatal(err)
			}
			cfg := config(b)
			cfg.Variant = v
			d, err := p.Load(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			network, err := fs.ReadFile(parcels.Files(), "parcels_"+v+".onnx")
			if err != nil {
				b.Fatal(err)
			}
			bare, err := runtimeOf(b).NewSession(network, ort.Options{Threads: 2})
			if err != nil {
				b.Fatal(err)
			}
			defer bare.Close()
			var belt line
			var in []*image.RGBA
			for i := range 16 {
				img, _ := belt.picture(b, i)
				in = append(in, img)
			}
			compare(b, d, bare, in)
		})
	}
}

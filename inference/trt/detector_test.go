// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt_test

import (
	"fmt"
	"image"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/onnxfile"
	"fulmar/inference/trt"
	"fulmar/inference/trt/trttest"
	"fulmar/models/parcels"
	"fulmar/schema"
)

// TestBatches is the suite of engines that take several pictures at once.
func TestBatches(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		l := opened(t, major)
		for _, graphs := range []bool{false, true} {
			t.Run(fmt.Sprintf("graphs %v", graphs), func(t *testing.T) {
				enginetest.RunBatch(t, func(network []byte) (model.Engine, error) {
					return engine(t.Context(), l, network, trt.BuildOptions{MaxBatch: 5}, trt.EngineOptions{Graphs: graphs})
				})
			})
		}
	})
}

// TestParcels: the model we ship, in batches, prepared by the kernel, through a graph,
// with its golden pictures, on a board whose GPU shares the memory and on a desktop.
func TestParcels(t *testing.T) {
	for _, integrated := range []string{"0", "1"} {
		t.Setenv("FULMAR_DOUBLE_INTEGRATED", integrated)
		l := opened(t, 10, trttest.Version("10.3.0"))
		p, err := model.Open(parcels.Files())
		if err != nil {
			t.Fatal(err)
		}
		// Each golden picture is looked at from every place of the batch, and the double
		// is slow: one will do.
		p.Manifest.Golden = p.Manifest.Golden[:1]
		var e *trt.Engine
		d, err := p.Load(t.Context(), model.Config{Variant: "int8", Engine: "tensorrt", Open: func(network []byte) (model.Engine, error) {
			open, err := onnxfile.OpenBatch(network)
			if err != nil {
				return nil, err
			}
			e, err = engine(t.Context(), l, open, trt.BuildOptions{MaxBatch: 2}, trt.EngineOptions{Graphs: true})
			return e, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if n := d.Info().Golden; n != 1 || d.MaxBatch() != 2 {
			t.Errorf("%d golden pictures, batches of %d", n, d.MaxBatch())
		}
		imgs := []image.Image{enginetest.Noise(640, 384), enginetest.Noise(320, 192)}
		found, errs := make([][]schema.Box, 2), make([]error, 2)
		for range 2 { // the second run of a size is captured
			for i := range found {
				found[i] = found[i][:0]
			}
			d.DetectBatch(t.Context(), imgs, found, errs)
		}
		for i, img := range imgs {
			one, err := d.Detect(t.Context(), img, nil)
			if err != nil || errs[i] != nil || len(one) != len(found[i]) {
				t.Errorf("picture %d: %d boxes alone, %d in the batch, %v, %v", i, len(one), len(found[i]), err, errs[i])
			}
		}
		if e.Graphs() != 2 {
			t.Errorf("%d graphs, wants one for each batch size", e.Graphs())
		}
	}
}

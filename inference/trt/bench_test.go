// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt_test

import (
	"slices"
	"testing"
	"time"

	"fulmar/inference/enginetest"
	"fulmar/inference/trt"
)

// BenchmarkBridge is what a run costs over the same calls in a bare loop in C, on the
// double, whose network of four numbers costs next to nothing: "over-ns/op" is the
// median of differences taken in turn.
func BenchmarkBridge(b *testing.B) {
	l := opened(b, 10)
	built, err := l.Build(b.Context(), enginetest.Affine(enginetest.Dims{1, 4}), trt.BuildOptions{Level: -1}, nil)
	if err != nil {
		b.Fatal(err)
	}
	e, err := l.Load(built.Plan, trt.EngineOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	ctx := b.Context()
	for range 100 {
		if err := e.RunBatch(ctx, 1); err != nil {
			b.Fatal(err)
		}
	}
	const runs = 1000
	var over []float64
	b.ReportAllocs()
	for b.Loop() {
		raw, err := e.Raw(1, runs, true)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for range runs {
			if err := e.RunBatch(ctx, 1); err != nil {
				b.Fatal(err)
			}
		}
		over = append(over, float64(time.Since(start)-raw)/runs)
	}
	slices.Sort(over)
	b.ReportMetric(over[len(over)/2], "over-ns/run")
}

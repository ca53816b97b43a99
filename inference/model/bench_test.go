// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"image"
	"image/draw"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/inference/detect"
	"fulmar/inference/model"
	"fulmar/inference/ort"
	"fulmar/schema"
)

// frames are decoded pictures as a camera hands them over.
func frames(tb testing.TB, n int) []*image.RGBA {
	tb.Helper()
	var out []*image.RGBA
	for _, name := range pictures(tb, "coco", "val", "images")[:n] {
		img := decode(tb, name)
		b := img.Bounds()
		rgba := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
		draw.Draw(rgba, rgba.Rect, img, b.Min, draw.Src)
		out = append(out, rgba)
	}
	return out
}

// BenchmarkDetect compares the whole path over decoded frames with a bare loop of
// ONNX Runtime over the same network and threads, turn by turn in one run, so that
// both see the same machine. The metric ratio is the part of the bare frame rate that
// is left, cpu-ratio the same in processor time; the house wants 0.90.
func BenchmarkDetect(b *testing.B) {
	b.Run("yolox_nano", func(b *testing.B) {
		d := load(b, public(b, "yolox_nano"), nil)
		compare(b, d, yoloxReference(b, 0.3).session, frames(b, 16))
	})
}

func compare(b *testing.B, d *model.Detector, bare *ort.Session, in []*image.RGBA) {
	dst := make([]schema.Box, 0, schema.MaxDetections)
	ctx := b.Context()
	var ours, theirs []float64
	var cpuOurs, cpuTheirs float64
	b.ReportAllocs()
	for b.Loop() {
		for _, f := range in {
			c0, t0 := cpu(b), time.Now()
			if _, err := d.Detect(ctx, f, dst[:0]); err != nil {
				b.Fatal(err)
			}
			c1, t1 := cpu(b), time.Now()
			if err := bare.Run(ctx); err != nil {
				b.Fatal(err)
			}
			ours, theirs = append(ours, t1.Sub(t0).Seconds()), append(theirs, time.Since(t1).Seconds())
			cpuOurs, cpuTheirs = cpuOurs+c1-c0, cpuTheirs+cpu(b)-c1
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	o, t := ours[len(ours)/2], theirs[len(theirs)/2]
	b.ReportMetric(1/o, "frames/s")
	b.ReportMetric(1/t, "bare-frames/s")
	b.ReportMetric(t/o, "ratio")
	b.ReportMetric(cpuTheirs/cpuOurs, "cpu-ratio")
}

// cpu is the processor time of this process, in seconds: what is left comparable on a
// machine that others use too.
func cpu(tb testing.TB) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// TestDetectAllocatesNothing holds the promise for frames as cameras give them.
func TestDetectAllocatesNothing(t *testing.T) {
	d := load(t, public(t, "yolox_nano"), func(m *model.Manifest) { m.Golden = nil })
	f := frames(t, 1)[0]
	dst := make([]schema.Box, 0, schema.MaxDetections)
	ctx := t.Context()
	if n := testing.AllocsPerRun(20, func() {
		if _, err := d.Detect(ctx, f, dst[:0]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a frame allocates %v times, want 0", n)
	}
}

// TestFinishedBoxes runs a network that gives finished boxes and has a second input.
func TestFinishedBoxes(t *testing.T) {
	d := load(t, public(t, "deimv2_atto"), nil)
	y := load(t, public(t, "yolox_nano"), nil)
	agree, of := 0, 0
	for _, name := range pictures(t, "coco", "val", "images")[:16] {
		img := decode(t, name)
		got, err := d.Detect(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		other, err := y.Detect(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range other {
			if other[i].Score < 0.6 {
				continue
			}
			of++
			for j := range got {
				if got[j].Class == other[i].Class && detect.IoU(&got[j], &other[i]) > 0.7 {
					agree++
					break
				}
			}
		}
	}
	t.Logf("%d of %d clear boxes of another model are found", agree, of)
	if of < 10 || agree < of*2/3 {
		t.Errorf("of %d clear boxes of another model only %d are found", of, agree)
	}
}

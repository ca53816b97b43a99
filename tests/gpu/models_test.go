// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gpu_test

import (
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // pictures of the public data
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/inference/detect"
	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/onnxfile"
	"fulmar/inference/trt"
	"fulmar/models/parcels"
	"fulmar/models/parcels/scene"
	"fulmar/schema"
)

// over is a package of several folders: the first that has a file gives it.
type over []fs.FS

func (o over) Open(name string) (fs.File, error) {
	for _, f := range o {
		if file, err := f.Open(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// load makes a detector of a package on the GPU: golden pictures are checked.
func load(t testing.TB, l *trt.Library, files fs.FS, variant string, change func(*model.Manifest)) *model.Detector {
	t.Helper()
	p, err := model.Open(files)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&p.Manifest)
	}
	d, err := p.Load(t.Context(), model.Config{Variant: variant, Engine: "tensorrt", Open: func(network []byte) (model.Engine, error) {
		return engine(t, l, network, trt.BuildOptions{}, trt.EngineOptions{Graphs: true})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// low is the score threshold of evaluations.
const low = 0.01

// TestTRTParcels: the golden pictures and the accuracy of the model we ship, FP32 and
// INT8, on 200 drawn pictures with the truth.
func TestTRTParcels(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "trt")})
	got := map[string]detect.Accuracy{}
	for _, v := range []string{"fp32", "int8"} {
		d := load(t, l, parcels.Files(), v, nil)
		if d.Info().Golden == 0 {
			t.Error("no golden picture was looked at")
		}
		d = load(t, l, parcels.Files(), v, func(m *model.Manifest) { m.Golden, m.Thresholds.Score = nil, low })
		var pairs []detect.Pair
		for i := range 200 {
			img, truth := drawn(t, i)
			found, err := d.Detect(t.Context(), img, nil)
			if err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, detect.Pair{Found: found, Truth: truth})
		}
		got[v] = detect.Evaluate(pairs)
		t.Logf("parcels %s: mAP50 %.4f, mAP50-95 %.4f on 200 pictures", v, got[v].MAP50, got[v].MAP)
	}
	if got["int8"].MAP50 < 0.85 || got["int8"].MAP50 < got["fp32"].MAP50-0.01 {
		t.Errorf("INT8 %.4f, FP32 %.4f", got["int8"].MAP50, got["fp32"].MAP50)
	}
}

func drawn(t testing.TB, i int) (*image.RGBA, []schema.Box) {
	t.Helper()
	set, frame, err := scene.SplitTest.Sample(i)
	if err != nil {
		t.Fatal(err)
	}
	s, err := scene.New(set)
	if err != nil {
		t.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
	truth, err := s.Frame(frame, img)
	if err != nil {
		t.Fatal(err)
	}
	boxes := make([]schema.Box, len(truth))
	for i, o := range truth {
		boxes[i] = schema.Box{Class: uint16(o.Class), Score: 1, X0: o.Box[0], Y0: o.Box[1], X1: o.Box[2], Y1: o.Box[3]}
	}
	return img, boxes
}

// TestTRTCoco: yolox_nano on the public pictures has the accuracy that it has with the
// reference on a CPU (0.3304, see docs/benchmarks.md).
func TestTRTCoco(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "trt")})
	files := over{os.DirFS(filepath.Join("..", "..", "inference", "model", "testdata", "yolox_nano")), os.DirFS(enginetest.Shared(t))}
	d := load(t, l, files, "", func(m *model.Manifest) {
		m.Golden, m.Thresholds.Score = nil, low
	})
	names, err := filepath.Glob(filepath.Join(enginetest.Shared(t, "coco", "val", "images"), "*.jpg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	var pairs []detect.Pair
	for _, n := range names {
		f, err := os.Open(n)
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := image.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		found, err := d.Detect(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, detect.Pair{Found: found, Truth: labels(t, n, img.Bounds().Size())})
	}
	a := detect.Evaluate(pairs)
	t.Logf("yolox_nano FP32: mAP50-95 %.4f, mAP50 %.4f on %d pictures", a.MAP, a.MAP50, len(names))
	if a.MAP < 0.3304-0.01 {
		t.Errorf("mAP50-95 is %.4f, the reference has 0.3304", a.MAP)
	}
}

// labels reads the YOLO labels of a picture: class, centre and size in parts of it.
func labels(t testing.TB, picture string, size image.Point) []schema.Box {
	t.Helper()
	name := strings.TrimSuffix(filepath.Base(picture), ".jpg") + ".txt"
	b, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(picture)), "labels", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing is in it
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []schema.Box
	for line := range strings.Lines(string(b)) {
		var v [5]float64
		for i, f := range strings.Fields(line) {
			if v[min(i, 4)], err = strconv.ParseFloat(f, 64); err != nil {
				t.Fatal(err)
			}
		}
		w, h := float64(size.X), float64(size.Y)
		out = append(out, schema.Box{
			Class: uint16(v[0]), Score: 1,
			X0: float32((v[1] - v[3]/2) * w), Y0: float32((v[2] - v[4]/2) * h), X1: float32((v[1] + v[3]/2) * w), Y1: float32((v[2] + v[4]/2) * h),
		})
	}
	return out
}

// TestTRTTable prints the table of docs/benchmarks.md: each model at batches of 1 to 16,
// with graphs and without, against a bare loop in C in the same run. Each ratio is the
// median of five, taken in turn.
func TestTRTTable(t *testing.T) {
	l := open(t, trt.Options{Dirs: dirs(t, "trt")})
	i := l.Info()
	t.Logf("%s %s, %s (%s), driver %s", i.Flavour, i.Version, i.Device, i.ComputeCapability, i.Driver)
	read := func(name string) []byte {
		b, err := fs.ReadFile(parcels.Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	yolox, err := os.ReadFile(enginetest.Shared(t, "models", "yolox_nano.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	fmt.Fprintln(&table, "| model | build s | batch | enqueue ms | bare loop with copies ms | run ms | run with graph ms | run / bare | with graph / bare | pictures/s |")
	for _, m := range []struct {
		name    string
		network []byte
	}{{"parcels FP32", read("parcels_fp32.onnx")}, {"parcels INT8", read("parcels_int8.onnx")}, {"yolox_nano FP32", yolox}} {
		network, err := onnxfile.OpenBatch(m.network)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		start := time.Now()
		built, err := l.Build(t.Context(), network, trt.BuildOptions{INT8: onnxfile.Quantized(network), Level: -1, MaxBatch: 16}, nil)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		took := time.Since(start)
		for batch := 1; batch <= 16; batch *= 2 {
			fmt.Fprintf(&table, "| %s | %.1f | %d | %s |\n", m.name, took.Seconds(), batch, row(t, l, built.Plan, batch))
		}
	}
	t.Logf("\n%s", table.String())
}

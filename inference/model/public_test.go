// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"encoding/json"
	"errors"
	"flag"
	"image"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"fulmar/inference/detect"
	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/ort"
	"fulmar/inference/ref"
	"fulmar/inference/tensor"
	"fulmar/schema"
)

var rewrite = flag.Bool("rewrite", false, "write the golden boxes of testdata anew, from the reference")

var library = sync.OnceValues(func() (*ort.Runtime, error) { return ort.Open(os.Getenv("FULMAR_TEST_LIBRARY")) })

func runtimeOf(tb testing.TB) *ort.Runtime {
	tb.Helper()
	tb.Setenv("FULMAR_TEST_LIBRARY", enginetest.Library(tb))
	r, err := library()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// config runs networks on ONNX Runtime with two threads.
func config(tb testing.TB) model.Config {
	tb.Helper()
	r := runtimeOf(tb)
	return model.Config{Engine: "onnxruntime-cpu", Open: func(b []byte) (model.Engine, error) {
		return r.NewSession(b, ort.Options{Threads: 2})
	}}
}

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

// public is a descriptor of testdata over the public data.
func public(tb testing.TB, name string) over {
	tb.Helper()
	return over{os.DirFS(filepath.Join("testdata", name)), os.DirFS(enginetest.Shared(tb))}
}

func load(tb testing.TB, files fs.FS, change func(*model.Manifest)) *model.Detector {
	tb.Helper()
	p, err := model.Open(files)
	if err != nil {
		tb.Fatal(err)
	}
	if change != nil {
		change(&p.Manifest)
	}
	d, err := p.Load(tb.Context(), config(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Close() })
	return d
}

func decode(tb testing.TB, path string) image.Image {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
	return img
}

func pictures(tb testing.TB, elem ...string) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(enginetest.Shared(tb, elem...), "*.jpg"))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no pictures in %v: %v", elem, err)
	}
	sort.Strings(names)
	return names
}

// reference is a network run with the reference's preprocessing and decoding.
type reference struct {
	session *ort.Session
	spec    tensor.Spec
	head    detect.Config
}

func newReference(tb testing.TB, network string, spec tensor.Spec, head detect.Config) *reference {
	tb.Helper()
	b, err := os.ReadFile(enginetest.Shared(tb, "models", network))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := runtimeOf(tb).NewSession(b, ort.Options{Threads: 2})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	head.Width, head.Height = spec.Width, spec.Height
	return &reference{s, spec, head}
}

func (r *reference) detect(tb testing.TB, img image.Image) []schema.Box {
	tb.Helper()
	in := r.session.Inputs()[0].Float32()
	for i, v := range ref.Input(&r.spec, img) {
		in[i] = float32(v)
	}
	if err := r.session.Run(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	out := r.session.Outputs()
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	if r.head.Family == detect.YOLOX {
		return ref.YOLOX(&r.spec, &r.head, out[0].Float32(), w, h)
	}
	scores, offsets := out[0], out[1]
	if scores.Dim(2) != 2 {
		scores, offsets = offsets, scores
	}
	return ref.UltraFace(&r.spec, &r.head, scores.Float32(), offsets.Float32(), w, h)
}

func yoloxReference(tb testing.TB, score float32) *reference {
	return newReference(tb, "yolox_nano.onnx",
		tensor.Spec{Width: 416, Height: 416, Order: tensor.BGR, Mode: tensor.Letterbox, Pad: 114, Scale: 1, Std: [3]float32{1, 1, 1}},
		detect.Config{Family: detect.YOLOX, Strides: []int{8, 16, 32}, Classes: 80, Score: score, IoU: 0.45, Max: 100})
}

func faceReference(tb testing.TB) *reference {
	return newReference(tb, "ultraface_rfb320.onnx",
		tensor.Spec{Width: 320, Height: 240, Order: tensor.RGB, Mode: tensor.Stretch, Scale: 1, Mean: [3]float32{127, 127, 127}, Std: [3]float32{128, 128, 128}},
		detect.Config{Family: detect.UltraFace, Classes: 1, LabelOffset: 1, Score: 0.5, IoU: 0.3, Max: 200})
}

// disagreements counts boxes of a above 0.5 that b does not have: same class, overlap
// of at least 0.95, score within 0.02.
func disagreements(a, b []schema.Box) (n, of int) {
	for i := range a {
		if a[i].Score <= 0.5 {
			continue
		}
		of++
		ok := false
		for j := range b {
			ok = ok || a[i].Class == b[j].Class && detect.IoU(&a[i], &b[j]) >= 0.95 && math.Abs(float64(a[i].Score-b[j].Score)) <= 0.02
		}
		if !ok {
			n++
		}
	}
	return n, of
}

// TestFacesLikeReference runs the whole path on photographs, both ways.
func TestFacesLikeReference(t *testing.T) {
	d, r := load(t, public(t, "ultraface"), golden(t, "ultraface", faceReference)), faceReference(t)
	total := 0
	for _, name := range pictures(t, "faces", "images") {
		img := decode(t, name)
		got, err := d.Detect(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := r.detect(t, img)
		missed, of := disagreements(want, got)
		extra, _ := disagreements(got, want)
		total += of
		if missed+extra > 0 {
			t.Errorf("%s: of %d boxes of the reference %d are not found, and %d are too many", filepath.Base(name), of, missed, extra)
		}
	}
	if total < 50 {
		t.Errorf("%d faces in all pictures, want at least 50", total)
	}
	t.Logf("%d faces", total)
}

// TestCOCO holds YOLOX-nano against the reference and against the labels.
func TestCOCO(t *testing.T) {
	// A low threshold, as evaluations use; the boxes above 0.5 are compared one by one.
	const low = 0.01
	d := load(t, public(t, "yolox_nano"), func(m *model.Manifest) {
		golden(t, "yolox_nano", func(tb testing.TB) *reference { return yoloxReference(tb, 0.3) })(m)
		m.Golden, m.Thresholds.Score = nil, low
	})
	swapped := load(t, public(t, "yolox_nano"), func(m *model.Manifest) {
		m.Golden, m.Thresholds.Score, m.Input.Color = nil, low, "rgb"
	})
	r := yoloxReference(t, low)
	var fast, slow, wrong []detect.Pair
	total, differ, swapDiffer := 0, 0, 0
	for _, name := range pictures(t, "coco", "val", "images") {
		img := decode(t, name)
		truth := labels(t, name, img)
		got, err := d.Detect(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		bad, err := swapped.Detect(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := r.detect(t, img)
		missed, of := disagreements(want, got)
		extra, _ := disagreements(got, want)
		total, differ = total+of, differ+missed+extra
		if missed+extra > 0 {
			t.Errorf("%s: of %d boxes of the reference %d are not found, and %d are too many", filepath.Base(name), of, missed, extra)
		}
		missed, _ = disagreements(want, bad)
		swapDiffer += missed
		fast, slow, wrong = append(fast, detect.Pair{Found: got, Truth: truth}), append(slow, detect.Pair{Found: want, Truth: truth}), append(wrong, detect.Pair{Found: bad, Truth: truth})
	}
	a, b, c := detect.Evaluate(fast), detect.Evaluate(slow), detect.Evaluate(wrong)
	t.Logf("mAP50-95 %.4f (reference %.4f, red and blue swapped %.4f), mAP50 %.4f, %d classes, %d boxes above 0.5, swapped: %d of them differ", a.MAP, b.MAP, c.MAP, a.MAP50, a.Classes, total, swapDiffer)
	if math.Abs(a.MAP-b.MAP) > 0.005 {
		t.Errorf("mAP50-95 is %.4f, the reference has %.4f: more than 0.005 apart", a.MAP, b.MAP)
	}
	if a.MAP < 0.25 || total < 100 {
		t.Errorf("mAP50-95 %.4f with %d boxes: the model does not see", a.MAP, total)
	}
	// The control: this test can tell.
	if swapDiffer < total/4 || c.MAP > a.MAP-0.01 {
		t.Errorf("with red and blue swapped %d of %d boxes differ and mAP50-95 is %.4f: this test is blind", swapDiffer, total, c.MAP)
	}
}

// labels reads a picture's YOLO labels: class and centre, size in parts of the picture.
func labels(tb testing.TB, picture string, img image.Image) []schema.Box {
	tb.Helper()
	name := strings.TrimSuffix(filepath.Base(picture), ".jpg") + ".txt"
	b, err := os.ReadFile(enginetest.Shared(tb, "coco", "val", "labels", name))
	if err != nil {
		tb.Fatal(err)
	}
	w, h := float64(img.Bounds().Dx()), float64(img.Bounds().Dy())
	var out []schema.Box
	for line := range strings.Lines(string(b)) {
		var v [5]float64
		for i, f := range strings.Fields(line) {
			if v[i], err = strconv.ParseFloat(f, 64); err != nil {
				tb.Fatal(err)
			}
		}
		out = append(out, schema.Box{
			Class: uint16(v[0]), Score: 1,
			X0: float32((v[1] - v[3]/2) * w), Y0: float32((v[2] - v[4]/2) * h),
			X1: float32((v[1] + v[3]/2) * w), Y1: float32((v[2] + v[4]/2) * h),
		})
	}
	return out
}

// golden writes the golden boxes of a descriptor if asked to.
func golden(tb testing.TB, name string, newRef func(testing.TB) *reference) func(*model.Manifest) {
	return func(m *model.Manifest) {
		if !*rewrite {
			return
		}
		type one struct {
			Class uint16     `json:"class"`
			Score float32    `json:"score"`
			Box   [4]float32 `json:"box"`
		}
		var file struct {
			Boxes []one `json:"boxes"`
		}
		round := func(v float32, to float64) float32 { return float32(math.Round(float64(v)*to) / to) }
		for _, b := range newRef(tb).detect(tb, decode(tb, enginetest.Shared(tb, m.Golden[0].Image))) {
			file.Boxes = append(file.Boxes, one{b.Class, round(b.Score, 1000), [4]float32{round(b.X0, 10), round(b.Y0, 10), round(b.X1, 10), round(b.Y1, 10)}})
		}
		j, err := json.MarshalIndent(file, "", "\t")
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", name, "golden.json"), append(j, '\n'), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

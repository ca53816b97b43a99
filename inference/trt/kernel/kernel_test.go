// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"fulmar/inference/tensor"
	"fulmar/inference/trt/kernel"
)

// TestPTXBelongsToSource: a change of the source that cross/ptx did not see would leave
// the device with other arithmetic than the tests.
func TestPTXBelongsToSource(t *testing.T) {
	h := sha256.New()
	for _, name := range []string{"src/kernel.h", "src/kernel.c"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(text)
	}
	if line := fmt.Sprintf("// sha256 of src/kernel.h and src/kernel.c: %x\n", h.Sum(nil)); !bytes.Contains(kernel.PTX(), []byte(line)) {
		t.Errorf("prep.ptx is not of this source; run cross/ptx. It wants the line\n%s", line)
	}
}

// TestPTXIsOldAndExact: JetPack 5 knows PTX ISA up to 7.4, and the oldest of its boards is
// 7.2; nothing in the text may round otherwise than package tensor does.
func TestPTXIsOldAndExact(t *testing.T) {
	text := string(kernel.PTX())
	if strings.Contains(text, "\x00") {
		t.Error("the text has a zero byte, where the driver would end")
	}
	for re, limit := range map[string]float64{`(?m)^\.version (\d+\.\d+)$`: 7.4, `(?m)^\.target sm_(\d+)$`: 72} {
		m := regexp.MustCompile(re).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("there is no line %s", re)
		}
		if v, err := strconv.ParseFloat(m[1], 64); err != nil || v > limit {
			t.Errorf("%s, wants at most %v", m[0], limit)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if op, _, _ := strings.Cut(strings.TrimSpace(line), " "); regexp.MustCompile(`^(fma|mad.*\.f|div.*\.f|.*\.ftz|.*approx|tex|.*\.f64|call|ex2|rcp|\.extern)`).MatchString(op) {
			t.Errorf("%q may not be in it", line)
		}
	}
	for _, entry := range []string{kernel.Prep + "(\n\t.param .align 8 .b8 fl_prep_param_0[128]\n)", kernel.PrepNV12 + "(\n\t.param .align 8 .b8 fl_prep_nv12_param_0[128]\n)", kernel.Fault + "()\n"} {
		if !strings.Contains(text, ".visible .entry "+entry) {
			t.Errorf("there is no kernel %s", entry)
		}
	}
	if n := strings.Count(text, ".entry"); n != 3 {
		t.Errorf("%d kernels, wants 3", n)
	}
}

// TestParamsAreTheC: the same bytes on both sides of the border.
func TestParamsAreTheC(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), build(t), "layout").Output()
	if err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeFor[kernel.Params]()
	got := []string{strconv.Itoa(int(typ.Size()))}
	for i := range typ.NumField() {
		got = append(got, strconv.Itoa(int(typ.Field(i).Offset)))
	}
	if want := strings.TrimSpace(string(out)); strings.Join(got, " ") != want || got[0] != "128" {
		t.Errorf("size and offsets are %v in Go, in C %s", got, want)
	}
}

// noise is a picture cut out of a larger one, so that its rows are apart, with any alpha.
func noise(r *rand.Rand, w, h int) *image.RGBA {
	left, right := r.IntN(3), r.IntN(3)
	img := image.NewRGBA(image.Rect(0, 0, left+w+right, h+1))
	for i := 0; i+8 <= len(img.Pix); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			img.Pix[i+k] = byte(v >> (8 * k))
		}
	}
	return img.SubImage(image.Rect(left, 1, left+w, h+1)).(*image.RGBA)
}

// anySpec is one of all ways to prepare a picture.
func anySpec(r *rand.Rand, w, h int) tensor.Spec {
	s := tensor.Spec{
		Width: w, Height: h, Layout: tensor.Layout(r.IntN(2)), Order: tensor.Order(r.IntN(2)), Mode: tensor.Mode(r.IntN(2)),
		Anchor: tensor.Anchor(r.IntN(2)), Pad: float32(r.IntN(256)), Scale: 1, Std: [3]float32{1, 1, 1},
	}
	switch r.IntN(5) {
	case 0:
		s.Scale, s.Mean, s.Std = 1.0/255, [3]float32{0.485, 0.456, 0.406}, [3]float32{0.229, 0.224, 0.225}
	case 1:
		s.Mean, s.Std = [3]float32{127, 127, 127}, [3]float32{128, 128, 128}
	case 2:
		for c := range 3 {
			s.Mean[c], s.Std[c] = float32(r.NormFloat64()), float32(r.NormFloat64()+3)
		}
		s.Scale, s.Pad = float32(-r.ExpFloat64()-0.01), float32(255*r.Float64())
	case 3: // values that are too small for all of their bits
		s.Scale, s.Mean = float32(math.Ldexp(r.Float64()+0.5, -115-r.IntN(30))), [3]float32{1e-44, 0, -3e-40}
	}
	return s
}

// check compares the kernel's input and way back with package tensor's.
func (e *emulation) check(t *testing.T, spec tensor.Spec, img *image.RGBA) {
	t.Helper()
	w, h := img.Rect.Dx(), img.Rect.Dy()
	p, m, err := kernel.Plan(spec, w, h, img.Stride)
	if err != nil {
		t.Fatal(err)
	}
	wanted, back := want(t, spec, img)
	if m != back {
		t.Errorf("%dx%d, %+v: the way back is %+v, want %+v", w, h, spec, m, back)
	}
	src := img.Pix[:(h-1)*img.Stride+4*w]
	same(t, fmt.Sprintf("%dx%d, %+v", w, h, spec), e.run(t, kernel.Prep, &p, src, 0), wanted)
}

func same(t *testing.T, what string, got, wanted []float32) {
	t.Helper()
	for i := range wanted {
		if math.Float32bits(got[i]) != math.Float32bits(wanted[i]) {
			t.Fatalf("%s: value %d is %v (%#x), want %v (%#x)", what, i, got[i], math.Float32bits(got[i]), wanted[i], math.Float32bits(wanted[i]))
		}
	}
}

// TestBitsOfTensor holds the kernel to package tensor, bit by bit, over all modes.
func TestBitsOfTensor(t *testing.T) {
	e := emulate(t)
	r := rand.New(rand.NewPCG(1, 2))
	// One pixel, one row, odd sizes, the input's own and twice it, each way.
	for _, in := range [][2]int{{1, 1}, {1, 7}, {7, 1}, {2, 2}, {33, 17}, {64, 48}, {41, 90}} {
		for _, size := range [][2]int{{1, 1}, {1, 90}, {90, 1}, {2, 2}, {3, 2}, {17, 13}, in, {2 * in[0], 2 * in[1]}, {2 * in[0], in[1]}, {in[0], 3 * in[1]}, {101, 67}} {
			for range 6 {
				e.check(t, anySpec(r, in[0], in[1]), noise(r, size[0], size[1]))
			}
		}
	}
	for range 1500 {
		e.check(t, anySpec(r, 1+r.IntN(90), 1+r.IntN(90)), noise(r, 1+r.IntN(150), 1+r.IntN(150)))
	}
}

// TestBitsOfLargePictures takes those of cameras, and sides where 32 bits would not be
// enough for a careless formula.
func TestBitsOfLargePictures(t *testing.T) {
	e := emulate(t)
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range [][4]int{
		{416, 416, 1920, 1080},
		{640, 640, 1920, 1080},
		{320, 240, 640, 480},
		{640, 384, 1280, 720},
		{960, 540, 1920, 1080},
		{1920, 1080, 1920, 1080},
		{300, 300, 3840, 2160},
		{tensor.MaxSide, 3, tensor.MaxSide, 5},
		{tensor.MaxSide - 1, 3, tensor.MaxSide, 2},
		{3, tensor.MaxSide, 5, tensor.MaxSide - 1},
		{tensor.MaxSide, 2, 1, 1},
		{1, 1, tensor.MaxSide, 1},
		{2, 2, 3, tensor.MaxSide},
	} {
		for range 2 {
			e.check(t, anySpec(r, c[0], c[1]), noise(r, c[2], c[3]))
		}
	}
}

// TestEveryLevel: each of the 1021 sums of four pixels, where a picture has twice the size of its place.
func TestEveryLevel(t *testing.T) {
	e := emulate(t)
	spec := tensor.Spec{Width: 32, Height: 32, Scale: 1.0 / 255, Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}}
	img := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for i := range 32 * 32 {
		for k := range 4 {
			x, y := i%32*2+k%2, i/32*2+k/2
			for c := range 3 {
				img.Pix[img.PixOffset(x, y)+c] = uint8(min(255, (i*(c+1)%1021+k)/4))
			}
		}
	}
	e.check(t, spec, img)
}

// TestFaultFaults: the driver has to see an illegal address, and nothing else.
func TestFaultFaults(t *testing.T) {
	program := os.Getenv(onDevice)
	if program == "" {
		t.Skip("only on a device, see " + onDevice)
	}
	out, err := exec.CommandContext(t.Context(), program, "fault").Output()
	if err != nil || string(out) != "700\n" {
		t.Errorf("the kernel that faults gives %q (%v), want 700", out, err)
	}
}

func TestPlanRefuses(t *testing.T) {
	good := tensor.Spec{Width: 16, Height: 12, Scale: 1, Std: [3]float32{1, 1, 1}}
	small := good
	small.Std[1], small.Scale = 1e-30, 1e30
	mean := good
	mean.Std[2], mean.Mean[2] = 1e-30, 1e30
	flat := good
	flat.Width = 0
	nv12 := func(change func(*kernel.NV12)) kernel.NV12 {
		n := kernel.NV12{Width: 5, Height: 5, Stride: 8, ChromaStride: 8, Chroma: 40}
		change(&n)
		return n
	}
	rgba := func(s tensor.Spec, w, h, stride int) func() error {
		return func() error { _, _, err := kernel.Plan(s, w, h, stride); return err }
	}
	planes := func(change func(*kernel.NV12)) func() error {
		return func() error { _, _, err := kernel.PlanNV12(good, nv12(change)); return err }
	}
	for name, c := range map[string]struct {
		plan func() error
		says string // nothing: it is taken
	}{
		"good":           {rgba(good, 5, 5, 20), ""},
		"apart":          {rgba(good, 5, 5, 24), ""},
		"no width":       {rgba(good, 0, 5, 20), "0x5"},
		"negative":       {rgba(good, 5, -5, 20), "5x-5"},
		"wide":           {rgba(good, tensor.MaxSide+1, 5, 1<<20), "16385x5"},
		"overlap":        {rgba(good, 5, 5, 16), "16 bytes apart"},
		"odd rows":       {rgba(good, 5, 5, 21), "21 bytes apart"},
		"far rows":       {rgba(good, 5, 5, 1<<31), "2147483648 bytes apart"},
		"spec":           {rgba(flat, 5, 5, 20), "input of 0x12"},
		"factor":         {rgba(small, 5, 5, 20), "range of float32"},
		"mean":           {rgba(mean, 5, 5, 20), "range of float32"},
		"planes":         {planes(func(*kernel.NV12) {}), ""},
		"before":         {planes(func(n *kernel.NV12) { n.Chroma = -22 }), ""},
		"tight":          {planes(func(n *kernel.NV12) { n.Chroma = 37 }), ""},
		"planes overlap": {planes(func(n *kernel.NV12) { n.Chroma = 36 }), "at 36"},
		"overlap before": {planes(func(n *kernel.NV12) { n.Chroma = -21 }), "at -21"},
		"luma rows":      {planes(func(n *kernel.NV12) { n.Stride = 4 }), "luma are 4 bytes"},
		"chroma rows":    {planes(func(n *kernel.NV12) { n.ChromaStride = 5 }), "chroma are 5 bytes"},
		"no height":      {planes(func(n *kernel.NV12) { n.Height = 0 }), "5x0"},
		"matrix":         {planes(func(n *kernel.NV12) { n.Matrix = 2 }), "matrix 2"},
	} {
		err := c.plan()
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, kernel.ErrPlan) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: it says %q, want one line with %q", name, err, c.says)
		}
	}
}

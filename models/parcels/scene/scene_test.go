// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bytes"
	"image"
	"image/color"
	"strings"
	"testing"
)

func picture(t testing.TB, s Settings, n uint64) (*image.RGBA, []Truth) {
	t.Helper()
	sc, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, s.Width, s.Height))
	truths, err := sc.Frame(n, img)
	if err != nil {
		t.Fatal(err)
	}
	return img, truths
}

func TestSameSettingsSamePicture(t *testing.T) {
	t.Parallel()
	a, ta := picture(t, Default(), 321)
	b, tb := picture(t, Default(), 321)
	if !bytes.Equal(a.Pix, b.Pix) || len(ta) != len(tb) {
		t.Error("the same settings and frame drew two pictures")
	}
	s := Default()
	s.Seed++
	if c, _ := picture(t, s, 321); bytes.Equal(a.Pix, c.Pix) {
		t.Error("another seed drew the same picture")
	}
}

// TestOrderDoesNotMatter: what a frame shows does not depend on the frames before.
func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	want, _ := picture(t, Default(), 50)
	sc, _ := New(Default())
	img := image.NewRGBA(image.Rect(0, 0, 640, 384))
	for _, n := range []uint64{900, 3, 49, 50} {
		if _, err := sc.Frame(n, img); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(want.Pix, img.Pix) {
		t.Error("frame 50 differs after other frames")
	}
}

// TestTruthIsInThePicture: boxes lie inside the picture, and a label's box is
// brighter than the belt, so it is where the label was drawn.
func TestTruthIsInThePicture(t *testing.T) {
	t.Parallel()
	seen := map[int]int{}
	for i := range 60 {
		set, n, err := SplitTrain.Sample(i * 4)
		if err != nil {
			t.Fatal(err)
		}
		set.Noise, set.Blur = 0, 0
		img, truths := picture(t, set, n)
		for _, tr := range truths {
			seen[tr.Class]++
			b := tr.Box
			if b[0] < 0 || b[1] < 0 || b[2] > 640 || b[3] > 384 || b[0] >= b[2] || b[1] >= b[3] || tr.Visible < minVisible || tr.Visible > 1 {
				t.Fatalf("picture %d: %+v", i, tr)
			}
			if tr.Class == ClassLabel && (tr.Digit < 0 || tr.Digit > 9) || tr.Class != ClassLabel && tr.Digit != -1 {
				t.Errorf("picture %d: class %d has digit %d", i, tr.Class, tr.Digit)
			}
			if tr.Class == ClassLabel && tr.Visible > 0.9 {
				if k := mean(img, b); k < 75 {
					t.Errorf("picture %d: a label's box is as dark as the belt (%.0f)", i, k)
				}
			}
		}
	}
	for c, name := range Classes() {
		if seen[c] < 10 {
			t.Errorf("60 pictures hold %d things of class %s", seen[c], name)
		}
	}
}

// TestBoxesFitWhatIsDrawn: against the same camera over an empty belt, a parcel's
// box begins where the picture begins to differ. (The far sides end in a shadow.)
func TestBoxesFitWhatIsDrawn(t *testing.T) {
	t.Parallel()
	checked := 0
	for i := range 20 {
		set, n, err := SplitTrain.Sample(i * 4)
		if err != nil {
			t.Fatal(err)
		}
		set.Noise, set.Blur, set.Occluder, set.Density = 0, 0, 0, 0.5
		full, truths := picture(t, set, n)
		set.Density = 0
		bare, none := picture(t, set, n)
		if len(none) != 0 {
			t.Fatalf("an empty belt holds %v", none)
		}
		for _, tr := range truths {
			b := image.Rect(int(tr.Box[0]), int(tr.Box[1]), int(tr.Box[2]), int(tr.Box[3]))
			if tr.Class == ClassLabel || tr.Visible < 0.95 || crowded(truths, b) {
				continue
			}
			checked++
			left, top := b.Max.X, b.Max.Y
			around := b.Inset(-12).Intersect(full.Rect)
			for y := around.Min.Y; y < around.Max.Y; y++ {
				for x := around.Min.X; x < around.Max.X; x++ {
					if full.RGBAAt(x, y) != bare.RGBAAt(x, y) {
						left, top = min(left, x), min(top, y)
					}
				}
			}
			// Boxes are made of every second pixel and of cells of four.
			if d := b.Min.X - left; d < -cell || d > cell {
				t.Errorf("picture %d: box %v, drawn from x %d", i, b, left)
			}
			if d := b.Min.Y - top; d < -cell || d > cell {
				t.Errorf("picture %d: box %v, drawn from y %d", i, b, top)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d boxes were checked", checked)
	}
}

// crowded tells whether another parcel or its shadow is near.
func crowded(truths []Truth, b image.Rectangle) bool {
	n := 0
	for _, tr := range truths {
		if tr.Class != ClassLabel && image.Rect(int(tr.Box[0]), int(tr.Box[1]), int(tr.Box[2]), int(tr.Box[3])).Inset(-24).Overlaps(b) {
			n++
		}
	}
	return n > 1 || b.Min.X < 24 || b.Max.X > 616
}

// TestHiddenHarmIsNoHarm: a damaged parcel of which only the sound part is in the
// picture is a parcel to whoever looks, and damaged once the harm has come in.
func TestHiddenHarmIsNoHarm(t *testing.T) {
	t.Parallel()
	set := Default()
	set.Speed, set.Occluder = 2, 0
	sc, err := New(set)
	if err != nil {
		t.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
	changed := 0
	for n := range uint64(600) {
		if _, err := sc.Frame(n, img); err != nil {
			t.Fatal(err)
		}
		for i, p := range sc.place(set.Speed * float64(n)) {
			if !p.sp.damaged {
				continue
			}
			share := sc.share(p, p.sp.body, uint8(i+1), p.sp.onHarm)
			inside := image.Rect(p.x, p.y, p.x+p.sp.w, p.y+p.sp.h).In(img.Rect)
			if inside && share < 0.9 && !image.Rect(p.x, p.y, p.x+p.sp.w, p.y+p.sp.h).Empty() && p.y > 200 {
				t.Fatalf("frame %d: a parcel on top and in the picture shows %.2f of its harm", n, share)
			}
			if share < minHarm {
				changed++
			}
		}
	}
	if changed == 0 {
		t.Error("600 frames held no damaged parcel whose harm was out of sight")
	}
}

func mean(img *image.RGBA, b [4]float32) float64 {
	sum, n := 0.0, 0.0
	for y := int(b[1]); y < int(b[3]); y++ {
		for x := int(b[0]); x < int(b[2]); x++ {
			sum += float64(color.GrayModel.Convert(img.RGBAAt(x, y)).(color.Gray).Y)
			n++
		}
	}
	return sum / n
}

func TestSettingsAreBounded(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Settings){
		"scene of 1x384": func(s *Settings) { s.Width = 1 },
		"speed":          func(s *Settings) { s.Speed = 1000 },
		"density":        func(s *Settings) { s.Density = 2 },
		"light":          func(s *Settings) { s.LightMax = s.LightMin - 0.1 },
		"noise":          func(s *Settings) { s.Noise = -1 },
		"blur":           func(s *Settings) { s.Blur = 99 },
		"belt":           func(s *Settings) { s.Belt = belts },
	} {
		s := Default()
		change(&s)
		if _, err := New(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	sc, _ := New(Default())
	if _, err := sc.Frame(0, image.NewRGBA(image.Rect(0, 0, 10, 10))); err == nil {
		t.Error("drew into a picture of another size")
	}
}

// TestSplitsShareNothing: no world of one split is a world of another.
func TestSplitsShareNothing(t *testing.T) {
	t.Parallel()
	type key struct {
		belt  int
		seed  uint64
		speed float64
	}
	belts, seeds, seedsOf := map[int]Split{}, map[key]Split{}, map[uint64]Split{}
	for _, sp := range []Split{SplitTrain, SplitCalibration, SplitTest, SplitGate} {
		for i := range 400 {
			s, _, err := sp.Sample(i)
			if err != nil || s.Validate() != nil {
				t.Fatal(sp, i, err, s.Validate())
			}
			k := key{s.Belt, s.Seed, s.Speed}
			if o, ok := belts[s.Belt]; ok && o != sp && sp != SplitGate {
				t.Fatalf("belt %d is in %s and %s", s.Belt, o, sp)
			}
			if sp == SplitGate && (belts[s.Belt] != SplitTest || seedsOf[s.Seed] != "") {
				t.Fatalf("the gate has belt %d of %s and seed %d of %s", s.Belt, belts[s.Belt], s.Seed, seedsOf[s.Seed])
			}
			if o, ok := seeds[k]; ok && o != sp {
				t.Fatalf("%+v is in %s and %s", k, o, sp)
			}
			if seeds[k] = sp; sp != SplitGate { // it stands on the belts of the test
				belts[s.Belt], seedsOf[s.Seed] = sp, sp
			}
		}
	}
	if _, _, err := Split("other").Sample(0); err == nil {
		t.Error("an unknown split was taken")
	}
}

func BenchmarkFrame(b *testing.B) {
	sc, err := New(Default())
	if err != nil {
		b.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, 640, 384))
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		if _, err := sc.Frame(n, img); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

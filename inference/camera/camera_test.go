// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package camera

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/models/parcels/scene"
)

func picture(w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.Set(x, y, color.RGBA{uint8(x * 3), uint8(y * 5), 80, 255})
		}
	}
	return img
}

func jpegBytes(t testing.TB, w, h int) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, picture(w, h), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngBytes(t testing.TB, w, h int) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, picture(w, h)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// hugePNG claims w x h pixels and has none.
func hugePNG(w, h uint32) []byte {
	b := append([]byte{}, pngMagic...)
	ihdr := append([]byte("IHDR"), binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)...)
	ihdr = append(ihdr, 8, 2, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(ihdr)-4))
	b = append(b, ihdr...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(ihdr))
}

func put(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesInOrderAgainAndAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := jpegBytes(t, 40, 30), pngBytes(t, 20, 10)
	put(t, dir, "b.PNG", second)
	put(t, dir, "a.jpeg", first)
	put(t, dir, "notes.txt", []byte("no picture"))
	src, err := NewFiles(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for round := range 3 {
		f, err := src.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.JPEG, first) || f.Image.Bounds().Dx() != 40 || f.Number != uint64(2*round+1) || f.HasTruth {
			t.Errorf("round %d: frame %d of %v, its JPEG touched: %v", round, f.Number, f.Image.Bounds(), !bytes.Equal(f.JPEG, first))
		}
		if f, err = src.Next(t.Context()); err != nil || f.JPEG != nil || f.Image.Bounds().Dx() != 20 {
			t.Errorf("round %d: second frame %+v, %v", round, f, err)
		}
		f.Release()
	}
	// Pictures may come: they are in the next round.
	put(t, dir, "c.jpg", first)
	for range 3 {
		if _, err := src.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// And go: an empty folder ends the source.
	for _, n := range []string{"a.jpeg", "b.PNG", "c.jpg"} {
		os.Remove(filepath.Join(dir, n))
	}
	if _, err := src.Next(t.Context()); err == nil || errors.Is(err, ErrBad) || !strings.Contains(err.Error(), "put some there") {
		t.Errorf("empty folder: %v", err)
	}
}

func TestBadPicturesAreToldAndPassed(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	good := jpegBytes(t, 64, 48)
	put(t, outside, "secret.jpg", good)
	bad := map[string]func(path string) error{
		"cut.jpg":   func(p string) error { return os.WriteFile(p, good[:len(good)/2], 0o600) },
		"empty.jpg": func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"text.jpg":  func(p string) error { return os.WriteFile(p, []byte("hello"), 0o600) },
		"wide.png":  func(p string) error { return os.WriteFile(p, hugePNG(MaxSide+1, 1), 0o600) },
		"large.png": func(p string) error { return os.WriteFile(p, hugePNG(MaxSide, MaxSide), 0o600) },
		"none.png":  func(p string) error { return os.WriteFile(p, hugePNG(0, 5), 0o600) },
		"pipe.jpg":  func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"dir.jpg":   func(p string) error { return os.Mkdir(p, 0o700) },
		"link.jpg":  func(p string) error { return os.Symlink(filepath.Join(outside, "secret.jpg"), p) },
		"dead.jpg":  func(p string) error { return os.Symlink("nowhere", p) },
		"big.jpg": func(p string) error {
			return errors.Join(os.WriteFile(p, good, 0o600), os.Truncate(p, MaxFile+1)) // sparse
		},
	}
	for name, makeIt := range bad {
		if err := makeIt(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, dir, "zz-good.jpg", good)
	src, err := NewFiles(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // a pipe that holds us up ends here
	defer cancel()
	for range len(bad) {
		f, err := src.Next(ctx)
		if !errors.Is(err, ErrBad) {
			t.Fatalf("frame %+v, error %v; want ErrBad", f, err)
		}
	}
	if f, err := src.Next(ctx); err != nil || f.Number != uint64(len(bad)+1) {
		t.Errorf("after the bad ones: %+v, %v", f, err)
	}
}

func TestMissingFolderIsSaid(t *testing.T) {
	t.Parallel()
	if _, err := NewFiles(filepath.Join(t.TempDir(), "nowhere"), 1); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "nowhere") {
		t.Error(err)
	}
	if _, err := NewFiles(t.TempDir(), 1); err == nil || !strings.Contains(err.Error(), "holds no") {
		t.Error(err)
	}
}

func TestPaceKeepsTheGridAndForgetsThePast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(10)
		start := time.Now()
		for i := range 5 {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if at, want := time.Since(start), time.Duration(i)*100*time.Millisecond; at != want {
				t.Errorf("frame %d at %v, want %v", i, at, want)
			}
			time.Sleep(30 * time.Millisecond) // work; the grid does not move
		}
		time.Sleep(time.Second) // a stall: 10 moments pass
		stalled := time.Now()
		n := 0
		for time.Since(stalled) < time.Second {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n > 12 {
			t.Errorf("%d frames in the second after a stall of one: the past was made up for", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("wait under an ended context: %v", err)
		}
	})
}

func TestSceneKnowsItsTruthAndReusesMemory(t *testing.T) {
	t.Parallel()
	s := scene.Default()
	src, err := NewScene(s, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	seen := map[image.Image]bool{}
	truths := 0
	for i := range 20 {
		f, err := src.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !f.HasTruth || f.JPEG != nil || f.Number != uint64(i+1) || f.Image.Bounds().Dx() != s.Width {
			t.Errorf("frame %+v", f)
		}
		for _, b := range f.Truth {
			if b.Score != 1 || b.X0 >= b.X1 || b.Y0 >= b.Y1 || b.X1 > float32(s.Width) || int(b.Class) >= len(scene.Classes()) {
				t.Errorf("truth %+v", b)
			}
		}
		truths += len(f.Truth)
		seen[f.Image] = true
		f.Release()
		f.Release() // a second time does nothing
	}
	if truths == 0 {
		t.Error("20 frames of the default scene have nothing in them")
	}
	if len(seen) != 1 {
		t.Errorf("%d pictures were made for frames that were given back at once", len(seen))
	}
	s.Width = 1 << 20
	if _, err := NewScene(s, 1); err == nil {
		t.Error("a scene of a million columns was accepted")
	}
}

// FuzzDecode throws bytes at the decoder: no panic, and nothing larger than the
// bounds comes out.
func FuzzDecode(f *testing.F) {
	f.Add(jpegBytes(f, 16, 12))
	f.Add(pngBytes(f, 16, 12))
	f.Add(hugePNG(1<<31-1, 1<<31-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr Frame
		if fr.decode(b) != nil {
			return
		}
		if s := fr.Image.Bounds().Size(); s.X > MaxSide || s.Y > MaxSide || s.X*s.Y > MaxPixels || s.X < 1 || s.Y < 1 {
			t.Fatalf("picture of %v", s)
		}
	})
}

func BenchmarkFiles(b *testing.B) {
	dir := b.TempDir()
	put(b, dir, "a.jpg", jpegBytes(b, 1280, 720))
	src, err := NewFiles(dir, 1e9)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	for b.Loop() {
		if _, err := src.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScene(b *testing.B) {
	src, err := NewScene(scene.Default(), 1e9)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f, err := src.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
}

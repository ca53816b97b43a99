// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command generate writes the pictures of a split for training:
//
//	generate -split train -n 3200 -out DIR
//	generate -split test -n 516 -jpeg DIR
//	generate -split gate -n 112 -labelled DIR
//
// DIR/frames.bin holds n pictures of 320x192 RGB bytes, which is what the
// model's preprocessing makes of 640x384 (each pixel the mean of four). DIR/labels.txt
// has a line for each thing: picture class x0 y0 x1 y1 visible digit, in pixels of
// 640x384. Half of the pictures went through JPEG, as a real camera's do.
//
// The labelled form writes every fourth picture, so that each is of another world, as
// JPEG of 320x192 with the truth beside it in the form of expected boxes.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"os"
	"path/filepath"

	"fulmar/models/parcels/scene"
)

func main() {
	split := flag.String("split", "train", "train, calibration or test")
	n := flag.Int("n", 100, "how many pictures")
	out := flag.String("out", ".", "folder to write to")
	golden := flag.String("jpeg", "", "instead: folder for the last four pictures as JPEG of 640x384")
	gate := flag.String("labelled", "", "instead: folder for every fourth picture as JPEG of 320x192 with its truth")
	flag.Parse()
	if *gate != "" {
		if err := labelled(scene.Split(*split), *n, *gate); err != nil {
			fmt.Fprintln(os.Stderr, "generate:", err)
			os.Exit(1)
		}
		return
	}
	if *golden != "" {
		if err := pictures(scene.Split(*split), *n, *golden); err != nil {
			fmt.Fprintln(os.Stderr, "generate:", err)
			os.Exit(1)
		}
		return
	}
	if err := generate(scene.Split(*split), *n, *out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(split scene.Split, n int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	frames, err := os.Create(filepath.Join(dir, "frames.bin"))
	if err != nil {
		return err
	}
	defer frames.Close()
	labels, err := os.Create(filepath.Join(dir, "labels.txt"))
	if err != nil {
		return err
	}
	defer labels.Close()
	fw, lw := bufio.NewWriterSize(frames, 1<<20), bufio.NewWriter(labels)
	var sc *scene.Scene
	var last scene.Settings
	for i := range n {
		set, frame, err := split.Sample(i)
		if err != nil {
			return err
		}
		if set != last {
			if sc, err = scene.New(set); err != nil {
				return err
			}
			last = set
		}
		img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
		truths, err := sc.Frame(frame, img)
		if err != nil {
			return err
		}
		if i%2 == 1 {
			if img, err = throughJPEG(img, 70+i%25); err != nil {
				return err
			}
		}
		if _, err := fw.Write(halve(img)); err != nil {
			return err
		}
		for _, t := range truths {
			fmt.Fprintf(lw, "%d %d %g %g %g %g %.3f %d\n", i, t.Class, t.Box[0], t.Box[1], t.Box[2], t.Box[3], t.Visible, t.Digit)
		}
	}
	if err := fw.Flush(); err != nil {
		return err
	}
	return lw.Flush()
}

// pictures writes every fourth of the last sixteen pictures, so that each is of
// another world and none is among the first n-16.
func pictures(split scene.Split, n int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := max(n-16, 0); i < n; i += 4 {
		set, frame, err := split.Sample(i)
		if err != nil {
			return err
		}
		sc, err := scene.New(set)
		if err != nil {
			return err
		}
		img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
		if _, err := sc.Frame(frame, img); err != nil {
			return err
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.jpg", split, i)), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// labelled writes pictures with their truth.
func labelled(split scene.Split, n int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := 0; i < n; i += 4 {
		set, frame, err := split.Sample(i)
		if err != nil {
			return err
		}
		sc, err := scene.New(set)
		if err != nil {
			return err
		}
		img := image.NewRGBA(image.Rect(0, 0, set.Width, set.Height))
		truths, err := sc.Frame(frame, img)
		if err != nil {
			return err
		}
		half := image.NewRGBA(image.Rect(0, 0, set.Width/2, set.Height/2))
		for j, rgb := 0, halve(img); len(rgb) > 0; j, rgb = j+4, rgb[3:] {
			half.Pix[j], half.Pix[j+1], half.Pix[j+2], half.Pix[j+3] = rgb[0], rgb[1], rgb[2], 255
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, half, &jpeg.Options{Quality: 85}); err != nil {
			return err
		}
		name := filepath.Join(dir, fmt.Sprintf("%s-%03d", split, i))
		if err := os.WriteFile(name+".jpg", b.Bytes(), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(name+".json", truth(truths), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// truth is a file of expected boxes, a line each, in pixels of half the size.
func truth(truths []scene.Truth) []byte {
	b := []byte(`{"boxes": [`)
	for i, t := range truths {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "\n {\"class\": %d, \"score\": 1, \"box\": [%g, %g, %g, %g]}", t.Class, t.Box[0]/2, t.Box[1]/2, t.Box[2]/2, t.Box[3]/2)
	}
	return append(b, "\n]}\n"...)
}

func throughJPEG(img *image.RGBA, quality int) (*image.RGBA, error) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		return nil, err
	}
	back, err := jpeg.Decode(&b)
	if err != nil {
		return nil, err
	}
	draw.Draw(img, img.Bounds(), back, image.Point{}, draw.Src)
	return img, nil
}

// halve takes the mean of each four pixels: bilinear with half-pixel centres at
// exactly half the size.
func halve(img *image.RGBA) []byte {
	w, h := img.Rect.Dx()/2, img.Rect.Dy()/2
	out := make([]byte, 0, w*h*3)
	for y := range h {
		for x := range w {
			a, b := img.Pix[2*y*img.Stride+8*x:], img.Pix[(2*y+1)*img.Stride+8*x:]
			for k := range 3 {
				out = append(out, byte((int(a[k])+int(a[4+k])+int(b[k])+int(b[4+k])+2)/4))
			}
		}
	}
	return out
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package camera

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxFiles is how many pictures of a folder are looked at, in name order: more are
// a recording, which is no folder's work, and would only cost memory for names.
const maxFiles = 100_000

// files gives the pictures of a folder in name order, again and again. The folder
// is read anew before each round, so pictures may come and go.
type files struct {
	path   string
	root   *os.Root
	pace   *pace
	names  []string
	at     int
	number uint64
}

// NewFiles opens a folder of JPEG and PNG pictures as a camera that takes fps
// frames a second. A folder that is missing or holds no picture is an error.
// Links that lead out of the folder are not followed.
func NewFiles(path string, fps float64) (Source, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open picture folder: %w", err)
	}
	f := &files{path: path, root: root, pace: newPace(fps)}
	if err := f.list(); err != nil {
		root.Close()
		return nil, err
	}
	return f, nil
}

func isPicture(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jpg", ".jpeg", ".png":
		return true
	}
	return false
}

// list reads the folder's names anew.
func (f *files) list() error {
	dir, err := f.root.Open(".")
	if err != nil {
		return fmt.Errorf("read picture folder %s: %w", f.path, err)
	}
	defer dir.Close()
	f.names, f.at = f.names[:0], 0
	for len(f.names) < maxFiles {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			if isPicture(n) {
				f.names = append(f.names, n)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read picture folder %s: %w", f.path, err)
		}
	}
	if len(f.names) == 0 {
		return fmt.Errorf("picture folder %s holds no .jpg, .jpeg or .png file: put some there", f.path)
	}
	slices.Sort(f.names)
	return nil
}

// Next gives the next picture of the folder.
func (f *files) Next(ctx context.Context) (*Frame, error) {
	if err := f.pace.wait(ctx); err != nil {
		return nil, err
	}
	if f.at == len(f.names) {
		if err := f.list(); err != nil {
			return nil, err
		}
	}
	name := f.names[f.at]
	f.at++
	f.number++
	frame := &Frame{Number: f.number, At: time.Now()}
	raw, err := f.read(name)
	if err == nil {
		err = frame.decode(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBad, name, err)
	}
	return frame, nil
}

// Close lets go of the folder.
func (f *files) Close() error { return f.root.Close() }

// read takes one file's bytes, at most MaxFile.
func (f *files) read(name string) ([]byte, error) {
	// A pipe of that name must not hold us up: do not wait, and take files only.
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("is a %s, no file", fileKind(st.Mode()))
	}
	if st.Size() > MaxFile {
		return nil, fmt.Errorf("has %d bytes, at most %d", st.Size(), MaxFile)
	}
	buf := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead))
	// It may grow while it is read.
	if _, err := buf.ReadFrom(io.LimitReader(file, MaxFile+1)); err != nil {
		return nil, err
	}
	if buf.Len() > MaxFile {
		return nil, fmt.Errorf("has over %d bytes", MaxFile)
	}
	return buf.Bytes(), nil
}

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	}
	return "special file"
}

var pngMagic = []byte("\x89PNG\r\n\x1a\n")

// decode fills the frame from a JPEG or PNG file, whatever its name says.
func (f *Frame) decode(raw []byte) error {
	config, picture := jpeg.DecodeConfig, jpeg.Decode
	isPNG := bytes.HasPrefix(raw, pngMagic)
	if isPNG {
		config, picture = png.DecodeConfig, png.Decode
	}
	c, err := config(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	if err := checkSize(c); err != nil {
		return err
	}
	img, err := picture(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	f.Image = img
	if !isPNG {
		f.JPEG = raw
	}
	return nil
}

func checkSize(c image.Config) error {
	if c.Width < 1 || c.Height < 1 || c.Width > MaxSide || c.Height > MaxSide || c.Width*c.Height > MaxPixels {
		return fmt.Errorf("is %d x %d pixels, at most %d a side and %d in all", c.Width, c.Height, MaxSide, MaxPixels)
	}
	return nil
}

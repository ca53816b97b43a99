// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"errors"
	"fmt"
	"image/jpeg"
	"strings"
	"sync"
	"time"

	"fulmar/inference/camera"
	"fulmar/schema"
)

const (
	// jpegQuality of pictures that the source did not bring as JPEG: where artefacts
	// begin to be invisible.
	jpegQuality = 85
	// reopenPictures is the time between two tries to open a picture folder.
	reopenPictures = 10 * time.Second
	// cameraInName bounds the camera's part of a picture's name, so that boot, time
	// and ending fit schema.MaxName with it.
	cameraInName = 24
)

// Pictures is a folder of kept pictures, bounded by bytes.
type Pictures interface {
	// Put keeps b under the name and gives its SHA-256.
	Put(name string, b []byte) ([32]byte, error)
	Bytes() int64
	Evicted() uint64
}

var errNoPictures = errors.New("no folder is set for pictures")

// keeper opens the folder when it is first needed and again when that failed.
type keeper struct {
	open func(dir string, quota int64) (Pictures, error)

	mu    sync.Mutex
	dir   string
	quota int64
	store Pictures
	tried time.Time
	err   error
}

// point sets where pictures go from now on.
func (k *keeper) point(dir string, quota int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if dir == k.dir && quota == k.quota {
		return
	}
	k.dir, k.quota, k.store, k.err, k.tried = dir, quota, nil, nil, time.Time{}
}

// get gives the open folder.
func (k *keeper) get() (Pictures, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.store != nil:
		return k.store, nil
	case k.dir == "":
		return nil, errNoPictures
	case k.err != nil && time.Since(k.tried) < reopenPictures:
		return nil, k.err
	}
	k.store, k.err = k.open(k.dir, k.quota)
	k.tried = time.Now()
	if k.err != nil {
		k.store = nil
		k.err = fmt.Errorf("open picture folder %s: %w", k.dir, k.err)
	}
	return k.store, k.err
}

// usage tells bytes kept and pictures evicted.
func (k *keeper) usage() (int64, uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.store == nil {
		return 0, 0
	}
	return k.store.Bytes(), k.store.Evicted()
}

// keep stores the frame's picture and gives its index record.
func (k *keeper) keep(cam string, at schema.Time, f *camera.Frame) (*schema.Snapshot, error) {
	store, err := k.get()
	if err != nil {
		return nil, err
	}
	b := f.JPEG
	if b == nil {
		var buf bytes.Buffer
		if err := jpeg.Encode(&buf, f.Image, &jpeg.Options{Quality: jpegQuality}); err != nil {
			return nil, fmt.Errorf("encode picture: %w", err)
		}
		b = buf.Bytes()
	}
	name := pictureName(cam, at)
	sum, err := store.Put(name, b)
	if err != nil {
		return nil, fmt.Errorf("keep picture %s: %w", name, err)
	}
	return &schema.Snapshot{
		Name: name, Size: int64(len(b)), SHA256: sum, Media: "image/jpeg", Source: cam, Frame: f.Number,
	}, nil
}

// pictureName names a picture by camera, boot and microsecond of that boot. Not by
// frame number: that starts anew with the worker, and a name given again would put
// another picture under a record that is still on its way.
func pictureName(cam string, at schema.Time) string {
	cam = strings.ReplaceAll(cam, "/", ".")
	return fmt.Sprintf("%s-%016x-%x.jpg", cam[:min(len(cam), cameraInName)], at.Boot, at.Mono/int64(time.Microsecond))
}

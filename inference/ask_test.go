// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"image"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/inference/worker"
	"fulmar/schema"
)

// TestAskedPicture: a picture that somebody asks for is the next frame's, also where
// nothing is on it, once, and again only for a newer ask.
func TestAskedPicture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(func(_ context.Context, _ image.Image, dst []schema.Box) ([]schema.Box, error) { return dst, nil })
	r.cfg.Open = smallScene
	synctest.Test(t, func(t *testing.T) {
		s := setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 4}, worker.Camera{Name: "cam1", Kind: "scene", FPS: 4})
		s.BlobDir, s.BlobQuota = dir, 64<<20
		r.during(t, s, func() {
			time.Sleep(5 * time.Second)
			if n := len(r.sent()); n != 0 {
				t.Fatalf("%d events of an empty scene", n)
			}
			for i, shot := range []uint64{100, 100, 99, 200} {
				s.Shots = map[string]uint64{"cam0": shot, "gone": 7}
				r.Apply(s)
				time.Sleep(time.Second)
				if got, want := len(r.sent()), []int{1, 1, 1, 2}[i]; got != want {
					t.Errorf("ask %d: %d pictures, want %d", i, got, want)
				}
			}
		})
	})
	for _, res := range r.sent() {
		if res.Snapshot == nil || res.Event.Source != "cam0" || res.Validate() != nil {
			t.Errorf("%+v", res)
		}
	}
}

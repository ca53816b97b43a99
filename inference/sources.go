// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"fmt"

	"fulmar/inference/camera"
	"fulmar/inference/worker"
	"fulmar/models/parcels/scene"
	"fulmar/storage"
)

// OpenSource makes the source of a camera of the kinds "files" and "scene". Where a
// scene camera's seed or density is 0, the scene's own default stands.
func OpenSource(c worker.Camera) (camera.Source, error) {
	switch c.Kind {
	case "files":
		return camera.NewFiles(c.Path, c.FPS)
	case "scene":
		s := scene.Default()
		if c.Seed != 0 {
			s.Seed = c.Seed
		}
		if c.Density != 0 {
			s.Density = c.Density
		}
		return camera.NewScene(s, c.FPS)
	}
	return nil, fmt.Errorf("camera %s: kind %q is unknown (files, scene)", c.Name, c.Kind)
}

// OpenBlobs opens the folder of pictures that the worker shares with fulmard.
func OpenBlobs(dir string, quota int64) (Pictures, error) {
	return storage.OpenBlobs(dir, quota)
}

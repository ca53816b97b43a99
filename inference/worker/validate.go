// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"fmt"
	"math"
	"unicode/utf8"

	"fulmar/schema"
)

// Limits of a camera's numbers.
const (
	maxFPS     = 240     // no camera on a board is faster
	minFPS     = 0.001   // one each 17 minutes; far less would overflow a duration
	maxDensity = 100     // objects in view; more than schema.MaxDetections could not be told
	maxPath    = 4096    // PATH_MAX
	maxThreads = 64      // more than any Jetson has cores
	maxRelease = 128     // bytes of a version string
	maxBlobs   = 1 << 50 // bytes; a typing error, not a disk
	maxBatch   = 64      // pictures; the engines' own bound
)

// Validate checks names, numbers and that each camera's model is there.
func (s *Setup) Validate() error {
	if len(s.Cameras) > MaxCameras || len(s.Models) > MaxModels {
		return fmt.Errorf("setup: %d cameras and %d models, at most %d and %d", len(s.Cameras), len(s.Models), MaxCameras, MaxModels)
	}
	if s.Threads < 0 || s.Threads > maxThreads {
		return fmt.Errorf("setup: %d threads, wants 0 to %d", s.Threads, maxThreads)
	}
	if len(s.BlobDir) > maxPath || s.BlobQuota < 0 || s.BlobQuota > maxBlobs {
		return fmt.Errorf("setup: picture folder path of %d bytes or quota of %d bytes is out of bounds", len(s.BlobDir), s.BlobQuota)
	}
	if e := &s.Engines; len(e.Cache) > maxPath || e.Quota < 0 || e.Quota > maxBlobs || e.MaxBatch < 0 || e.MaxBatch > maxBatch {
		return fmt.Errorf("setup: engine cache path of %d bytes, quota of %d bytes or batch of %d is out of bounds", len(e.Cache), e.Quota, e.MaxBatch)
	}
	models := make(map[string]bool, len(s.Models))
	for i := range s.Models {
		m := &s.Models[i]
		if err := schema.CheckName(m.Name); err != nil {
			return fmt.Errorf("setup: model: %w", err)
		}
		if models[m.Name] {
			return fmt.Errorf("setup: model %s is there twice", m.Name)
		}
		models[m.Name] = true
		if m.Path == "" || len(m.Path) > maxPath || len(m.Variant) > schema.MaxName {
			return fmt.Errorf("setup: model %s: path of %d bytes, variant of %d bytes are out of bounds", m.Name, len(m.Path), len(m.Variant))
		}
		switch m.Engine {
		case "", EngineAuto, EngineONNX, EngineTensorRT:
		default:
			return fmt.Errorf("setup: model %s: engine %.32q is unknown (auto, onnxruntime, tensorrt)", m.Name, m.Engine)
		}
	}
	names := make(map[string]bool, len(s.Cameras))
	for i := range s.Cameras {
		c := &s.Cameras[i]
		if err := c.validate(); err != nil {
			return fmt.Errorf("setup: %w", err)
		}
		if names[c.Name] {
			return fmt.Errorf("setup: camera %s is there twice", c.Name)
		}
		names[c.Name] = true
		if !models[c.Model] {
			return fmt.Errorf("setup: camera %s wants model %q, which is not in the setup", c.Name, c.Model)
		}
		if c.SnapshotEvery > 0 && s.BlobDir == "" {
			return fmt.Errorf("setup: camera %s keeps pictures but no folder is set for them", c.Name)
		}
	}
	if len(s.Asked) > MaxCameras {
		return fmt.Errorf("setup: pictures of %d cameras are asked for, at most %d", len(s.Asked), MaxCameras)
	}
	return nil
}

func (c *Camera) validate() error {
	if err := schema.CheckName(c.Name); err != nil {
		return fmt.Errorf("camera: %w", err)
	}
	switch c.Kind {
	case "scene":
		if math.IsNaN(c.Density) || c.Density < 0 || c.Density > maxDensity {
			return fmt.Errorf("camera %s: density %v, wants 0 to %d", c.Name, c.Density, maxDensity)
		}
	case "files":
		if c.Path == "" || len(c.Path) > maxPath {
			return fmt.Errorf("camera %s: path of %d bytes, wants 1 to %d", c.Name, len(c.Path), maxPath)
		}
	default:
		return fmt.Errorf("camera %s: kind %.32q is unknown (files, scene)", c.Name, c.Kind)
	}
	if math.IsNaN(c.FPS) || c.FPS < minFPS || c.FPS > maxFPS {
		return fmt.Errorf("camera %s: %v frames per second, wants %v to %d", c.Name, c.FPS, minFPS, maxFPS)
	}
	if c.EventEvery < 0 || c.SnapshotEvery < 0 {
		return fmt.Errorf("camera %s: a time between events or pictures is negative", c.Name)
	}
	return nil
}

// Validate checks the event and the picture.
func (r *Result) Validate() error {
	if err := r.Event.Validate(); err != nil {
		return err
	}
	// Texts that are no UTF-8 would encode, and no reader would take them.
	texts := []string{r.Event.Model, r.Event.Engine}
	for _, l := range r.Event.Labels {
		texts = append(texts, l)
	}
	for _, t := range texts {
		if !utf8.ValidString(t) {
			return fmt.Errorf("event of %s: %.32q is not UTF-8", r.Event.Source, t)
		}
	}
	if r.Snapshot != nil {
		return r.Snapshot.Validate()
	}
	return nil
}

// Validate checks the result.
func (n *numbered) Validate() error { return n.Result.Validate() }

// Validate checks counts and lengths.
func (s *Status) Validate() error {
	if len(s.Cameras) > MaxCameras || len(s.Models) > MaxModels || len(s.Release) > maxRelease {
		return fmt.Errorf("status: %d cameras, %d models, release of %d bytes are out of bounds", len(s.Cameras), len(s.Models), len(s.Release))
	}
	for i := range s.Cameras {
		c := &s.Cameras[i]
		if err := schema.CheckName(c.Name); err != nil {
			return fmt.Errorf("status: camera: %w", err)
		}
		if len(c.State) > schema.MaxName || len(c.Error) > MaxErrorText || math.IsNaN(c.FPS) || math.IsInf(c.FPS, 0) {
			return fmt.Errorf("status: camera %s: a text is too long or the rate is no number", c.Name)
		}
	}
	for i := range s.Models {
		m := &s.Models[i]
		if err := schema.CheckName(m.Name); err != nil {
			return fmt.Errorf("status: model: %w", err)
		}
		if len(m.State) > schema.MaxName || len(m.Error) > MaxErrorText || len(m.Engine) > schema.MaxName ||
			len(m.Version) > schema.MaxName || len(m.SHA256) > schema.MaxName || len(m.EngineVersion) > schema.MaxName ||
			len(m.Build) > MaxErrorText || len(m.Fallback) > MaxErrorText || len(m.Path) > maxPath {
			return fmt.Errorf("status: model %s: a text is too long", m.Name)
		}
	}
	return nil
}

// Validate checks the release text; the protocol is checked by the handshake.
func (h *hello) Validate() error {
	if len(h.Release) > maxRelease {
		return fmt.Errorf("hello: release of %d bytes, at most %d", len(h.Release), maxRelease)
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"fulmar/inference/worker"
	"fulmar/schema"
)

func (c *Config) validateInfer() error {
	errs := []error{oneOf("infer.mode", c.Infer.Mode, "unit", "child", "off")}
	if c.Infer.Threads < 1 || c.Infer.Threads > 64 {
		errs = append(errs, fmt.Errorf("infer.threads: %d, wants 1 to 64", c.Infer.Threads))
	}
	errs = append(errs, oneOf("infer.dla", c.Infer.DLA, "auto", "off"))
	if c.Infer.EngineCache != "" && !filepath.IsAbs(c.Infer.EngineCache) {
		errs = append(errs, fmt.Errorf("infer.engine_cache: %q is not an absolute path", c.Infer.EngineCache))
	}
	if c.Infer.EngineCacheMiB < 64 || c.Infer.EngineCacheMiB > 1<<20 {
		errs = append(errs, fmt.Errorf("infer.engine_cache_mib: %d, wants 64 to %d", c.Infer.EngineCacheMiB, 1<<20))
	}
	if c.Infer.MaxBatch < 1 || c.Infer.MaxBatch > 64 {
		errs = append(errs, fmt.Errorf("infer.max_batch: %d, wants 1 to 64", c.Infer.MaxBatch))
	}
	if c.Infer.Mode == "child" && c.Infer.Program == "" {
		errs = append(errs, errors.New("infer.program: is empty; mode child wants the path of fulmar-infer"))
	}
	if len(c.Models) > maxModels || len(c.Cameras) > maxCameras {
		errs = append(errs, fmt.Errorf("%d models and %d cameras, at most %d and %d", len(c.Models), len(c.Cameras), maxModels, maxCameras))
	}
	models := map[string]bool{}
	for i, m := range c.Models {
		errs = append(errs, within(fmt.Sprintf("models[%d]", i), m.validate(models)))
		models[m.Name] = true
	}
	names := map[string]bool{}
	for i, cam := range c.Cameras {
		errs = append(errs, within(fmt.Sprintf("cameras[%d]", i), cam.validate(models, names)))
		names[cam.Name] = true
	}
	return errors.Join(errs...)
}

func (m *Model) validate(seen map[string]bool) error {
	if err := schema.CheckBoard(m.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if seen[m.Name] {
		return fmt.Errorf("name: %q is there twice", m.Name)
	}
	if !filepath.IsAbs(m.Path) && !strings.HasPrefix(m.Path, "builtin:") {
		return fmt.Errorf("path: %q is neither an absolute path nor builtin:NAME", m.Path)
	}
	return oneOf("engine", m.Engine, "", worker.EngineAuto, worker.EngineONNX, worker.EngineTensorRT)
}

func (cam *Camera) validate(models, seen map[string]bool) error {
	if err := schema.CheckBoard(cam.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if seen[cam.Name] {
		return fmt.Errorf("name: %q is there twice", cam.Name)
	}
	if err := oneOf("kind", cam.Kind, "files", "scene"); err != nil {
		return err
	}
	if cam.Kind == "files" && !filepath.IsAbs(cam.Path) {
		return fmt.Errorf("path: %q is not an absolute path of a folder of pictures", cam.Path)
	}
	if cam.FPS <= 0 || cam.FPS > 240 {
		return fmt.Errorf("fps: %v, wants more than 0 and at most 240", cam.FPS)
	}
	if !models[cam.Model] {
		return fmt.Errorf("model: %q is not among the models", cam.Model)
	}
	if cam.EventEvery < 0 || cam.SnapshotEvery < 0 {
		return errors.New("event_every, snapshot_every: may not be negative")
	}
	return nil
}

// Setup gives the worker's part of the config.
func (c *Config) Setup() worker.Setup {
	s := worker.Setup{
		BlobDir:   c.BlobDir(),
		BlobQuota: c.Spool.PicturesMiB << 20,
		Threads:   c.Infer.Threads,
		Engines: worker.Engines{
			Cache: c.EngineDir(), Quota: c.Infer.EngineCacheMiB << 20,
			DLA: c.Infer.DLA == "auto", MaxBatch: c.Infer.MaxBatch,
		},
	}
	for _, m := range c.Models {
		s.Models = append(s.Models, worker.Model{Name: m.Name, Path: m.Path, Variant: m.Variant, Engine: m.Engine})
	}
	paused := map[string]bool{}
	for _, m := range c.Models {
		paused[m.Name] = m.Paused
	}
	for _, cam := range c.Cameras {
		if paused[cam.Model] {
			continue // the model stays loaded, so that it looks again at once
		}
		s.Cameras = append(s.Cameras, worker.Camera{
			Name: cam.Name, Kind: cam.Kind, Path: cam.Path, FPS: cam.FPS, Seed: cam.Seed, Density: cam.Density,
			Model: cam.Model, EventEvery: cam.EventEvery, SnapshotEvery: cam.SnapshotEvery,
		})
	}
	return s
}

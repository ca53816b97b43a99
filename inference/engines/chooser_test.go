// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/inference"
	"fulmar/inference/engines/build"
	"fulmar/inference/engines/cache"
	"fulmar/inference/model"
	"fulmar/inference/ort"
	"fulmar/inference/worker"
	"fulmar/models/parcels"
)

// fake is a TensorRT whose engines are ONNX Runtime's, or fail as the test says.
type fake struct {
	cpu  func(b []byte, threads int) (model.Engine, error)
	fail error
	// blind engines find nothing; lossy ones lose the device at the n-th run.
	blind bool
	lossy int32
	onnx  []byte
}

func (f *fake) Device() cache.Device {
	return cache.Device{Flavour: "TensorRT", Version: "10.3.0", Name: "Fake", ComputeCapability: "8.7", SMs: 16, Memory: 8 << 30, Parser: true, Driver: "12.6"}
}

func (f *fake) Load(_ []byte, _ int, lost func(error)) (model.Engine, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	e, err := f.cpu(f.onnx, 1)
	return &fakeEngine{Engine: e, f: f, lost: lost}, err
}

type fakeEngine struct {
	model.Engine
	f    *fake
	lost func(error)
	runs atomic.Int32
}

func (e *fakeEngine) Run(ctx context.Context) error {
	if n := e.f.lossy; n > 0 && e.runs.Add(1) >= n {
		err := fmt.Errorf("%w: as asked", inference.ErrDeviceLost)
		e.lost(err)
		return err
	}
	err := e.Engine.Run(ctx)
	if e.f.blind {
		for _, t := range e.Outputs() {
			clear(t.Float32())
		}
	}
	return err
}

// runtimeOf opens ONNX Runtime once for all tests.
func runtimeOf(t *testing.T) *ort.Runtime {
	t.Helper()
	path := os.Getenv("FULMAR_ORT")
	if path == "" {
		arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
		path = filepath.Join("..", "..", ".cache", "onnxruntime", ort.Version, "linux-"+arch, "libonnxruntime.so.1")
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no ONNX Runtime at %s: run cross/ort/fetch", path)
		}
		t.Skipf("no ONNX Runtime at %s: run cross/ort/fetch", path)
	}
	rt, err := ort.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// What becomes of a cached engine that cannot be taken into use, case by case, and
// what its record says afterwards.
func TestCachedEngineFails(t *testing.T) {
	rt := runtimeOf(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	cpu := func(b []byte, threads int) (model.Engine, error) {
		return rt.NewSession(b, ort.Options{Threads: threads})
	}
	p, err := model.Open(parcels.Files())
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := build.Fingerprint(parcels.Files())
	if err != nil {
		t.Fatal(err)
	}
	v := p.Manifest.Variants[0]
	onnx, err := fs.ReadFile(parcels.Files(), v.File)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		gpu    fake
		before func(c *cache.Cache, id string) error
		engine string // of what runs; "": an error
		note   string
		has    bool // the engine is in the cache after it
		record string
		lost   bool
	}{
		{name: "good", engine: "tensorrt/int8", has: true},
		{name: "of another GPU", gpu: fake{fail: build.ErrPlan}, engine: "onnxruntime-cpu/int8", note: beingBuilt},
		{name: "no memory", gpu: fake{fail: build.ErrMemory}, engine: "onnxruntime-cpu/int8", note: "not enough memory", has: true},
		{name: "blind", gpu: fake{blind: true}, engine: "onnxruntime-cpu/int8", note: "golden check not passed", record: "its engine is refused"},
		{name: "device lost", gpu: fake{lossy: 1}, has: true, lost: true},
		{name: "refused before", before: func(c *cache.Cache, id string) error { return c.Refuse(id, "", "no op Foo") }, engine: "onnxruntime-cpu/int8", note: "no op Foo", has: true, record: "no op Foo"},
		{name: "refused by another model.yaml", before: func(c *cache.Cache, id string) error { return c.Refuse(id, "other", "gate") }, engine: "tensorrt/int8", has: true, record: "gate"},
		{name: "judged by another model.yaml", before: func(c *cache.Cache, id string) error {
			m, err := c.Meta(id)
			if err != nil {
				return err
			}
			m.Package = "other"
			return c.Put(*m, []byte("plan"))
		}, engine: "onnxruntime-cpu/int8", note: beingBuilt, has: true},
		{name: "damaged", before: func(c *cache.Cache, id string) error {
			return os.Truncate(filepath.Join(c.Dir(), id, "plan"), 1)
		}, engine: "onnxruntime-cpu/int8", note: beingBuilt},
		{name: "disk is read-only for records", before: func(c *cache.Cache, id string) error {
			return os.Mkdir(filepath.Join(c.Dir(), id+".record.json"), 0o700)
		}, engine: "tensorrt/int8", has: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			gpu := c.gpu
			gpu.cpu, gpu.onnx = cpu, onnx
			kept, err := cache.Open(t.TempDir(), 0, log)
			if err != nil {
				t.Fatal(err)
			}
			d := gpu.Device()
			key := cache.NewKey(v.SHA256, v.Precision, &d, "", cache.Options{MaxBatch: 1, Level: -1, DLACore: -1})
			id := key.ID()
			if err := kept.Put(cache.Meta{Key: key, Package: pkg}, []byte("plan")); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				if err := c.before(kept, id); err != nil {
					t.Fatal(err)
				}
			}
			ch := NewChooser(Config{
				Files: func(string) (fs.FS, func() error, error) { return parcels.Files(), func() error { return nil }, nil },
				CPU:   cpu, CPUVersion: func() string { return "ONNX Runtime" },
				GPU: func() (GPU, error) { return &gpu, nil }, Root: t.TempDir(), Log: log,
			})
			ch.Keep(worker.Engines{Cache: kept.Dir(), MaxBatch: 1})
			l, err := ch.Load(t.Context(), worker.Model{Name: "m", Path: "builtin:parcels"}, 1)
			if c.engine == "" {
				if err == nil || errors.Is(err, inference.ErrDeviceLost) != c.lost {
					t.Fatalf("error %v", err)
				}
			} else if err != nil || l.Engine != c.engine || !strings.Contains(l.Notes.Fallback, c.note) || (c.note == "") != (l.Notes.Fallback == "") {
				t.Fatalf("error %v, loaded %+v", err, l)
			}
			if kept.Has(id) != c.has {
				t.Errorf("the engine is in the cache: %v", kept.Has(id))
			}
			if l != nil {
				if tries := kept.Record(id).Tries; l.Engine == "tensorrt/int8" && c.before == nil && tries != 1 {
					t.Errorf("%d tries while it runs", tries)
				}
				if err := l.Close(); err != nil && c.before == nil {
					t.Error(err)
				}
			}
			r := kept.Record(id)
			want := 0
			if c.lost {
				want = 1
			}
			if why := r.Barred(); !strings.Contains(why, c.record) || (c.record == "") != (why == "") || r.Tries != want {
				t.Errorf("record %+v", r)
			}
		})
	}
	t.Run("two models of one engine", func(t *testing.T) { twoUsers(t, &fake{cpu: cpu, onnx: onnx}, log) })
	t.Run("lost while it runs", func(t *testing.T) {
		lostWhileRunning(t, &fake{cpu: cpu, onnx: onnx, lossy: int32(len(p.Manifest.Golden)) + 1}, log)
	})
	t.Run("neither", func(t *testing.T) {
		broken := func([]byte, int) (model.Engine, error) { return nil, errors.New("no ONNX Runtime") }
		ch := NewChooser(Config{
			Files: func(string) (fs.FS, func() error, error) { return parcels.Files(), func() error { return nil }, nil },
			CPU:   broken, CPUVersion: func() string { return "" }, Log: log,
			GPU: func() (GPU, error) { return nil, build.ErrAbsent },
		})
		_, err := ch.Load(t.Context(), worker.Model{Name: "m", Path: "p"}, 1)
		if err == nil || !strings.Contains(err.Error(), "no ONNX Runtime") || !strings.Contains(err.Error(), "no TensorRT") {
			t.Errorf("both reasons are wanted: %v", err)
		}
	})
}

// A device lost in a run comes out of Tend, and closing does not forgive it.
func lostWhileRunning(t *testing.T, gpu *fake, log *slog.Logger) {
	ch, kept, id := stocked(t, gpu, log)
	l, err := ch.Load(t.Context(), worker.Model{Name: "m", Path: "p"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Detectors[0].Detect(t.Context(), image.NewRGBA(image.Rect(0, 0, 64, 64)), nil); !errors.Is(err, inference.ErrDeviceLost) {
		t.Errorf("the run: %v", err)
	}
	if next, err := l.Tend(t.Context(), func(inference.Notes) {}); next != nil || !errors.Is(err, inference.ErrDeviceLost) {
		t.Errorf("Tend: %v", err)
	}
	if err := l.Close(); !errors.Is(err, inference.ErrDeviceLost) {
		t.Errorf("Close: %v", err)
	}
	if r := kept.Record(id); r.Tries != 1 {
		t.Errorf("record %+v", r)
	}
}

// stocked is a chooser whose cache has the engine.
func stocked(t *testing.T, gpu *fake, log *slog.Logger) (*Chooser, *cache.Cache, string) {
	t.Helper()
	kept, err := cache.Open(t.TempDir(), 0, log)
	if err != nil {
		t.Fatal(err)
	}
	p, err := model.Open(parcels.Files())
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := build.Fingerprint(parcels.Files())
	if err != nil {
		t.Fatal(err)
	}
	v, d := p.Manifest.Variants[0], gpu.Device()
	key := cache.NewKey(v.SHA256, v.Precision, &d, "", cache.Options{MaxBatch: 1, Level: -1, DLACore: -1})
	id := key.ID()
	if err := kept.Put(cache.Meta{Key: key, Package: pkg}, []byte("plan")); err != nil {
		t.Fatal(err)
	}
	ch := NewChooser(Config{
		Files: func(string) (fs.FS, func() error, error) { return parcels.Files(), func() error { return nil }, nil },
		CPU:   gpu.cpu, CPUVersion: func() string { return "" },
		GPU: func() (GPU, error) { return gpu, nil }, Root: t.TempDir(), Log: log, good: 50 * time.Millisecond,
	})
	ch.Keep(worker.Engines{Cache: kept.Dir(), MaxBatch: 1})
	return ch, kept, id
}

// Two models with one engine are one try; a minute of running forgives it, an orderly
// end too.
func twoUsers(t *testing.T, gpu *fake, log *slog.Logger) {
	ch, kept, id := stocked(t, gpu, log)
	var all []*inference.Loaded
	for _, name := range []string{"a", "b"} {
		l, err := ch.Load(t.Context(), worker.Model{Name: name, Path: "p"}, 1)
		if err != nil || l.Engine != "tensorrt/int8" {
			t.Fatal(l, err)
		}
		all = append(all, l)
	}
	if n := kept.Record(id).Tries; n != 1 {
		t.Errorf("%d tries for one process", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := all[0].Tend(ctx, func(inference.Notes) {})
		done <- err
	}()
	for end := time.Now().Add(10 * time.Second); kept.Record(id).Tries != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not forgiven")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if l := kept.List(); len(l) != 1 || !l[0].InUse {
		t.Errorf("cache %+v", l)
	}
	for _, l := range all {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if l := kept.List(); len(l) != 1 || l[0].InUse {
		t.Errorf("after the end: %+v", l)
	}
}

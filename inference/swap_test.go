// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/inference/worker"
	"fulmar/schema"
)

// watched is a detector that knows when it is used after its end.
type watched struct {
	t      *testing.T
	took   time.Duration
	using  atomic.Int32
	runs   atomic.Int32
	closed atomic.Bool
}

func (w *watched) Detect(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
	if w.closed.Load() {
		w.t.Error("a closed engine was used")
	}
	w.using.Add(1)
	defer w.using.Add(-1)
	time.Sleep(w.took)
	w.runs.Add(1)
	return oneBox(ctx, img, dst)
}

func (w *watched) Close() error {
	if w.using.Load() > 0 || w.closed.Swap(true) {
		w.t.Error("an engine was closed while it was used, or twice")
	}
	return nil
}

func (w *watched) loaded(engine string) *Loaded {
	return &Loaded{Detectors: []Detector{w}, Version: "1", Engine: engine, EngineVersion: engine + " on Test", Close: w.Close}
}

// A better engine takes over under full load: no frame is lost that would not have
// been, none is looked at twice, events stay in order, each engine is closed once and
// unused.
func TestEngineTakesOverUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := &watched{t: t, took: 90 * time.Millisecond}
		fast := &watched{t: t, took: 7 * time.Millisecond}
		r := newRig(nil)
		r.cfg.Open = smallScene
		r.cfg.Load = func(context.Context, worker.Model, int) (*Loaded, error) {
			l := slow.loaded("slow/none")
			l.Notes = Notes{Build: "waiting", Fallback: "not built"}
			l.Tend = func(ctx context.Context, say func(Notes)) (*Loaded, error) {
				for n := range 10 {
					say(Notes{Build: fmt.Sprintf("building, %d %%", 10*n), Fallback: "not built"})
					if !sleep(ctx, time.Second) {
						return nil, nil
					}
				}
				return fast.loaded("fast/none"), nil
			}
			return l, nil
		}
		var cams []worker.Camera
		for n := range 3 {
			cams = append(cams, worker.Camera{Name: fmt.Sprint("cam", n), Kind: "scene", FPS: 10})
		}
		r.during(t, setup(cams...), func() {
			time.Sleep(5500 * time.Millisecond)
			m := r.Status().Models[0]
			if m.State != "ready" || m.Engine != "slow/none" || m.Build != "building, 50 %" || m.Fallback != "not built" || m.EngineVersion != "slow/none on Test" {
				t.Errorf("during the build: %+v", m)
			}
			time.Sleep(14500 * time.Millisecond)
			m = r.Status().Models[0]
			if m.State != "ready" || m.Engine != "fast/none" || m.Build != "" || m.Fallback != "" || m.EngineVersion != "fast/none on Test" {
				t.Errorf("after the build: %+v", m)
			}
			if !slow.closed.Load() || fast.closed.Load() {
				t.Error("the old one is open or the new one closed")
			}
			inferred := uint64(0)
			for n := range 3 {
				c := r.camera(t, fmt.Sprint("cam", n))
				if c.Bad > 0 || c.State != "running" || c.Frames-c.Inferred-c.Late > 1 {
					t.Errorf("%d frames, %d inferred, %d late, %d bad, %s", c.Frames, c.Inferred, c.Late, c.Bad, c.State)
				}
				inferred += c.Inferred
			}
			// 10 s at 11 a second for all three together, then all that they give.
			if !near(inferred, 111+300, 8) {
				t.Errorf("%d frames looked at, wants about 411", inferred)
			}
			if n := uint64(slow.runs.Load() + fast.runs.Load()); n != inferred {
				t.Errorf("%d runs for %d frames", n, inferred)
			}
		})
		if !fast.closed.Load() {
			t.Error("the new engine was left open")
		}
		last, engines := map[string]uint64{}, map[string]string{}
		for _, res := range r.sent() {
			e := res.Event
			if e.Frame <= last[e.Source] && last[e.Source] != 0 || engines[e.Source] == "fast/none" && e.Engine != "fast/none" {
				t.Errorf("frame %d of %s by %s after frame %d by %s", e.Frame, e.Source, e.Engine, last[e.Source], engines[e.Source])
			}
			last[e.Source], engines[e.Source] = e.Frame, e.Engine
		}
	})
}

// What a Tend does wrong costs its model nothing; a model without a detector waits.
func TestTendFaults(t *testing.T) {
	t.Parallel()
	for name, tend := range map[string]func(context.Context, func(Notes)) (*Loaded, error){
		"panic": func(context.Context, func(Notes)) (*Loaded, error) { panic("oh") },
		"error": func(context.Context, func(Notes)) (*Loaded, error) { return nil, errors.New("no") },
		"none":  func(context.Context, func(Notes)) (*Loaded, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &watched{t: t}
				r := newRig(nil)
				r.cfg.Open = smallScene
				r.cfg.Load = func(context.Context, worker.Model, int) (*Loaded, error) {
					l := w.loaded("a/b")
					l.Tend = tend
					return l, nil
				}
				r.during(t, setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 10}), func() {
					time.Sleep(10 * time.Second)
					if c := r.camera(t, "cam0"); !near(c.Inferred, 100, 2) || r.Status().Models[0].State != "ready" {
						t.Errorf("%+v", c)
					}
				})
				if !w.closed.Load() {
					t.Error("left open")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t}
		r := newRig(nil)
		r.cfg.Open = smallScene
		r.cfg.Load = func(context.Context, worker.Model, int) (*Loaded, error) {
			return &Loaded{Close: func() error { return nil }, Tend: func(ctx context.Context, say func(Notes)) (*Loaded, error) {
				say(Notes{Build: "building, 1 %"})
				if !sleep(ctx, 5*time.Second) {
					return nil, nil
				}
				return w.loaded("a/b"), nil
			}}, nil
		}
		r.during(t, setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 10}), func() {
			time.Sleep(4 * time.Second)
			if m := r.Status().Models[0]; m.State != "loading" || m.Build != "building, 1 %" {
				t.Errorf("before the build: %+v", m)
			}
			time.Sleep(6 * time.Second)
			if m := r.Status().Models[0]; m.State != "ready" || w.runs.Load() < 45 {
				t.Errorf("after the build: %+v, %d runs", m, w.runs.Load())
			}
		})
	})
}

// A lost device ends the pipeline with its error, after the status could say so; other
// models are closed in order.
func TestLostDeviceEndsThePipeline(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"load", "tend"} {
		synctest.Test(t, func(t *testing.T) {
			other := &watched{t: t}
			r := newRig(nil)
			r.cfg.Open = smallScene
			lost := fmt.Errorf("run engine: %w: launch failed", ErrDeviceLost)
			r.cfg.Load = func(_ context.Context, m worker.Model, _ int) (*Loaded, error) {
				switch {
				case m.Name == "other":
					return other.loaded("a/b"), nil
				case when == "load":
					time.Sleep(10 * time.Second)
					return nil, lost
				}
				l := (&watched{t: t}).loaded("a/b")
				l.Close = func() error { t.Error("what is lost was closed"); return nil }
				l.Tend = func(context.Context, func(Notes)) (*Loaded, error) {
					time.Sleep(10 * time.Second)
					return nil, lost
				}
				return l, nil
			}
			r.cfg.Clock, r.cfg.Log = schema.NewClock(1, time.Hour), slog.New(slog.DiscardHandler)
			p := New(r.cfg)
			done := make(chan error, 1)
			go func() { done <- p.Run(t.Context()) }()
			p.Apply(setup(worker.Camera{Name: "c", Kind: "scene", FPS: 5, Model: "m"}, worker.Camera{Name: "d", Kind: "scene", FPS: 5, Model: "other"}))
			time.Sleep(11 * time.Second)
			if m := p.Status().Models[0]; m.State != "refused" || !strings.Contains(m.Error, "GPU lost") {
				t.Errorf("status %+v", m)
			}
			if err := <-done; !errors.Is(err, ErrDeviceLost) {
				t.Errorf("Run: %v", err)
			}
			if !other.closed.Load() {
				t.Error("the other model was left open")
			}
		})
	}
}

// Another way of keeping engines makes all models anew.
func TestEnginesOptionReloads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, loads := newRig(oneBox), 0
		load := r.cfg.Load
		var mu sync.Mutex
		var told []worker.Engines
		r.cfg.Engines = func(e worker.Engines) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, e)
		}
		r.cfg.Load = func(ctx context.Context, m worker.Model, n int) (*Loaded, error) {
			mu.Lock()
			defer mu.Unlock()
			loads++
			if len(told) != loads {
				t.Error("loaded before it was told")
			}
			return load(ctx, m, n)
		}
		s := setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 10})
		r.during(t, s, func() {
			time.Sleep(time.Second)
			s.Engines.MaxBatch = 8
			r.Apply(s)
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if loads != 2 || told[1].MaxBatch != 8 {
				t.Errorf("%d loads, told %+v", loads, told)
			}
		})
	})
}

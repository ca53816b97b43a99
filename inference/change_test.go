// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"image"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/inference/camera"
	"fulmar/inference/worker"
	"fulmar/schema"
)

// A new setup stops and starts what differs and nothing else, and a model is closed
// only when no camera's frame is in it.
func TestApplyChangesOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		opened, loaded, closed := map[string]*atomic.Int32{}, map[string]*atomic.Int32{}, map[string]*atomic.Int32{}
		for _, n := range []string{"a", "b", "c", "m1", "m2"} {
			opened[n], loaded[n], closed[n] = new(atomic.Int32), new(atomic.Int32), new(atomic.Int32)
		}
		r := newRig(nil)
		r.cfg.Open = func(c worker.Camera) (camera.Source, error) {
			opened[c.Name].Add(1)
			return smallScene(c)
		}
		r.cfg.Load = func(_ context.Context, m worker.Model, _ int) (*Loaded, error) {
			loaded[m.Name].Add(1)
			var gone, inside atomic.Bool
			return &Loaded{
				Detectors: []Detector{detectorFunc(func(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
					if inside.Swap(true) {
						t.Error("a model looks at two frames at once")
					}
					time.Sleep(70 * time.Millisecond)
					if gone.Load() {
						t.Error("a closed model is looked at")
					}
					inside.Store(false)
					return oneBox(ctx, img, dst)
				})},
				Close: func() error {
					if inside.Load() {
						t.Error("closed while a frame is in it")
					}
					gone.Store(true)
					closed[m.Name].Add(1)
					return nil
				},
			}, nil
		}
		is := func(what string, m map[string]*atomic.Int32, n string, want int32) {
			t.Helper()
			if got := m[n].Load(); got != want {
				t.Errorf("%s was %s %d times, want %d", n, what, got, want)
			}
		}
		s := setup(
			worker.Camera{Name: "a", Kind: "scene", FPS: 10, Model: "m1"},
			worker.Camera{Name: "b", Kind: "scene", FPS: 10, Model: "m2"},
		)
		r.during(t, s, func() {
			time.Sleep(5 * time.Second)
			r.Apply(s) // the same again
			time.Sleep(time.Second)
			is("opened", opened, "a", 1)
			is("loaded", loaded, "m1", 1)

			two := setup(
				worker.Camera{Name: "a", Kind: "scene", FPS: 10, Model: "m1"},
				worker.Camera{Name: "b", Kind: "scene", FPS: 20, Model: "m2"},
				worker.Camera{Name: "c", Kind: "scene", FPS: 10, Model: "m2"},
			)
			before := r.camera(t, "b").Frames
			r.Apply(two)
			time.Sleep(5 * time.Second)
			is("opened", opened, "a", 1)
			is("opened", opened, "b", 2)
			is("opened", opened, "c", 1)
			is("loaded", loaded, "m2", 1)
			if n := r.camera(t, "b").Frames - before; !near(n, 100, 5) {
				t.Errorf("b took %d frames in 5 s after its change: its counter or its rate is wrong", n)
			}

			three := setup(worker.Camera{Name: "a", Kind: "scene", FPS: 10, Model: "m1"})
			three.Models[0].Variant = "other"
			r.Apply(three)
			time.Sleep(time.Second)
			is("closed", closed, "m1", 1)
			is("closed", closed, "m2", 1)
			is("loaded", loaded, "m1", 2)
			is("opened", opened, "a", 1)
			st := r.Status()
			if len(st.Cameras) != 1 || len(st.Models) != 1 {
				t.Errorf("status %+v", st)
			}
			r.board.mu.Lock()
			if n := len(r.board.slots); n != 1 {
				t.Errorf("%d cameras have a slot", n)
			}
			r.board.mu.Unlock()
			n := st.Cameras[0].Inferred
			time.Sleep(time.Second)
			if m := r.camera(t, "a").Inferred; m-n < 8 {
				t.Errorf("%d frames looked at in a second after the model changed", m-n)
			}
		})
		is("closed", closed, "m1", 2)
		is("closed", closed, "m2", 1)
	})
}

// A refused model says why, its camera waits for it, the other one goes on, and when
// the model is mended it is taken without anybody's doing.
func TestRefusedModelHoldsUpOnlyItsCamera(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(oneBox)
		r.cfg.Open = smallScene
		good := r.cfg.Load
		var mended atomic.Bool
		r.cfg.Load = func(ctx context.Context, m worker.Model, n int) (*Loaded, error) {
			switch {
			case m.Name == "panics" && !mended.Load():
				panic("an engine that throws")
			case m.Name == "bad" && !mended.Load():
				return nil, errors.New("golden picture 1: box 3 is off by 14 pixels")
			}
			return good(ctx, m, n)
		}
		r.during(t, setup(
			worker.Camera{Name: "c-good", Kind: "scene", FPS: 2, Model: "good"},
			worker.Camera{Name: "c-bad", Kind: "scene", FPS: 2, Model: "bad"},
			worker.Camera{Name: "c-panics", Kind: "scene", FPS: 2, Model: "panics"},
		), func() {
			time.Sleep(30 * time.Second)
			if c := r.camera(t, "c-good"); !near(c.Inferred, 60, 2) || c.State != stateRunning {
				t.Errorf("c-good: %+v", c)
			}
			for _, n := range []string{"bad", "panics"} {
				if c := r.camera(t, "c-"+n); c.Frames != 0 || c.State != stateFailed || !strings.Contains(c.Error, n) {
					t.Errorf("camera of %s: %+v", n, c)
				}
			}
			for _, m := range r.Status().Models {
				switch {
				case m.Name == "good" && m.State != modelReady,
					m.Name == "bad" && (m.State != modelRefused || !strings.Contains(m.Error, "off by 14 pixels")),
					m.Name == "panics" && (m.State != modelRefused || !strings.Contains(m.Error, "throws")):
					t.Errorf("model %+v", m)
				}
			}
			mended.Store(true)
			time.Sleep(45 * time.Second) // tries are made after 10, 30 and 70 s
			for _, n := range []string{"c-bad", "c-panics"} {
				if c := r.camera(t, n); c.Inferred == 0 || c.State != stateRunning || c.Error != "" {
					t.Errorf("%s after the mending: %+v", n, c)
				}
			}
		})
	})
}

// Panics and errors of one camera's source or model are its own affair.
func TestFaultsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(oneBox)
		r.cfg.Open = func(c worker.Camera) (camera.Source, error) {
			src, err := smallScene(c)
			switch c.Name {
			case "throws":
				n := 0
				return spied{src, func(*camera.Frame) {
					if n++; n > 3 {
						panic("no such luck")
					}
				}}, err
			case "closed":
				return nil, os.ErrPermission
			}
			return src, err
		}
		good := r.cfg.Load
		r.cfg.Load = func(ctx context.Context, m worker.Model, n int) (*Loaded, error) {
			l, err := good(ctx, m, n)
			calls := 0
			switch m.Name {
			case "throwing":
				l.Detectors[0] = detectorFunc(func(context.Context, image.Image, []schema.Box) ([]schema.Box, error) { panic("nil map") })
			case "flaky":
				l.Detectors[0] = detectorFunc(func(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
					if calls++; calls%2 == 0 {
						return dst, errors.New("engine says 7")
					}
					return oneBox(ctx, img, dst)
				})
			}
			return l, err
		}
		r.during(t, setup(
			worker.Camera{Name: "fine", Kind: "scene", FPS: 5},
			worker.Camera{Name: "throws", Kind: "scene", FPS: 5},
			worker.Camera{Name: "closed", Kind: "scene", FPS: 5},
			worker.Camera{Name: "blind", Kind: "scene", FPS: 5, Model: "throwing"},
			worker.Camera{Name: "half", Kind: "scene", FPS: 5, Model: "flaky"},
		), func() {
			time.Sleep(20*time.Second + 50*time.Millisecond)
			if c := r.camera(t, "fine"); !near(c.Inferred, 100, 2) || c.State != stateRunning {
				t.Errorf("fine: %+v", c)
			}
			if c := r.camera(t, "half"); !near(c.Inferred, 50, 2) || !near(c.Bad, 50, 2) || c.State != stateRunning {
				t.Errorf("half: %+v", c)
			}
			for name, why := range map[string]string{"throws": "no such luck", "closed": "permission", "blind": "nil map"} {
				if c := r.camera(t, name); c.State != stateFailed || !strings.Contains(c.Error, why) {
					t.Errorf("%s: %+v", name, c)
				}
			}
			if c := r.camera(t, "throws"); c.Frames < 6 {
				t.Errorf("throws was not opened again: %+v", c)
			}
		})
	})
}

func TestStatsOverTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStats("cam0")
		for i := range 1000 { // 10 s at 100 a second; only the last 256 latencies count
			latency := time.Millisecond
			if i < 500 {
				latency = time.Second
			}
			s.inferred(latency, 0, 0, 0)
			time.Sleep(10 * time.Millisecond)
		}
		c := s.status()
		if c.FPS < 98 || c.FPS > 102 || c.P50Us != 1000 || c.P99Us != 1000 {
			t.Errorf("%+v", c)
		}
		time.Sleep(2 * time.Second)
		if c = s.status(); c.FPS < 55 || c.FPS > 65 {
			t.Errorf("2 s after the last frame: %.1f a second over 5 s", c.FPS)
		}
		time.Sleep(time.Hour)
		if c = s.status(); c.FPS != 0 || c.Inferred != 1000 {
			t.Errorf("after an hour: %+v", c)
		}
	})
}

func TestBoardClock(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, err := BoardClock(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no boot id: %v", err)
	}
	path := filepath.Join(root, "proc/sys/kernel/random/boot_id")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("bc07c270-75c8-4ed4-87fe-60ddd9ddb1a0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := BoardClock(root)
	if err != nil || c.Boot() != 0xbc07c27075c84ed4 || c.Now().Mono <= 0 {
		t.Errorf("boot %x at %d, %v", c.Boot(), c.Now().Mono, err)
	}
	if err := os.WriteFile(path, []byte("bc07\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := BoardClock(root); err == nil {
		t.Error("half a boot id was taken")
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"fmt"
	"image"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/inference/camera"
	"fulmar/inference/worker"
	"fulmar/schema"
)

// costly is a model of a known cost: a run of n pictures takes fixed + n*each.
type costly struct {
	most        int
	fixed, each time.Duration
	look        func(img image.Image) error // nil: sees one box everywhere

	mu    sync.Mutex
	sizes []int // of the runs
}

func (c *costly) MaxBatch() int { return c.most }

func (c *costly) Detect(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
	errs, boxes := make([]error, 1), [][]schema.Box{dst}
	c.DetectBatch(ctx, []image.Image{img}, boxes, errs)
	return boxes[0], errs[0]
}

func (c *costly) DetectBatch(ctx context.Context, imgs []image.Image, dst [][]schema.Box, errs []error) {
	c.mu.Lock()
	c.sizes = append(c.sizes, len(imgs))
	c.mu.Unlock()
	if len(imgs) > c.most {
		panic("more pictures than it can take")
	}
	time.Sleep(c.fixed + time.Duration(len(imgs))*c.each)
	for i, img := range imgs {
		if c.look != nil {
			if errs[i] = c.look(img); errs[i] != nil {
				continue
			}
		}
		dst[i], errs[i] = oneBox(ctx, img, dst[i])
	}
}

// ticking is a camera that costs nothing: its frames come on time from start on.
type ticking struct {
	img    image.Image
	next   time.Time
	period time.Duration
	n      uint64
}

func (s *ticking) Next(ctx context.Context) (*camera.Frame, error) {
	if !sleep(ctx, time.Until(s.next)) {
		return nil, ctx.Err()
	}
	at := s.next
	s.next = at.Add(s.period)
	s.n++
	return &camera.Frame{Image: s.img, Number: s.n, At: at}, nil
}
func (s *ticking) Close() error { return nil }

// crowd makes a rig of ticking cameras, the first frame of each after its phase.
func crowd(phase func(name string) time.Duration, units ...Detector) *rig {
	r := newRig(nil)
	r.cfg.Load = func(context.Context, worker.Model, int) (*Loaded, error) {
		return &Loaded{Detectors: units, OnDevice: true, Version: "1", Engine: "test/none", Close: func() error { return nil }}, nil
	}
	r.cfg.Open = func(c worker.Camera) (camera.Source, error) {
		return &ticking{
			img:  image.NewGray(image.Rect(0, 0, 8, 8)),
			next: time.Now().Add(phase(c.Name)), period: time.Duration(float64(time.Second) / c.FPS),
		}, nil
	}
	return r
}

func together(string) time.Duration { return 0 }

// scattered spreads cameras over a tenth of a second by their names.
func scattered(name string) time.Duration {
	h := uint32(2166136261)
	for _, c := range []byte(name) {
		h = (h ^ uint32(c)) * 16777619
	}
	return time.Duration(h%100_000) * time.Microsecond
}

func cams(n int, prefix string, fps float64) (out []worker.Camera) {
	for i := range n {
		out = append(out, worker.Camera{Name: fmt.Sprint(prefix, i), Kind: "scene", FPS: fps})
	}
	return out
}

// totals runs a crowd for a while and adds up what its cameras tell.
func totals(t *testing.T, r *rig, for_ time.Duration, cameras ...worker.Camera) (sum worker.CameraStatus, of map[string]worker.CameraStatus) {
	t.Helper()
	of = map[string]worker.CameraStatus{}
	r.during(t, setup(cameras...), func() {
		time.Sleep(for_)
		synctest.Wait()
		for _, c := range r.Status().Cameras {
			of[c.Name] = c
			sum.Frames += c.Frames
			sum.Inferred += c.Inferred
			sum.Late += c.Late
			sum.Bad += c.Bad
			sum.P99Us = max(sum.P99Us, c.P99Us) // of the camera that waits longest
		}
	})
	return sum, of
}

// The frames of eight cameras that come together are looked at together, each of
// them once, and each camera has its events.
func TestBatchAcrossCameras(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &costly{most: 8, fixed: 10 * time.Millisecond, each: time.Millisecond}
		r := crowd(together, d)
		var frames, runs uint64
		r.during(t, setup(cams(8, "c", 10)...), func() {
			time.Sleep(10*time.Second + 50*time.Millisecond)
			r.Pipeline.mu.Lock()
			m := r.models["m"]
			r.Pipeline.mu.Unlock()
			frames, runs = m.work.counts()
			for i := range 8 {
				c := r.camera(t, fmt.Sprint("c", i))
				if c.Late != 0 || c.Bad != 0 || !near(c.Inferred, 101, 1) || c.P99Us > 29_000 {
					t.Errorf("%+v", c)
				}
			}
		})
		// The first of them may find the model free, the others are taken after it.
		if !near(frames, 808, 8) || runs > 210 {
			t.Errorf("%d frames in %d runs; want about 808 in at most 202", frames, runs)
		}
		last := map[string]uint64{}
		for _, res := range r.sent() {
			if e := res.Event; e.Frame != last[e.Source]+1 || len(e.Boxes) != 1 {
				t.Errorf("%s: event of frame %d after %d, %d boxes", e.Source, e.Frame, last[e.Source], len(e.Boxes))
			}
			last[res.Event.Source] = res.Event.Frame
		}
		if len(last) != 8 {
			t.Errorf("events of %d cameras", len(last))
		}
	})
}

// A camera that is alone never waits for others: its frames take a run of one.
func TestLoneCameraIsNotDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &costly{most: 16, fixed: 5 * time.Millisecond, each: time.Millisecond}
		c, _ := totals(t, crowd(together, d), 10*time.Second, cams(1, "c", 30)...)
		if c.Late != 0 || c.P99Us != 6000 || !near(c.Inferred, 300, 2) {
			t.Errorf("%+v; want each frame after 6 ms", c)
		}
		if slices.Max(d.sizes) != 1 {
			t.Errorf("a run of %d", slices.Max(d.sizes))
		}
	})
}

// A model that is faster a picture in batches of four holds more than twice the
// frames under load, and no camera loses more of its own than without.
func TestBatchesCarryMore(t *testing.T) {
	t.Parallel()
	run := func(most int) (sum worker.CameraStatus, of map[string]worker.CameraStatus) {
		synctest.Test(t, func(t *testing.T) {
			d := &costly{most: most, fixed: 8 * time.Millisecond, each: 2 * time.Millisecond}
			sum, of = totals(t, crowd(scattered, d), 20*time.Second, cams(8, "c", 30)...)
		})
		return sum, of
	}
	one, oneOf := run(1)
	four, fourOf := run(4)
	t.Logf("of %d frames: one by one %d looked at, %d late, p99 %d us; by four %d, %d, %d us",
		one.Frames, one.Inferred, one.Late, one.P99Us, four.Inferred, four.Late, four.P99Us)
	// At most a frame time in the slot and a run.
	if four.Inferred < 2*one.Inferred || four.Late > one.Late/20 || four.P99Us > 33_334+16_000 {
		t.Error("batches do not pay")
	}
	for name, c := range fourOf {
		if c.Late > oneOf[name].Late {
			t.Errorf("%s: %d late in batches, %d one by one", name, c.Late, oneOf[name].Late)
		}
	}
}

// A run for many slow cameras would hold up a fast one: it is cut to the fast one's
// frame time, so that a frame that comes when it has just begun is still in time.
func TestFastCameraAmongSlowOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &costly{most: 16, fixed: 2 * time.Millisecond, each: 3 * time.Millisecond}
		r := crowd(func(name string) time.Duration {
			if name == "fast0" {
				return time.Millisecond // just after the others
			}
			return 0
		}, d)
		_, of := totals(t, r, 20*time.Second, append(cams(1, "fast", 60), cams(12, "slow", 2)...)...)
		if c := of["fast0"]; c.Late > 3 { // before the first runs were measured
			t.Errorf("fast: %+v", c)
		}
		for name, c := range of {
			if name != "fast0" && (c.Late > 0 || c.Inferred < 40) {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if n := slices.Max(d.sizes[5:]); n < 2 {
			t.Error("no run was for more than one")
		}
	})
}

// Whatever the costs and the cameras: in batches not more frames are late than one by
// one, but for the few before the costs are known and those that chance shifts.
func TestBatchesLoseNoMore(t *testing.T) {
	t.Parallel()
	seeds := 60
	if testing.Short() {
		seeds = 15
	}
	better, loaded, before, after := 0, 0, 0, 0
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 9))
		var cameras []worker.Camera
		for i := range 1 + rnd.IntN(16) {
			cameras = append(cameras, cams(1, fmt.Sprint("c", i, "-"), []float64{2, 5, 10, 15, 25, 30, 60}[rnd.IntN(7)])...)
		}
		fixed := time.Duration(rnd.IntN(20_000)) * time.Microsecond
		each := time.Duration(rnd.IntN(8_000)) * time.Microsecond
		phase := []func(string) time.Duration{together, scattered}[rnd.IntN(2)]
		var late [2]worker.CameraStatus
		for i, most := range []int{1, []int{2, 4, 8, 16}[rnd.IntN(4)]} {
			synctest.Test(t, func(t *testing.T) {
				late[i], _ = totals(t, crowd(phase, &costly{most: most, fixed: fixed, each: each}), 10*time.Second, cameras...)
			})
		}
		before, after = before+int(late[0].Late), after+int(late[1].Late)
		if late[0].Late > 10 {
			loaded++
			if late[1].Late < late[0].Late*9/10 {
				better++
			}
		}
		if late[1].Late > late[0].Late+late[0].Frames/100+2 {
			t.Errorf("seed %d, %d cameras, %v + n*%v: %d of %d frames late in batches, %d one by one",
				seed, len(cameras), fixed, each, late[1].Late, late[1].Frames, late[0].Late)
		}
	}
	t.Logf("of %d crowds with late frames %d have at least a tenth fewer in batches; %d late in all, %d in batches", loaded, better, before, after)
	if better < loaded/2 {
		t.Error("batches hardly help")
	}
}

// Three cameras of very different rates share a model with too much to do in batches
// of two: nobody starves, and what is looked at is always the newest.
func TestBatchesStarveNobodyAndNeverLag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &costly{most: 2, fixed: 80 * time.Millisecond, each: 20 * time.Millisecond}
		sum, of := totals(t, crowd(scattered, d), 30*time.Second, append(cams(4, "fast", 30), cams(1, "slow", 1)...)...)
		if of["slow0"].Inferred < 28 {
			t.Errorf("the slow camera had %d of %d frames looked at", of["slow0"].Inferred, of["slow0"].Frames)
		}
		for i := range 4 {
			c := of[fmt.Sprint("fast", i)]
			if !near(c.Inferred, int(sum.Inferred-of["slow0"].Inferred)/4, 10) {
				t.Errorf("%s had %d frames looked at of %d for all", c.Name, c.Inferred, sum.Inferred)
			}
			// A frame time in the slot and 120 ms of model.
			if c.P99Us > 34_000+120_000 {
				t.Errorf("%s: p99 %d us, old frames are looked at", c.Name, c.P99Us)
			}
		}
		if !near(sum.Inferred, 500, 12) {
			t.Errorf("%d frames looked at, want about 500", sum.Inferred)
		}
		if sum.Frames-sum.Inferred-sum.Late > 10 {
			t.Errorf("%d frames unaccounted for", sum.Frames-sum.Inferred-sum.Late)
		}
	})
}

// A frame in a batch that cannot be looked at, or whose look panics, is its own
// camera's affair.
func TestBadFrameInABatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &costly{most: 8, fixed: time.Millisecond, each: time.Millisecond, look: func(img image.Image) error {
			switch img.Bounds().Dx() {
			case 1:
				return errors.New("no such picture")
			case 2:
				panic("index out of range")
			}
			return nil
		}}
		r := crowd(together, d)
		open := r.cfg.Open
		r.cfg.Open = func(c worker.Camera) (camera.Source, error) {
			src, err := open(c)
			if w := map[string]int{"bad0": 1, "wild0": 2}[c.Name]; w > 0 {
				src.(*ticking).img = image.NewGray(image.Rect(0, 0, w, 8))
			}
			return src, err
		}
		_, of := totals(t, r, 10*time.Second+50*time.Millisecond, append(cams(4, "c", 10), append(cams(1, "bad", 10), cams(1, "wild", 10)...)...)...)
		for name, c := range of {
			switch {
			case name == "bad0" && (!near(c.Bad, 101, 1) || c.Inferred != 0 || !strings.Contains(c.Error, "no such picture")),
				name == "wild0" && (!near(c.Bad, 101, 1) || c.Inferred != 0 || !strings.Contains(c.Error, "index out of range")),
				name[0] == 'c' && (c.Bad != 0 || c.Late != 0 || !near(c.Inferred, 101, 1) || c.Error != ""):
				t.Errorf("%+v", c)
			}
		}
	})
}

// Two units of a model work side by side, and no camera has frames in both.
func TestUnitsSideBySide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		inside, most := map[image.Image]bool{}, 0
		unit := detectorFunc(func(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
			mu.Lock()
			if inside[img] {
				t.Error("two frames of a camera are looked at at once")
			}
			inside[img] = true
			most = max(most, len(inside))
			mu.Unlock()
			time.Sleep(50 * time.Millisecond)
			mu.Lock()
			delete(inside, img)
			mu.Unlock()
			return oneBox(ctx, img, dst)
		})
		sum, _ := totals(t, crowd(scattered, unit, unit), 10*time.Second, cams(4, "c", 30)...)
		if !near(sum.Inferred, 400, 8) || most != 2 {
			t.Errorf("%d frames in 10 s by two units of 20 a second, %d at once", sum.Inferred, most)
		}
		clear(inside)
		most = 0
		sum, _ = totals(t, crowd(scattered, unit, unit), 10*time.Second, cams(1, "c", 30)...)
		if !near(sum.Inferred, 200, 4) || most != 1 {
			t.Errorf("%d frames of one camera, %d at once", sum.Inferred, most)
		}
	})
}

// What a device computes takes no lane of the CPU, and a model goes only when none of
// its units is used.
func TestDeviceNeedsNoCPULane(t *testing.T) {
	t.Parallel()
	b := newBoard()
	hired := 0
	b.staff(func() { hired++ })
	b.limit(1)
	one := detectorFunc(oneBox)
	gpu := standing("gpu", one, one)
	gpu.loaded.OnDevice = true
	for _, m := range []*modelRun{standing("cpu1", one), standing("cpu2", one), gpu} {
		b.join(m)
		for range 3 {
			b.offer(&cameraRun{cfg: worker.Camera{Model: m.cfg.Name}}, &camera.Frame{At: time.Now()})
		}
	}
	if hired != 4 {
		t.Errorf("%d lanes for 4 units", hired)
	}
	var got [3]batch
	names := map[string]int{}
	for i := range got {
		b.take(&got[i])
		names[got[i].model.cfg.Name]++
	}
	if names["gpu"] != 2 || names["cpu1"]+names["cpu2"] != 1 {
		t.Errorf("taken: %v", names)
	}
	left := make(chan struct{})
	go func() { b.leave(gpu); close(left) }()
	for i := range got {
		if got[i].model != gpu {
			continue
		}
		select {
		case <-left:
			t.Fatal("a model left while a lane used it")
		case <-time.After(20 * time.Millisecond):
		}
		b.done(&got[i], 0, 0)
	}
	<-left
	if b.busy != 1 {
		t.Errorf("%d lanes at work on the CPU, want 1", b.busy)
	}
	b.join(gpu)
	if hired != 4 {
		t.Errorf("%d lanes after a model came again", hired)
	}
}

// The earliest deadline of all decides the model; of that model the others join in
// the order of theirs, never two of a camera.
func TestEarliestDeadlineDecidesTheBatch(t *testing.T) {
	t.Parallel()
	b := newBoard()
	b.limit(3)
	m := standing("m", &costly{most: 3}, &costly{most: 3})
	b.join(m)
	b.join(standing("other", &costly{most: 3}))
	now := time.Now()
	for i, c := range []struct {
		name, model string
		ms          int
	}{{"e", "m", 60}, {"a", "m", 10}, {"x", "other", 20}, {"d", "m", 50}, {"b", "m", 30}, {"c", "m", 40}, {"y", "other", 90}} {
		run := &cameraRun{cfg: worker.Camera{Name: c.name, Model: c.model}, period: time.Duration(c.ms) * time.Millisecond}
		b.offer(run, &camera.Frame{At: now, Number: uint64(i)})
		if c.name == "a" {
			b.offer(run, &camera.Frame{At: now, Number: 100})
		}
	}
	order := func(t *batch) (s string) {
		for i := range t.items {
			s += t.items[i].camera.cfg.Name
		}
		return s
	}
	var first, second, third batch
	b.take(&first)
	b.offer(first.items[0].camera, &camera.Frame{At: now.Add(-time.Hour)}) // waits: its camera is being looked at
	b.take(&second)
	b.take(&third)
	if got := order(&first) + " " + order(&second) + " " + order(&third); got != "abc xy de" || first.items[0].frame.Number != 100 {
		t.Errorf("taken: %s, frame %d of a; want abc xy de, frame 100", got, first.items[0].frame.Number)
	}
	b.done(&first, 0, 0)
	b.take(&first)
	if got := order(&first); got != "a" {
		t.Errorf("then: %s, want a", got)
	}
}

// What a run is measured for is the pictures it was for.
func TestLookCountsItsPictures(t *testing.T) {
	t.Parallel()
	sizes := &costly{most: 4, look: func(img image.Image) error {
		switch img.Bounds().Dx() {
		case 1:
			return errors.New("bad")
		case 2:
			panic("wild")
		}
		return nil
	}}
	for _, c := range []struct {
		widths []int
		want   int
	}{{[]int{8}, 1}, {[]int{8, 8, 8}, 3}, {[]int{8, 1, 8}, 2}, {[]int{1, 1}, 0}, {[]int{1}, 0}, {[]int{8, 2, 8}, 0}, {[]int{2}, 0}} {
		b := batch{unit: newUnit(sizes)}
		for _, w := range c.widths {
			b.items = append(b.items, item{frame: &camera.Frame{Image: image.NewGray(image.Rect(0, 0, w, 1))}})
		}
		if n := b.look(t.Context()); n != c.want {
			t.Errorf("pictures %v: a run of %d, want %d", c.widths, n, c.want)
		}
		for i, w := range c.widths {
			if good := w == 8; (b.errs[i] == nil) != good || (len(b.boxes[i]) == 1) != good {
				t.Errorf("pictures %v: %d has %d boxes, %v", c.widths, i, len(b.boxes[i]), b.errs[i])
			}
		}
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	u := newUnit(&costly{most: 8})
	if n := u.room(20, 10*ms, 10*ms); n != 8 {
		t.Errorf("%d with nothing measured, want all it can take", n)
	}
	u.measured(1, 5*ms)
	u.measured(4, 8*ms)
	for n, want := range []time.Duration{1: 5 * ms, 2: 8 * ms, 3: 8 * ms, 4: 8 * ms, 5: 10 * ms, 8: 16 * ms} {
		if want > 0 && u.estimate(n) != want {
			t.Errorf("%d pictures are thought to take %v, want %v", n, u.estimate(n), want)
		}
	}
	for _, c := range []struct {
		waiting        int
		left, shortest time.Duration
		want           int
	}{
		{1, 30 * ms, 30 * ms, 1},
		{8, 30 * ms, 30 * ms, 8},
		{8, 9 * ms, 30 * ms, 4},
		{8, 30 * ms, 9 * ms, 4},
		{8, 5 * ms, 30 * ms, 1}, // just in time alone
		{8, 4 * ms, 30 * ms, 8}, // too late alone
		{8, 4 * ms, 9 * ms, 4},
		{8, -ms, 9 * ms, 8},
		{3, -ms, 3 * ms, 3},
	} {
		if n := u.room(c.waiting, c.left, c.shortest); n != c.want {
			t.Errorf("%d waiting, %v left, frame time %v: %d go, want %d", c.waiting, c.left, c.shortest, n, c.want)
		}
	}
	u.measured(1, time.Second) // the machine was busy
	if u.estimate(1) > 8*ms {
		t.Errorf("one picture is thought to take %v, four take 8 ms", u.estimate(1))
	}
}

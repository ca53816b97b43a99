// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"image"
	"image/jpeg"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/inference/camera"
	"fulmar/inference/detect"
	"fulmar/inference/worker"
	"fulmar/models/parcels/scene"
	"fulmar/schema"
	"fulmar/storage"
)

// detectorFunc is a model that the test decides.
type detectorFunc func(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error)

func (f detectorFunc) Detect(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
	return f(ctx, img, dst)
}

// oneBox finds the same thing everywhere.
func oneBox(_ context.Context, _ image.Image, dst []schema.Box) ([]schema.Box, error) {
	return append(dst, schema.Box{Class: 1, Score: 0.9, X0: 1, Y0: 2, X1: 30, Y1: 40}), nil
}

// rig is a pipeline whose results the test keeps.
type rig struct {
	*Pipeline
	cfg     Config
	mu      sync.Mutex
	results []worker.Result
}

// newRig makes a pipeline of the real sources and the real picture folder, with the
// given model for every name.
func newRig(d detectorFunc) *rig {
	r := &rig{}
	r.cfg = Config{
		Release: "test", Log: slog.New(slog.DiscardHandler),
		Load: func(context.Context, worker.Model, int) (*Loaded, error) {
			return &Loaded{Detectors: []Detector{d}, Labels: scene.Classes(), Version: "1", Engine: "test/none", Close: func() error { return nil }}, nil
		},
		Open: OpenSource, OpenPictures: OpenBlobs,
		Send: func(res worker.Result) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.results = append(r.results, res)
		},
	}
	return r
}

// during runs the pipeline with the setup while fn looks at it.
func (r *rig) during(t *testing.T, s worker.Setup, fn func()) {
	t.Helper()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	r.cfg.Clock = schema.NewClock(0xb007, time.Hour) // here: in the bubble, if there is one
	r.Pipeline = New(r.cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.Apply(s)
	fn()
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func (r *rig) sent() []worker.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]worker.Result(nil), r.results...)
}

func (r *rig) camera(t *testing.T, name string) worker.CameraStatus {
	t.Helper()
	s := r.Status()
	for _, c := range s.Cameras {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no camera %s in %+v", name, s)
	return worker.CameraStatus{}
}

// standing is a loaded model for a board.
func standing(name string, units ...Detector) *modelRun {
	return &modelRun{cfg: worker.Model{Name: name}, loaded: &Loaded{Detectors: units}}
}

func setup(cams ...worker.Camera) worker.Setup {
	s := worker.Setup{Cameras: cams}
	seen := map[string]bool{}
	for i := range cams {
		if cams[i].Model == "" {
			cams[i].Model = "m"
		}
		if !seen[cams[i].Model] {
			seen[cams[i].Model] = true
			s.Models = append(s.Models, worker.Model{Name: cams[i].Model, Path: "/models/" + cams[i].Model})
		}
	}
	return s
}

func near(got uint64, want, within int) bool {
	return int(got) >= want-within && int(got) <= want+within
}

// small frames: what is measured in simulated time costs real time to draw.
func smallScene(c worker.Camera) (camera.Source, error) {
	s := scene.Default()
	s.Width, s.Height = 128, 128
	return camera.NewScene(s, c.FPS)
}

// A model at a third of the camera's rate: two of three frames are late, the one
// looked at is always the newest, and no frame is kept beyond the few in use.
func TestSlowModelSkipsAndNeverLags(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pictures := map[image.Image]bool{}
		r := newRig(func(ctx context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
			pictures[img] = true
			time.Sleep(290 * time.Millisecond)
			return oneBox(ctx, img, dst)
		})
		r.cfg.Open = smallScene
		r.during(t, setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 10}), func() {
			time.Sleep(60 * time.Second)
			c := r.camera(t, "cam0")
			if !near(c.Frames, 600, 2) || !near(c.Inferred, 207, 2) || !near(c.Late, 393, 3) {
				t.Errorf("%d frames, %d inferred, %d late; want about 600, 207, 393", c.Frames, c.Inferred, c.Late)
			}
			if c.Frames-c.Inferred-c.Late > 2 {
				t.Errorf("%d frames unaccounted for", c.Frames-c.Inferred-c.Late)
			}
			// 290 ms of model and less than one frame time in the slot.
			if c.P99Us < 290_000 || c.P99Us > 390_000 {
				t.Errorf("p99 %d us: frames wait or are not stamped at capture", c.P99Us)
			}
			if c.FPS < 3.2 || c.FPS > 3.7 {
				t.Errorf("%.2f frames a second, want 3.45", c.FPS)
			}
		})
		if len(pictures) > 5 {
			t.Errorf("%d pictures are in use", len(pictures))
		}
	})
}

// Overload: cameras of very different rates share a model that can do 10 frames a
// second. The slow one gets what it needs and the fast ones share the rest.
func TestNoCameraStarves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(func(_ context.Context, _ image.Image, dst []schema.Box) ([]schema.Box, error) {
			time.Sleep(100 * time.Millisecond)
			return dst, nil
		})
		r.cfg.Open = smallScene
		r.during(t, setup(
			worker.Camera{Name: "fast0", Kind: "scene", FPS: 30},
			worker.Camera{Name: "fast1", Kind: "scene", FPS: 30},
			worker.Camera{Name: "slow", Kind: "scene", FPS: 1},
		), func() {
			time.Sleep(30 * time.Second)
			slow, f0, f1 := r.camera(t, "slow"), r.camera(t, "fast0"), r.camera(t, "fast1")
			if slow.Inferred < 28 {
				t.Errorf("the slow camera had %d of %d frames looked at", slow.Inferred, slow.Frames)
			}
			if !near(f0.Inferred, int(f1.Inferred), 3) || !near(f0.Inferred+f1.Inferred+slow.Inferred, 300, 5) {
				t.Errorf("fast cameras had %d and %d frames looked at, slow %d; want equal and 300 in all", f0.Inferred, f1.Inferred, slow.Inferred)
			}
		})
		if len(r.sent()) != 0 {
			t.Error("frames without a detection became events")
		}
	})
}

// An earlier deadline goes first whatever the order of arrival.
func TestEarliestDeadlineFirst(t *testing.T) {
	t.Parallel()
	b := newBoard()
	now := time.Now()
	m := standing("m", detectorFunc(oneBox))
	b.join(m)
	runs := map[string]*cameraRun{}
	for name, period := range map[string]time.Duration{"a": time.Second, "b": time.Millisecond, "c": 50 * time.Millisecond} {
		runs[name] = &cameraRun{cfg: worker.Camera{Name: name, Model: "m"}, period: period}
		b.offer(runs[name], &camera.Frame{At: now})
	}
	// A newer frame of a takes over the deadline of the one it replaces.
	old := b.offer(runs["a"], &camera.Frame{At: now.Add(time.Hour), Number: 9})
	if old == nil || !old.At.Equal(now) {
		t.Fatalf("replaced frame %+v", old)
	}
	var order string
	for range 3 {
		var got batch
		if !b.take(&got) || got.model != m || len(got.items) != 1 {
			t.Fatal("nothing to take")
		}
		c, f := got.items[0].camera, got.items[0].frame
		if c == runs["a"] && f.Number != 9 {
			t.Error("the older frame was looked at")
		}
		order += c.cfg.Name
		b.done(&got, 0, 0)
	}
	if order != "bca" {
		t.Errorf("order %s, want bca", order)
	}
}

// Threads bound how many models run side by side, and one model never runs twice.
func TestLanesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for _, n := range []string{"m1", "m2", "m3"} {
		b.join(standing(n, detectorFunc(oneBox)))
		for range 2 {
			b.offer(&cameraRun{cfg: worker.Camera{Model: n}}, &camera.Frame{At: time.Now()})
		}
	}
	b.limit(2)
	used := map[*modelRun]bool{}
	for range 2 {
		var got batch
		b.take(&got)
		if used[got.model] {
			t.Error("a model was given out twice")
		}
		used[got.model] = true
	}
	taken := make(chan bool)
	go func() {
		taken <- b.take(new(batch))
	}()
	select {
	case <-taken:
		t.Error("a third lane is at work")
	case <-time.After(50 * time.Millisecond):
	}
	b.end()
	if <-taken {
		t.Error("something was taken at the end")
	}
}

// The truth of a real scene, seen through a model whose faults the test chose: of
// each frame it moves nothing, misses the last thing and sees one that is not there.
func TestTruthIsMatchedAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		truths := map[image.Image][]schema.Box{}
		var things, frames, missed uint64
		r := newRig(func(_ context.Context, img image.Image, dst []schema.Box) ([]schema.Box, error) {
			mu.Lock()
			defer mu.Unlock()
			truth := truths[img]
			frames++
			things += uint64(len(truth))
			for i, b := range truth {
				if i == len(truth)-1 {
					missed++
					continue
				}
				b.Score = 0.5 + float32(i)/100
				dst = append(dst, b)
			}
			return append(dst, schema.Box{Class: 2, Score: 0.99, X0: -50, Y0: -50, X1: -40, Y1: -40}), nil
		})
		r.cfg.Open = func(c worker.Camera) (camera.Source, error) {
			settings := scene.Default()
			settings.Width, settings.Height, settings.Density = 256, 192, 1
			src, err := camera.NewScene(settings, c.FPS)
			return spied{src, func(f *camera.Frame) {
				mu.Lock()
				defer mu.Unlock()
				truths[f.Image] = append([]schema.Box(nil), f.Truth...)
			}}, err
		}
		r.during(t, setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 5, Density: 1}), func() {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			c := r.camera(t, "cam0")
			if things < 50 || c.True != things-missed || c.False != frames || c.Missed != missed {
				t.Errorf("true %d, false %d, missed %d; of %d things in %d frames %d were left out", c.True, c.False, c.Missed, things, frames, missed)
			}
		})
		for _, res := range r.sent() {
			e := res.Event
			if err := e.Validate(); err != nil {
				t.Fatal(err)
			}
			counts := map[schema.Match]int{}
			for _, b := range append(e.Boxes, e.Truth...) {
				counts[b.Match]++
			}
			if e.Boxes[0].Match != schema.MatchFalse || counts[schema.MatchUnknown] != 0 ||
				counts[schema.MatchTrue] != 2*(len(e.Boxes)-1) || counts[schema.MatchMissed] != len(e.Truth)-len(e.Boxes)+1 {
				t.Errorf("frame %d: %v boxes %+v", e.Frame, counts, e.Boxes)
			}
			if e.Labels[2] != "label" || e.Model != "m@1" || e.Width != 256 || e.Engine != "test/none" {
				t.Errorf("event %+v", e)
			}
		}
	})
}

// spied shows each frame before the pipeline has it.
type spied struct {
	camera.Source
	see func(*camera.Frame)
}

func (s spied) Next(ctx context.Context) (*camera.Frame, error) {
	f, err := s.Source.Next(ctx)
	if err == nil {
		s.see(f)
	}
	return f, err
}

func TestMatchIsGreedyByScoreAndClass(t *testing.T) {
	t.Parallel()
	box := func(class uint16, score, x float32) schema.Box {
		return schema.Box{Class: class, Score: score, X0: x, Y0: 0, X1: x + 10, Y1: 10}
	}
	boxes := []schema.Box{
		box(0, 0.5, 0),  // exact, but the better one below took its truth
		box(0, 0.9, 1),  // IoU 0.82
		box(1, 0.8, 50), // right place, wrong class
		box(0, 0.7, 54), // IoU 0.43 with the truth at 50
	}
	truth := []schema.Box{box(0, 1, 0), box(0, 1, 50)}
	right, wrong, missed := detect.Match(boxes, truth)
	if right != 1 || wrong != 3 || missed != 1 {
		t.Errorf("right %d, wrong %d, missed %d; want 1, 3, 1", right, wrong, missed)
	}
	if boxes[0].Score != 0.9 || boxes[0].Match != schema.MatchTrue || truth[0].Match != schema.MatchTrue || truth[1].Match != schema.MatchMissed {
		t.Errorf("boxes %+v, truth %+v", boxes, truth)
	}
}

// Events each second, pictures each 5 s, both bounds kept; each picture is in the
// folder under its name with its hash, and the frame's time is its capture.
func TestEventsAndPicturesOnTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRig(oneBox)
	r.cfg.Open = smallScene
	synctest.Test(t, func(t *testing.T) {
		s := setup(worker.Camera{Name: "line/cam0", Kind: "scene", FPS: 4, EventEvery: time.Second, SnapshotEvery: 5 * time.Second})
		s.BlobDir, s.BlobQuota = dir, 64<<20
		r.during(t, s, func() {
			time.Sleep(time.Minute)
			if b := r.Status().BlobBytes; b == 0 {
				t.Error("the status knows of no picture bytes")
			}
		})
	})
	blobs, err := storage.OpenBlobs(dir, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	results := r.sent()
	if n := len(results); n < 60 || n > 61 {
		t.Errorf("%d events in a minute", n)
	}
	pictures := 0
	for i, res := range results {
		if i > 0 && res.Time.Mono-results[i-1].Time.Mono < int64(time.Second-sameMoment) {
			t.Errorf("event %d came after %v", i, time.Duration(res.Time.Mono-results[i-1].Time.Mono))
		}
		if res.Time.Boot != 0xb007 || res.Time.Mono < int64(time.Hour) {
			t.Errorf("time %+v", res.Time)
		}
		if res.Snapshot == nil {
			continue
		}
		pictures++
		if err := res.Validate(); err != nil {
			t.Fatal(err)
		}
		b, err := blobs.Open(res.Snapshot.Name)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(io.NewSectionReader(b, 0, res.Snapshot.Size+1))
		b.Close()
		if err != nil || int64(len(raw)) != res.Snapshot.Size || sha256.Sum256(raw) != res.Snapshot.SHA256 {
			t.Errorf("picture %s: %d bytes, %v", res.Snapshot.Name, len(raw), err)
		}
		if img, err := jpeg.Decode(bytes.NewReader(raw)); err != nil || img.Bounds().Dx() != 128 {
			t.Errorf("picture %s is none: %v", res.Snapshot.Name, err)
		}
		if res.Event.Snapshot != res.Snapshot.Name || res.Snapshot.Frame != res.Event.Frame || res.Snapshot.Source != "line/cam0" {
			t.Errorf("picture and event do not agree: %+v", res)
		}
	}
	if pictures < 12 || pictures > 13 {
		t.Errorf("%d pictures in a minute", pictures)
	}
}

// A file's JPEG is kept byte for byte; pictures that cannot be read are counted and
// passed; a camera that has only those has failed; a folder that comes later works.
// A picture that is asked for is kept of the next frame, though nothing is in it and no
// event is due; once.
func TestPictureAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(func(_ context.Context, _ image.Image, dst []schema.Box) ([]schema.Box, error) { return dst, nil })
		r.cfg.Open = smallScene
		s := setup(worker.Camera{Name: "a", Kind: "scene", FPS: 10, EventEvery: time.Hour}, worker.Camera{Name: "b", Kind: "scene", FPS: 10, EventEvery: time.Hour})
		s.BlobDir, s.BlobQuota = t.TempDir(), 1<<20
		s.Asked = map[string]uint64{"a": 7} // of a worker before
		r.during(t, s, func() {
			time.Sleep(2 * time.Second)
			if got := r.sent(); len(got) != 0 {
				t.Errorf("%d events nobody asked for", len(got))
			}
			next := s
			next.Asked = map[string]uint64{"a": 8}
			r.Apply(next)
			time.Sleep(2 * time.Second)
		})
		got := r.sent()
		if len(got) != 1 || got[0].Event.Source != "a" || got[0].Snapshot == nil || got[0].Event.Snapshot != got[0].Snapshot.Name || len(got[0].Event.Boxes) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestFolderCamera(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	mixed, broken, later := filepath.Join(root, "mixed"), filepath.Join(root, "broken"), filepath.Join(root, "later")
	var raw bytes.Buffer
	if err := errors.Join(os.Mkdir(mixed, 0o700), os.Mkdir(broken, 0o700),
		jpeg.Encode(&raw, image.NewGray(image.Rect(0, 0, 80, 60)), nil)); err != nil {
		t.Fatal(err)
	}
	raw.WriteString("a tail that an encoder would not write")
	put := func(dir, name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(mixed, "0.jpg", raw.Bytes())
	put(mixed, "1.jpg", []byte("broken"))
	put(broken, "0.jpg", raw.Bytes()[:100])
	r := newRig(oneBox)
	synctest.Test(t, func(t *testing.T) {
		s := setup(
			worker.Camera{Name: "mixed", Kind: "files", Path: mixed, FPS: 2, SnapshotEvery: time.Nanosecond},
			worker.Camera{Name: "broken", Kind: "files", Path: broken, FPS: 2},
			worker.Camera{Name: "later", Kind: "files", Path: later, FPS: 2},
		)
		s.BlobDir, s.BlobQuota = filepath.Join(root, "kept"), 64<<20
		r.during(t, s, func() {
			time.Sleep(20*time.Second + 100*time.Millisecond)
			if c := r.camera(t, "mixed"); !near(c.Inferred, 20, 1) || !near(c.Bad, 20, 1) || c.State != stateRunning {
				t.Errorf("mixed: %+v", c)
			}
			if c := r.camera(t, "broken"); c.State != stateFailed || !near(c.Bad, 40, 1) || !strings.Contains(c.Error, "0.jpg") {
				t.Errorf("broken: %+v", c)
			}
			if c := r.camera(t, "later"); c.State != stateFailed || !strings.Contains(c.Error, "no such file") {
				t.Errorf("later: %+v", c)
			}
			if err := os.Mkdir(later, 0o700); err != nil {
				t.Fatal(err)
			}
			put(later, "0.jpg", raw.Bytes())
			time.Sleep(reopenMax + time.Second)
			if c := r.camera(t, "later"); c.State != stateRunning || c.Inferred == 0 || c.Error != "" {
				t.Errorf("later, when it is there: %+v", c)
			}
		})
	})
	for _, res := range r.sent() {
		if res.Snapshot == nil {
			continue
		}
		if res.Snapshot.SHA256 != sha256.Sum256(raw.Bytes()) {
			t.Fatal("the picture that was kept is not the file's bytes")
		}
		return
	}
	t.Error("no picture was kept")
}

// A full disk or a folder that cannot be made costs the pictures, not the events.
func TestEventsGoOnWithoutPictures(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(oneBox)
		r.cfg.Open = smallScene
		s := setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 2, SnapshotEvery: time.Second})
		s.BlobDir, s.BlobQuota = filepath.Join(file, "under"), 1<<20
		r.during(t, s, func() { time.Sleep(30 * time.Second) })
		results := r.sent()
		if len(results) < 59 {
			t.Errorf("%d events", len(results))
		}
		for _, res := range results {
			if res.Snapshot != nil || res.Event.Snapshot != "" {
				t.Fatal("a picture is told of that is nowhere")
			}
		}
	})
}

// A picture folder that hangs drops events of its camera, counted, and holds up
// neither the model nor the other camera.
func TestHangingDiskHoldsUpNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(oneBox)
		r.cfg.Open = smallScene
		back := make(hung)
		r.cfg.OpenPictures = func(string, int64) (Pictures, error) { return back, nil }
		s := setup(
			worker.Camera{Name: "keeps", Kind: "scene", FPS: 5, SnapshotEvery: time.Second},
			worker.Camera{Name: "free", Kind: "scene", FPS: 5},
		)
		s.BlobDir = "/unused"
		r.during(t, s, func() {
			time.Sleep(20 * time.Second)
			if c := r.camera(t, "keeps"); !near(c.Inferred, 100, 2) {
				t.Errorf("keeps: %+v", c)
			}
			free := 0
			for _, res := range r.sent() {
				if res.Event.Source == "free" {
					free++
				}
			}
			if !near(uint64(free), 100, 2) {
				t.Errorf("%d events of the other camera", free)
			}
			if d := r.Status().ResultsDropped; !near(d, 100-1-waitingEvents, 3) {
				t.Errorf("%d events dropped", d)
			}
			close(back)
		})
	})
}

type hung chan struct{}

func (h hung) Put(string, []byte) ([32]byte, error) {
	<-h
	return [32]byte{}, errors.New("took too long")
}
func (hung) Bytes() int64    { return 0 }
func (hung) Evicted() uint64 { return 0 }

// The largest event that comes out still fits a spool record.
func TestLargestEventFitsARecord(t *testing.T) {
	t.Parallel()
	boxes := make([]schema.Box, schema.MaxDetections)
	labels := make([]string, schema.MaxDetections)
	for i := range boxes {
		boxes[i] = schema.Box{Class: uint16(i), Score: 0.123, X0: 1.23, Y0: 2.34, X1: 3.45, Y1: 4.56, Match: schema.MatchMissed}
		labels[i] = strings.Repeat("ä", schema.MaxName)
	}
	c := &cameraRun{cfg: worker.Camera{Name: strings.Repeat("c", schema.MaxName), Model: strings.Repeat("m", schema.MaxName)}}
	f := &camera.Frame{Image: image.NewGray(image.Rect(0, 0, 640, 480)), Number: 1<<64 - 1, Truth: boxes, HasTruth: true}
	e := c.event(f, &Loaded{Labels: labels, Version: "1.2.3", Engine: strings.Repeat("e", 200)}, boxes, time.Second)
	e.Snapshot = strings.Repeat("s", schema.MaxName)
	rec := schema.Record{Kind: schema.KindEvent, Time: schema.Time{Boot: 1 << 63, Mono: 1 << 62, Wall: 1 << 62}, Event: &e}
	b, err := schema.EncodeRecord(&rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&worker.Result{Event: e}).Validate(); err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes of %d, %d boxes, %d labels", len(b), schema.MaxRecord, len(e.Boxes), len(e.Labels))
}

func TestPictureNames(t *testing.T) {
	t.Parallel()
	at := schema.Time{Boot: 1<<64 - 1, Mono: 1<<63 - 1}
	for _, cam := range []string{"cam0", "hall/3/door", strings.Repeat("c", schema.MaxName)} {
		if err := schema.CheckBlobName(pictureName(cam, at)); err != nil {
			t.Error(err)
		}
	}
	if pictureName("c", schema.Time{Mono: 1000}) == pictureName("c", schema.Time{Mono: 2000}) {
		t.Error("two pictures of a microsecond each have one name")
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"strings"
	"testing"
	"time"

	"fulmar/inference/worker"
	"fulmar/ota"
	"fulmar/ota/release"
)

// world is a board that a test changes, with its clock.
type world struct {
	Reading
	now time.Time
	g   *Gate
}

func healthy() *world {
	w := &world{now: time.Unix(0, 0), Reading: Reading{
		Ticks: 1, TickEvery: time.Second, Boot: 7, Linked: true, Up: true, Worker: true, Heard: true, Memory: 12 << 20,
		Models:  []worker.ModelStatus{{Name: "parcels", State: "ready", Path: "/m/1"}},
		Cameras: []worker.CameraStatus{{Name: "belt", State: "running", FPS: 10}},
	}}
	w.g = New(Config{Read: func() Reading { return w.Reading }, Now: func() time.Time { return w.now }})
	return w
}

// live lets the board live for so many seconds and gives the last answer.
func (w *world) live(component string, h release.Health, before []byte, seconds int, each func(*world)) (v ota.Verdict, why string) {
	for range seconds {
		w.now = w.now.Add(time.Second)
		w.Ticks++
		if each != nil {
			each(w)
		}
		v, why = w.g.Look(component, h, before)
	}
	return v, why
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	still := func(w *world) { w.Ticks = 1 }
	for name, c := range map[string]struct {
		component string
		change    func(*world) // after what was before is noted
		each      func(*world)
		seconds   int
		want      ota.Verdict
		why       string
	}{
		"an agent that works":             {"agent", nil, nil, 5, ota.Good, "process, link, drain"},
		"no tick":                         {"agent", nil, still, 40, ota.Wait, "no tick for"},
		"no tick for a moment":            {"agent", nil, still, 10, ota.Good, ""},
		"the link is gone":                {"agent", func(w *world) { w.Up = false }, nil, 5, ota.Wait, "down"},
		"a backlog that nobody takes":     {"agent", func(w *world) { w.Waiting = 9999 }, nil, 90, ota.Wait, "9999 records wait"},
		"a backlog that gets less":        {"agent", func(w *world) { w.Waiting = 9999 }, func(w *world) { w.Acked++ }, 90, ota.Good, ""},
		"memory":                          {"agent", func(w *world) { w.Memory = 70 << 20 }, nil, 30, ota.Bad, "70 MiB of memory, 12 before"},
		"memory for a moment":             {"agent", func(w *world) { w.Memory = 70 << 20 }, nil, 5, ota.Wait, "70 MiB"},
		"memory without an end":           {"agent", func(w *world) { w.Memory = 190 << 20 }, nil, 1, ota.Bad, "190 MiB"},
		"a model that works":              {"model/parcels", nil, nil, 30, ota.Good, ""},
		"a refused model":                 {"model/parcels", func(w *world) { w.Models[0].State, w.Models[0].Error = "refused", "0.2 mAP" }, nil, 30, ota.Bad, "refused: 0.2 mAP"},
		"a model that loads":              {"model/parcels", func(w *world) { w.Models[0].State = "loading" }, nil, 90, ota.Wait, "is loading"},
		"a model that is not there":       {"model/others", nil, nil, 30, ota.Wait, "does not tell of model others"},
		"no worker":                       {"model/parcels", func(w *world) { w.Worker = false }, nil, 30, ota.Wait, "no inference worker"},
		"a silent worker":                 {"worker", func(w *world) { w.Heard = false }, nil, 30, ota.Wait, "not heard"},
		"slow":                            {"model/parcels", func(w *world) { w.Cameras[0].FPS = 7.9 }, nil, 60, ota.Wait, "7.9 frames a second, 10.0 before"},
		"a little slower":                 {"model/parcels", func(w *world) { w.Cameras[0].FPS = 8.1 }, nil, 60, ota.Good, ""},
		"it throttles now":                {"worker", func(w *world) { w.Throttled = 1 }, nil, 30, ota.Wait, "throttles: 1 alerts, 0 before"},
		"the machine did not start anew":  {"rootfs", nil, nil, 5, ota.Wait, "not started anew"},
		"the machine came up":             {"rootfs", func(w *world) { w.Boot++ }, nil, 5, ota.Good, ""},
		"one bad second of an old link":   {"agent", nil, func(w *world) { w.Up = w.now.Unix() != 5 }, 5, ota.Good, ""},
		"a link that comes late and goes": {"agent", nil, func(w *world) { w.Up = w.now.Unix() < 5 }, 30, ota.Wait, "down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := healthy()
			before := w.g.Before(c.component)
			if len(before) == 0 || len(before) > ota.MaxBefore {
				t.Fatalf("%d bytes of notes", len(before))
			}
			if c.change != nil {
				c.change(w)
			}
			v, why := w.live(c.component, release.Health{}, before, c.seconds, c.each)
			if v != c.want || !strings.Contains(why, c.why) || why == "" {
				t.Errorf("%v: %s; wants %v with %q", v, why, c.want, c.why)
			}
		})
	}
}

// TestOffline: what was not there before is not asked for: a board that is alone may take
// a bundle.
func TestOffline(t *testing.T) {
	t.Parallel()
	w := healthy()
	w.Up, w.Waiting = false, 1<<20
	if v, why := w.live("agent", release.Health{}, w.g.Before("agent"), 90, nil); v != ota.Good {
		t.Error(v, why)
	}
}

// TestOldWord: what the worker says of the package before proves nothing of the new one.
func TestOldWord(t *testing.T) {
	t.Parallel()
	w := healthy()
	w.g.cfg.Path = func(string) string { return "/m/2" }
	before := w.g.Before("model/parcels")
	if v, why := w.live("model/parcels", release.Health{}, before, 30, nil); v != ota.Wait {
		t.Error(v, why)
	}
	w.Models[0].Path = "/m/2"
	if v, why := w.live("model/parcels", release.Health{}, before, 5, nil); v != ota.Wait || !strings.Contains(why, "not known yet") {
		t.Error(v, why)
	}
	if v, why := w.live("model/parcels", release.Health{}, before, 30, nil); v != ota.Good {
		t.Error(v, why)
	}
}

// TestNoNotes: a record whose notes were lost asks for what can be seen without.
func TestNoNotes(t *testing.T) {
	t.Parallel()
	w := healthy()
	w.Up = false
	if v, why := w.live("agent", release.Health{}, nil, 30, nil); v != ota.Good {
		t.Error(v, why)
	}
}

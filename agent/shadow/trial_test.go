// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"fulmar/twin"
)

// TestTrial: what makes the board unhealthy within a minute is gone back from and told
// with its cause; what was unwell before, what passes, and what comes later does not.
func TestTrial(t *testing.T) {
	later := func(r *rig, causes ...string) {
		r.after(time.Second, func() { r.health.Causes = causes })
	}
	for name, c := range map[string]struct {
		before []string
		during func(r *rig)
		why    string // "": it stays
	}{
		"well":                  {nil, func(*rig) {}, ""},
		"a camera fails":        {nil, func(r *rig) { later(r, "camera cam0: no picture for 1 s") }, "camera cam0: no picture"},
		"it failed before":      {[]string{"camera cam0: no picture"}, func(r *rig) { later(r, "camera cam0: no such device") }, ""},
		"another failed before": {[]string{"camera cam1: away"}, func(r *rig) { later(r, "camera cam1: away", "camera cam0: away") }, "camera cam0: away"},
		"it passes": {nil, func(r *rig) {
			later(r, "worker: not heard of")
			r.after(20*time.Second, func() { r.health.Causes = nil })
		}, ""},
		"it comes and goes": {nil, func(r *rig) {
			for i := range 20 {
				r.after(time.Duration(i)*10*time.Second+time.Second, func() {
					if r.health.Causes = nil; i%2 == 0 {
						r.health.Causes = []string{"worker: not heard of"}
					}
				})
			}
		}, ""}, // never thirty seconds, and not there at the end of the minute
		"at its end": {nil, func(r *rig) {
			r.after(50*time.Second, func() { r.health.Causes = []string{"worker: not heard of"} })
		}, "worker: not heard of"},
		"later": {nil, func(r *rig) {
			r.after(70*time.Second, func() { r.health.Causes = []string{"worker: not heard of"} })
		}, ""},
		"the sampler stops": {nil, func(r *rig) { r.still = true }, "no sensor was read for 30s"},
		"it is slow":        {nil, func(r *rig) { r.still, r.health.Every = true, time.Hour }, ""},
		"the link is lost":  {nil, func(r *rig) { r.after(500*time.Millisecond, r.down) }, ""},
		"the link comes back": {nil, func(r *rig) {
			r.down()
			r.after(30*time.Second, func() { r.conn++; r.link, r.cut = t.Context(), func() {} })
		}, ""},
		"a part refuses it": {nil, func(r *rig) {
			r.refuse = errors.New("no such variant")
			r.after(10*time.Millisecond+2*r.late, func() { r.refuse = nil })
		}, "it could not be put in force: no such variant"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				r := newRig(t)
				r.start()
				defer func() { r.link = nil; r.end() }()
				r.up()
				r.edit(map[string]any{"camera.cam0.fps": 4})
				r.wait(61*time.Second + time.Second)
				r.health.Causes = c.before
				c.during(r)
				if r.link == nil { // it was set just before the cut
					r.up()
					r.edit(map[string]any{"camera.cam0.fps": 50, "app.x": 1})
					r.wait(100 * time.Millisecond)
					r.down()
				} else {
					r.edit(map[string]any{"camera.cam0.fps": 50, "app.x": 1})
				}
				r.wait(3 * time.Minute)
				if r.link = nil; c.why == "" {
					r.holds("camera.cam0.fps", 50)
					if got := r.says("twin"); got != "" {
						t.Errorf("told %q", got)
					}
					return
				}
				r.health.Causes, r.still = nil, false
				r.up()
				r.holds("camera.cam0.fps", 4)
				r.holds("app.x", 1) // has no part in it
				if r.cfg.Cameras[0].FPS != 4 {
					t.Errorf("in force: %v", r.cfg.Cameras[0].FPS)
				}
				refused := fmt.Sprint(r.reported(ReportRefused))
				if !strings.Contains(refused, "camera.cam0.fps:undone: "+c.why) || strings.Contains(refused, "app.x") {
					t.Errorf("refused: %s", refused)
				}
				if got := r.says("twin"); got != "undone" {
					t.Errorf("told %q", got)
				}
				r.edit(map[string]any{"camera.cam0.fps": 6})
				r.wait(2 * time.Minute)
				r.holds("camera.cam0.fps", 6)
				if got := r.says("twin"); got != "ok" || r.reported(ReportRefused) != nil {
					t.Errorf("told %q, refused %v", got, r.reported(ReportRefused))
				}
			})
		})
	}
}

// TestCrashLoop: a setting that kills the board is tried once more, for it may have been
// the power, and is undone before the third start puts anything in force. A start after an
// end in order does not count, nor one after the trial.
func TestCrashLoop(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.up()
		r.edit(map[string]any{"sample.fast.period": "5s"})
		r.wait(2 * time.Minute)
		writes := r.disk.writes
		r.edit(map[string]any{"sample.fast.period": "10ms"})
		r.wait(50 * time.Millisecond) // long enough to be applied
		if n := r.disk.writes - writes; n != 1 {
			t.Errorf("%d writes before it is applied, wants 1 with the mark", n)
		}
		for i := range 2 {
			if r.cfg.Sample.Groups[0].Period != 10*time.Millisecond {
				t.Fatalf("start %d: in force %v", i, r.cfg.Sample.Groups[0].Period)
			}
			r.crash()
			r.reboot(10 * time.Second)
			r.cfg = nil
			r.sh = New(r.config())
			over := r.sh.Overlaid()
			if got, want := over.Sample.Groups[0].Period, []time.Duration{10 * time.Millisecond, 5 * time.Second}[i]; got != want {
				t.Fatalf("start %d begins with %v, wants %v", i+1, got, want)
			}
			r.run()
			r.wait(time.Second)
		}
		if got := r.says("twin"); got != "undone" {
			t.Errorf("told %q", got)
		}
		r.up()
		if s := fmt.Sprint(r.reported(ReportRefused)); !strings.Contains(s, "undone: the board started anew 2 times") {
			t.Error(s)
		}
		// In order, and once: not undone.
		r.edit(map[string]any{"sample.fast.period": "2s"})
		r.wait(time.Second)
		for range 5 {
			r.end()
			r.start()
			r.wait(time.Second)
		}
		r.crash()
		r.start()
		r.up()
		r.wait(61*time.Second + time.Second)
		for range 5 { // after the trial
			r.crash()
			r.start()
		}
		r.holds("sample.fast.period", "2s")
		r.set("app.x", 1, 0)
		for range 3 { // configures nothing, so it cannot be what kills the board
			r.crash()
			r.start()
		}
		r.holds("app.x", 1)
		r.end()
	})
}

// TestSetOnTrial: what somebody on the board set and what makes it unhealthy is taken
// back too, while the fleet's value, hidden until then, is on trial in its turn.
func TestSetOnTrial(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		r.edit(map[string]any{"camera.cam0.fps": 4})
		r.wait(2 * time.Minute)
		r.set("camera.cam0.fps", 100, 0)
		r.health.Causes = []string{"worker: not heard of"}
		r.wait(35 * time.Second)
		r.holds("camera.cam0.fps", 4)
		if got := r.says("twin/camera.cam0.fps"); got != "undone" {
			t.Errorf("told %q", got)
		}
		r.health.Causes = nil
		r.set("camera.cam0.fps", 10, time.Hour)
		r.wait(2 * time.Minute)
		if got := r.says("twin/camera.cam0.fps"); got != "ok" {
			t.Errorf("told %q", got)
		}
		// The fleet sets more under it, unseen: it loses by no policy but fleet's, so let it
		// be edited on the board once more.
		r.down()
		r.set("camera.cam0.fps", 11, time.Hour)
		r.wait(2 * time.Minute)
		r.edit(map[string]any{"camera.cam0.fps": 200})
		r.up() // by policy the fleet's holds: on trial
		r.holds("camera.cam0.fps", 200)
		r.health.Causes = []string{"camera cam0: stopped"}
		r.wait(35 * time.Second)
		r.holds("camera.cam0.fps", 4)
		if v, from := r.sh.Get("camera.cam0.fps"); from != twin.FromDesired {
			t.Errorf("%x from %d", v, from)
		}
		// Twice in a board's crash loop, for a local set.
		r.health.Causes = nil
		r.set("rule.x", map[string]any{"when": "1"}, 0)
		for range 2 {
			r.crash()
			r.start()
		}
		r.holds("rule.x", nil)
	})
}

// TestHiddenIsNotProven: the fleet's value under one that is set on the board was never
// tried; when it comes to light it is on trial.
func TestHiddenIsNotProven(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.base.Twin.Policies[1].Key = "*" // edge
		r.start()
		defer r.end()
		r.up()
		r.edit(map[string]any{"camera.cam0.fps": 4})
		r.wait(2 * time.Minute)
		r.down()
		r.set("camera.cam0.fps", 10, time.Hour)
		r.edit(map[string]any{"camera.cam0.fps": 240})
		r.up()
		r.wait(10 * time.Minute)
		r.holds("camera.cam0.fps", 10)
		r.wait(time.Hour - 10*time.Minute - 5*time.Second)
		r.holds("camera.cam0.fps", 10)
		r.wait(10 * time.Second)
		r.holds("camera.cam0.fps", 240) // the lease ended
		for range 2 {
			r.crash()
			r.start()
		}
		r.holds("camera.cam0.fps", 4)
	})
}

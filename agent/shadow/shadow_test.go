// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/schema"
	"fulmar/twin"
)

// TestFromFleet: an edit of the fleet is in force and reported within a second, with
// the values of the file where nothing is set; a value that the board does not take is
// told with its reason.
func TestFromFleet(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		if got := r.reported("config.log.level"); got != "info" || len(r.ups) > 2 || r.downs > 2 {
			t.Errorf("after a connection level %v, %d messages up, %d down", got, len(r.ups), r.downs)
		}
		r.edit(map[string]any{"log.level": "debug", "camera.cam0.fps": 2, "camera.cam9.fps": 2, "app.x": 1})
		r.wait(time.Second)
		if r.cfg == nil || r.cfg.Log.Level != "debug" || r.cfg.Cameras[0].FPS != 2 || r.cfg.Cameras[1].FPS != 5 {
			t.Fatalf("in force: %+v", r.cfg)
		}
		if r.base.Cameras[0].FPS != 5 {
			t.Error("the file's config was written to")
		}
		if r.reported("config.log.level") != "debug" || r.reported("config.camera.cam0.fps") != 2.0 || r.reported("config.sample.fast.period") != "1s" {
			t.Errorf("reported: %v", r.fleet.Reported())
		}
		refused, _ := r.reported(ReportRefused).(map[any]any)
		if len(refused) != 1 || !strings.Contains(fmt.Sprint(refused["camera.cam9.fps"]), `no camera "cam9", it has cam0, cam1`) {
			t.Errorf("refused: %v", refused)
		}
		if got := r.says("twin/camera.cam9.fps"); got != "refused" {
			t.Errorf("told %q", got)
		}
		r.edit(map[string]any{"camera.cam9.fps": nil, "log.level": nil})
		r.wait(time.Second)
		if got := r.says("twin/camera.cam9.fps"); got != "ok" || r.reported(ReportRefused) != nil || r.cfg.Log.Level != "info" {
			t.Errorf("told %q, refused %v, level %s", got, r.reported(ReportRefused), r.cfg.Log.Level)
		}
		if newest, board := r.fleet.Version(); newest != 2 || board != 2 {
			t.Errorf("the fleet thinks the board has version %d of %d", board, newest)
		}
		if got := r.kinds(); got != "applied, refused camera.cam9.fps, applied" {
			t.Errorf("history: %s", got)
		}
	})
}

// TestSetOnBoard: what is set on the board is in force without a fleet, comes to it, and
// is taken back; who sets what the board does not take hears the reason.
func TestSetOnBoard(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.set("model.parcels.paused", true, 0)
		r.wait(0)
		if n := len(r.cfg.Setup().Cameras); n != 0 || len(r.cfg.Setup().Models) != 1 {
			t.Errorf("paused, %d cameras run", n)
		}
		for key, v := range map[string]any{"log.level": "loud", "sample.fast.period": "1ms", "no.such": 1, "camera.cam0.fps": "many"} {
			if err := r.sh.Set(key, twin.Edit{Value: val(t, v)}); err == nil {
				t.Errorf("%s was set to %v", key, v)
			}
		}
		r.up()
		if v, from := r.fleet.Effective("model.parcels.paused"); from != twin.FromOverride || string(v) != string(val(t, true)) {
			t.Errorf("at the fleet %x from %d", v, from)
		}
		if there, err := r.sh.Clear("model.parcels.paused", "local/eva"); !there || err != nil {
			t.Error(there, err)
		}
		r.wait(time.Second)
		if n := len(r.cfg.Setup().Cameras); n != 2 || r.reported("config.model.parcels.paused") != false {
			t.Errorf("%d cameras run, reported %v", n, r.reported("config.model.parcels.paused"))
		}
		if _, from := r.fleet.Effective("model.parcels.paused"); from != twin.FromNowhere {
			t.Error("the fleet did not hear that it was cleared")
		}
		if got := r.kinds(); got != "set model.parcels.paused, cleared model.parcels.paused" {
			t.Errorf("history: %s", got)
		}
	})
}

// TestConflict: both sides set a key in a partition; each policy is told, and hold stands
// as a conflict until the fleet decides.
func TestConflict(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		r.down()
		for i, key := range []string{"app.hold1", "app.edge1", "app.other"} {
			r.set(key, i, 0)
			r.edit(map[string]any{key: 10 + i})
		}
		r.up()
		r.holds("app.hold1", 0)
		r.holds("app.edge1", 1)
		r.holds("app.other", 12)
		if c := r.sh.Conflicts(); len(c) != 1 || c[0].Key != "app.hold1" {
			t.Errorf("conflicts: %+v", c)
		}
		if a, b, c := r.says("twin/app.hold1"), r.says("twin/app.edge1"), r.says("twin/app.other"); a != "held" || b != "decided" || c != "decided" {
			t.Errorf("told %q, %q, %q", a, b, c)
		}
		r.edit(map[string]any{"app.hold1": 5})
		r.wait(time.Second)
		r.holds("app.hold1", 5)
		if got := r.says("twin/app.hold1"); got != "replaced" || len(r.sh.Conflicts()) != 0 {
			t.Errorf("told %q, conflicts %v", got, r.sh.Conflicts())
		}
	})
}

// TestWear: what the board reports costs no write, and at most four messages in a
// second; what does not change costs nothing.
func TestWear(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		writes, ups := r.disk.writes, len(r.ups)
		for i := range 1000 {
			if err := r.sh.Report(map[string]twin.Value{"output.valve": val(t, i), "still": val(t, 1)}); err != nil {
				t.Fatal(err)
			}
			r.wait(10 * time.Millisecond)
		}
		r.wait(time.Second)
		if n := r.disk.writes - writes; n != 0 {
			t.Errorf("%d writes", n)
		}
		if n := len(r.ups) - ups; n < 30 || n > 41 {
			t.Errorf("%d messages in 10 s", n)
		}
		if r.reported("output.valve") != uint64(999) {
			t.Errorf("reported %v", r.reported("output.valve"))
		}
		ups = len(r.ups)
		for range 3 {
			r.up()
		}
		if n := r.disk.writes - writes; n != 0 || len(r.ups) != ups+3 {
			t.Errorf("three connections without a change: %d writes, %d messages", n, len(r.ups)-ups)
		}
		r.wait(24 * time.Hour)
		if n := r.disk.writes - writes; n != 0 {
			t.Errorf("%d writes in a day without a change", n)
		}
	})
}

// TestDiskFails: what cannot be saved is refused, not applied and not told; what the
// fleet sent is asked for again; the fleet hears of the disk, once, and that it is well again.
func TestDiskFails(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		r.disk.bad = errors.New("read-only")
		if err := r.sh.Set("log.level", twin.Edit{Value: val(t, "debug")}); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("set without a disk: %v", err)
		}
		r.edit(map[string]any{"app.x": 1})
		r.wait(100 * time.Second)
		r.holds("log.level", nil)
		r.holds("app.x", nil)
		if _, board := r.fleet.Version(); board != 0 {
			t.Errorf("the fleet thinks that version %d is kept", board)
		}
		if got := r.says("twin"); !strings.HasPrefix(got, "not-kept") {
			t.Errorf("told %q", got)
		}
		r.disk.bad = nil
		r.wait(31 * time.Second)
		r.holds("app.x", 1)
		if got := r.says("twin"); got != "ok" {
			t.Errorf("told %q", got)
		}
	})
}

// TestLeases: a lease ends after the time that the board ran: over restarts of the
// program all of it, over power cuts to within a minute, whatever the wall clock does.
func TestLeases(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.set("app.a", 1, 10*time.Minute)
		wall := time.Now()
		r.clock = r.clock.WithWall(func() time.Time { return wall })
		r.wait(2 * time.Minute)
		wall = wall.Add(-30 * 365 * 24 * time.Hour)
		r.crash()
		r.wait(3 * time.Minute) // the program is away, the board runs
		r.start()
		r.wait(5*time.Minute - 2*time.Second)
		r.holds("app.a", 1)
		if left, _ := r.sh.st.board.Lease("app.a"); left > 62*time.Second || left < time.Second {
			t.Errorf("after nearly ten minutes %v are left", left)
		}
		wall = wall.Add(60 * 365 * 24 * time.Hour)
		r.wait(time.Second)
		r.holds("app.a", 1)
		r.wait(2 * time.Second)
		r.holds("app.a", nil)
		if got := r.says("twin/app.a"); got != "expired" {
			t.Errorf("told %q", got)
		}
		// A power cut.
		r.set("app.b", 1, 10*time.Minute)
		writes := r.disk.writes
		r.wait(5*time.Minute + 30*time.Second)
		if n := r.disk.writes - writes; n < 4 || n > 6 {
			t.Errorf("%d writes in five and a half minutes of a lease", n)
		}
		r.crash()
		r.wait(time.Hour)
		r.reboot(2 * time.Minute) // so long it ran before fulmard was started
		r.start()
		defer r.end()
		if left, _ := r.sh.st.board.Lease("app.b"); left > 3*time.Minute+30*time.Second || left < 2*time.Minute+30*time.Second {
			t.Errorf("of ten minutes, after five and a half, a power cut and two, %v are left", left)
		}
		r.wait(3*time.Minute + 30*time.Second)
		r.holds("app.b", nil)
		r.set("app.c", 1, time.Minute)
		r.disk.bad = errors.New("read-only")
		r.wait(61 * time.Second)
		r.holds("app.c", nil) // a lease ends whatever the disk does
		r.disk.bad = nil
		r.wait(31 * time.Second)
		r.crash()
		r.start()
		r.holds("app.c", nil)
	})
}

// TestDamage: a board whose files are gone or damaged begins without a past, says so, and
// gets what the fleet has: desired, and what was set on it and had come there.
func TestDamage(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.up()
		r.edit(map[string]any{"app.x": 1})
		r.set("app.y", 2, 0)
		r.wait(time.Second)
		first := r.sh.instance
		r.end()
		for name := range r.disk.files {
			r.disk.files[name][70] ^= 1
		}
		r.start()
		defer r.end()
		r.wait(time.Millisecond)
		if got := r.says("twin"); got != "damaged" || len(r.disk.files["state.0.bad"]) == 0 {
			t.Errorf("told %q, aside %d", got, len(r.disk.files["state.0.bad"]))
		}
		r.holds("app.x", nil)
		r.up()
		r.holds("app.x", 1)
		r.holds("app.y", 2)
		if r.sh.instance == first {
			t.Error("the same instance after its state was lost")
		}
		if len(r.ups) > 10 {
			t.Errorf("%d messages", len(r.ups))
		}
	})
}

// TestOutbox: what is to be told is told also by the run after one that died before it did.
func TestOutbox(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.disk.files["state.0"] = []byte("no state")
		New(r.config()) // and dies
		r.start()
		r.end()
		if got := r.says("twin"); got != "damaged,ok" {
			t.Errorf("told %q", got)
		}
		r.start()
		defer r.end()
		if got := r.says("twin"); got != "" {
			t.Errorf("told again: %q", got)
		}
	})
}

// TestName: a board that gets its name later takes what is signed for it; what was kept for
// another board is given up.
func TestName(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		c := r.config()
		c.Tenant, c.Board = "", ""
		r.sh = New(c)
		r.run()
		r.sh.Name("t", "b")
		if err := r.sh.Report(map[string]twin.Value{"x": val(t, 3)}); err != nil {
			t.Fatal(err)
		}
		r.up()
		r.edit(map[string]any{"app.x": 1})
		r.wait(time.Second)
		r.holds("app.x", 1)
		r.end()
		r.sh = New(c)
		r.run()
		r.sh.Name("t", "b")
		r.holds("app.x", 1)
		if err := r.sh.Report(map[string]twin.Value{"x": val(t, 3)}); err != nil {
			t.Fatal(err)
		}
		r.sh.Name("t", "other")
		r.holds("app.x", nil)
		r.sh.Name("t", "b")
		r.up()
		r.holds("app.x", 1)
		if r.reported("x") != uint64(3) {
			t.Error("what the parts reported is gone with the name")
		}
		r.end()
	})
}

// TestRebase: the file changes under the twin: a key whose camera went has no effect and
// says so, and has it again when the camera is back; a refusal is looked at again.
func TestRebase(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		r.edit(map[string]any{"camera.cam1.fps": 2, "camera.cam2.fps": 3})
		r.wait(time.Second)
		whole := r.base
		next := whole
		next.Log.Level = "warn"
		next.Cameras = append(next.Cameras[:1:1], config.Camera{Name: "cam2", Kind: "scene", FPS: 9, Model: "parcels"})
		r.base = next
		r.sh.Rebase(t.Context())
		if len(r.cfg.Cameras) != 2 || r.cfg.Cameras[1].FPS != 3 || r.cfg.Log.Level != "warn" {
			t.Errorf("in force %+v", r.cfg.Cameras)
		}
		r.wait(time.Second)
		refused, _ := r.reported(ReportRefused).(map[any]any)
		if len(refused) != 1 || refused["camera.cam1.fps"] == nil {
			t.Errorf("refused %v", refused)
		}
		r.base = whole
		r.sh.Rebase(t.Context())
		if r.cfg.Cameras[1].FPS != 2 {
			t.Errorf("in force %+v", r.cfg.Cameras)
		}
	})
}

// TestLost: a message that does not come through leaves nothing behind for good: the
// digests are compared anew on the same connection.
func TestLost(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.end()
		r.up()
		lost := 1
		r.lose = func() bool { lost--; return lost >= 0 }
		r.set("app.x", 1, 0)
		r.wait(time.Second)
		if v, _ := r.fleet.Effective("app.x"); v != nil {
			t.Fatal("nothing was lost")
		}
		r.wait(sendAgain)
		if v, _ := r.fleet.Effective("app.x"); v == nil {
			t.Error("the fleet never heard of it")
		}
		// More from the fleet than the board takes at once.
		d, err := schema.Encode(&struct {
			V uint8 `cbor:"1,keyasint"`
		}{9})
		if err != nil {
			t.Fatal(err)
		}
		ups := len(r.ups)
		for range 20 {
			r.sh.Down(d)
		}
		r.sh.Down(make([]byte, schema.MaxPayload+1))
		r.wait(sendAgain + time.Second)
		if len(r.ups) != ups+1 {
			t.Errorf("%d messages after the flood", len(r.ups)-ups)
		}
	})
}

// TestForged: what is not signed by a key that may is not taken and told; once it is, the
// board has it.
func TestForged(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		c, known := r.config(), false
		c.Open = func(e []byte) ([]byte, error) {
			if !known {
				return nil, errors.New("no key that may sign it")
			}
			return open(e)
		}
		r.sh = New(c)
		r.run()
		defer r.end()
		r.up()
		r.edit(map[string]any{"app.x": 1})
		r.wait(time.Second)
		r.holds("app.x", nil)
		if got := r.says("twin"); got != "forged" {
			t.Errorf("told %q", got)
		}
		known = true
		r.sh.Again()
		r.wait(time.Second)
		r.holds("app.x", 1)
		if got := r.says("twin"); got != "ok" {
			t.Errorf("told %q", got)
		}
	})
}

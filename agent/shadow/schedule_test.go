// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/shadow/settings"
	"fulmar/schema"
	"fulmar/twin"
)

var (
	seedFlag  = flag.Uint64("shadow.seed", 0, "run only this schedule, and tell it")
	seedsFlag = flag.Int("shadow.schedules", 300, "how many random schedules")
)

// world is a rig to which things happen.
type world struct {
	*rig
	rnd   *rand.Rand
	n     uint64
	maybe map[string]uint64 // the same for what was in the write in which the power went
	acked map[string]uint64 // key: the newest value whose author was told that it is kept
}

// schedKeys are the keys of the schedules; each author has keys of his own, so that what was
// acknowledged must be what holds. That of conflicts is package twin's to test.
func schedKeys() (board, fleet []string) {
	return []string{"app.a", "app.b", "camera.cam0.fps"}, []string{"app.c", "app.d", "camera.cam1.fps"}
}

func (w *world) value() uint64 { w.n++; return 1 + w.n%200 }

// cutDuring does something while the power goes in its first write, if there is one, before
// or after the file is replaced. It tells whether it went.
func (w *world) cutDuring(f func()) (cut bool) {
	whole, d := w.rnd.IntN(2) == 0, w.disk
	defer func() {
		d.cut = nil
		if p := recover(); p != nil && p != errPower { //nolint:errorlint // the very value
			panic(p)
		} else if p != nil {
			cut = true
		}
	}()
	d.cut = func(string) bool { return whole }
	f()
	return false
}

// restart brings the board up again, the power going once more now and then in the first
// write of its start.
func (w *world) restart(power bool) {
	if power {
		w.reboot(time.Duration(5+w.rnd.IntN(60)) * time.Second)
	}
	for w.rnd.IntN(4) == 0 {
		if !w.cutDuring(func() { New(w.rig.config()) }) {
			continue
		}
		w.reboot(5 * time.Second)
	}
	w.start()
}

func (w *world) step() {
	mine, theirs := schedKeys()
	switch k := w.rnd.IntN(100); {
	case k < 25:
		key, v := mine[w.rnd.IntN(len(mine))], w.value()
		lost := false
		set := func() error { return w.sh.Set(key, twin.Edit{Value: val(w.t, v), Author: "local/eva"}) }
		if w.rnd.IntN(4) == 0 { // the power goes in the middle of it
			lost = w.cutDuring(func() {
				if err := set(); err == nil {
					w.acked[key] = v
				}
			})
			if lost {
				w.crash()
				w.restart(true)
				if got, _ := w.sh.Get(key); bytes.Equal(got, val(w.t, v)) {
					w.acked[key] = v // it came to the disk, unacknowledged
				}
			}
			return
		}
		if err := set(); err != nil {
			w.t.Error(err)
		}
		w.acked[key] = v
	case k < 45:
		key, v := theirs[w.rnd.IntN(len(theirs))], w.value()
		w.edit(map[string]any{key: v})
		w.acked[key] = v
	case k < 55:
		w.up()
	case k < 62:
		w.down()
	case k < 70:
		w.crash()
		w.restart(w.rnd.IntN(2) == 0)
	case k < 73: // the power goes in one of the next writes, whoever makes it
		w.disk.last = w.disk.writes + w.rnd.IntN(4)
		for range 1 + w.rnd.IntN(8) {
			switch key, v := mine[w.rnd.IntN(len(mine))], w.value(); w.rnd.IntN(3) {
			case 0:
				if w.sh.Set(key, twin.Edit{Value: val(w.t, v), Author: "local/eva"}) == nil {
					w.acked[key] = v
				} else if _, there := w.maybe[key]; !there {
					w.maybe[key] = v // it may have come to the disk; the ones after it did not
				}
			case 1:
				key = theirs[w.rnd.IntN(len(theirs))]
				w.edit(map[string]any{key: v})
				w.acked[key] = v
			default:
				w.up()
			}
			w.wait(time.Duration(w.rnd.IntN(300)) * time.Millisecond)
		}
		w.crash()
		w.restart(true)
		for key, v := range w.maybe {
			if got, _ := w.sh.Get(key); bytes.Equal(got, val(w.t, v)) {
				w.acked[key] = v
			}
		}
		clear(w.maybe)
	case k < 75:
		w.end()
		w.restart(false)
	case k < 80: // the fleet's process
		b, err := w.fleet.Save()
		if err != nil {
			w.t.Fatal(err)
		}
		w.down()
		w.fleetOf(b)
	case k < 85:
		jump := time.Now().Add(time.Duration(w.rnd.IntN(2_000_000)-1_000_000) * time.Hour)
		w.clock = w.clock.WithWall(func() time.Time { return jump })
	case k < 90:
		if err := w.sh.Report(map[string]twin.Value{"output.x": val(w.t, w.value())}); err != nil {
			w.t.Error(err)
		}
	default:
		w.wait(time.Duration(w.rnd.IntN(90)) * time.Second)
	}
	w.wait(time.Duration(w.rnd.IntN(300)) * time.Millisecond)
}

// check heals the link and says what must hold.
func (w *world) check() {
	w.lose = func() bool { return false }
	w.down()
	w.wait(time.Second)
	ups, downs := len(w.ups), w.downs
	w.up()
	w.wait(time.Second)
	if u, d := len(w.ups)-ups, w.downs-downs; u > 3 || d > 2 { // what it is, anew, goes as a change
		w.t.Errorf("healing took %d messages up and %d down", u, d)
	}
	w.wait(10 * time.Minute)
	for key, v := range w.acked {
		if got, _ := w.sh.Get(key); !bytes.Equal(got, val(w.t, v)) {
			_, refused := w.sh.Version()
			if refused[key] == "" && !w.undone(key) {
				w.t.Errorf("%s holds %x, acknowledged was %d", key, got, v)
			}
		}
		fv, fs := w.fleet.Effective(key)
		bv, bs := w.sh.Get(key)
		if _, refused := w.sh.Version(); refused[key] == "" && (!bytes.Equal(fv, bv) || fs != bs) {
			w.t.Errorf("%s is %x on the board and %x at the fleet", key, bv, fv)
		}
	}
	base := w.base
	want, _, err := settings.Overlay(&base, w.sh.Effective())
	if err != nil || !reflect.DeepEqual(*w.cfg, want) {
		w.t.Errorf("in force is not what holds: %v", err)
	}
	w.sh.mu.Lock()
	if !maps.EqualFunc(w.sh.st.board.Reported(), w.fleet.Reported(), func(x, y twin.Value) bool { return bytes.Equal(x, y) }) {
		w.t.Error("reported differs")
	}
	w.sh.mu.Unlock()
	if newest, board := w.fleet.Version(); newest != board {
		w.t.Errorf("the fleet thinks the board has %d of %d", board, newest)
	}
}

// undone tells whether the history has it that a key was undone: the starts of a schedule
// are crashes to the board.
func (w *world) undone(key string) bool {
	for _, c := range w.sh.History() {
		if c.Kind == KindUndone && (c.Key == key || c.Key == "") {
			return true
		}
	}
	return false
}

// TestSchedules: whatever is cut, lost or jumps, and wherever the power goes, what was
// acknowledged is there or undone with a word, both sides come to the same, and what
// holds is in force.
func TestSchedules(t *testing.T) {
	t.Parallel()
	first, n := uint64(1), *seedsFlag
	if *seedFlag > 0 {
		first, n = *seedFlag, 1
	}
	if testing.Short() {
		n = min(n, 50)
	}
	for i := range n {
		seed := first + uint64(i)
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{rig: newRig(t), rnd: rand.New(rand.NewPCG(seed, 2)), acked: map[string]uint64{}, maybe: map[string]uint64{}}
				line := rand.New(rand.NewPCG(seed, 3)) // the Shadow's goroutines ask, the test's and its timers
				var one sync.Mutex
				w.lose = func() bool {
					one.Lock()
					defer one.Unlock()
					return line.IntN(12) == 0
				}
				w.start()
				for range 20 + w.rnd.IntN(40) {
					w.step()
				}
				w.check()
				w.end()
			})
		})
		if !ok {
			t.Fatalf("to see it: go test ./agent/shadow -run TestSchedules -shadow.seed %d -v", seed)
		}
	}
}

// FuzzDown: nothing that the fleet, or somebody in its place, says takes the board down,
// and what it keeps afterwards can be opened.
func FuzzDown(f *testing.F) {
	seedRig(f)
	f.Fuzz(func(t *testing.T, m []byte) {
		r := newRig(t)
		sh := New(r.config())
		sh.Connected(t.Context(), 1)
		sh.mu.Lock()
		sh.st.board.Hello(1)
		sh.mu.Unlock()
		sh.receive(m)
		_, _ = sh.Look()
		again := New(r.config())
		if got := again.instance; got == sh.instance {
			t.Error("the same instance twice")
		}
		if !reflect.DeepEqual(again.Effective(), sh.Effective()) {
			t.Errorf("holds %v, after a restart %v", sh.Effective(), again.Effective())
		}
	})
}

// seedRig gives the fuzzer real messages.
func seedRig(f *testing.F) {
	fl, err := twin.NewFleet(twin.FleetConfig{Tenant: "t", Board: "b", Instance: twin.InstanceOf('f', 1, 1), Sign: sign, Open: open}, nil)
	if err != nil {
		f.Fatal(err)
	}
	fl.Connect(1)
	for i := range 3 {
		if _, err := fl.Edit("dora", "", map[string]twin.Value{"log.level": val(f, []string{"debug", "warn", "no"}[i]), fmt.Sprint("app.", i): val(f, i)}); err != nil {
			f.Fatal(err)
		}
		b, err := schema.Encode(fl.Push())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

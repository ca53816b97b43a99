// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/ota/record"
	"fulmar/ota/release"
	words "fulmar/schema/ota"
)

// play runs an updater in simulated time.
func play(t *testing.T, fn func(r *rig, u *Updater)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.live(fn)
	})
}

// live is one life of the program on the rig.
func (r *rig) live(fn func(r *rig, u *Updater)) {
	r.t.Helper()
	u := r.updater(1, time.Hour+time.Until(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))*-1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	time.Sleep(time.Second)
	fn(r, u)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		r.t.Error(err)
	}
}

func (r *rig) offer(u *Updater, o Order, want error) {
	r.t.Helper()
	if err := u.Offer(o); !errors.Is(err, want) {
		r.t.Errorf("offer of attempt %d: %v, wants %v", o.Attempt, err, want)
	}
	time.Sleep(100 * time.Millisecond)
}

// of gives the words on an attempt, with the words of their reasons.
func (r *rig) of(attempt uint64) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.told {
		if s.Attempt == attempt {
			out = append(out, strings.TrimSpace(s.State+" "+wordOf(s.Reason)))
		}
	}
	return out
}

func (r *rig) ends(attempt uint64, want string) {
	r.t.Helper()
	got := r.of(attempt)
	if len(got) == 0 || got[len(got)-1] != want {
		r.t.Errorf("attempt %d was told as %q, wants %q at its end", attempt, got, want)
	}
}

func (r *rig) set(fn func()) { r.mu.Lock(); defer r.mu.Unlock(); fn() }

// TestLife: the words in their order, and the floor only behind the commit.
func TestLife(t *testing.T) {
	t.Parallel()
	play(t, func(r *rig, u *Updater) {
		r.offer(u, testOrder("agent", 9), nil)
		time.Sleep(30 * time.Second)
		if s := u.Status(); s.Work == nil || s.Work.State != words.Trial || s.Work.Ends > 10*time.Minute || r.floor != 2 {
			t.Errorf("%+v, floor %d", s.Work, r.floor)
		}
		time.Sleep(time.Minute)
		want := []string{"offered", "admitted", "fetching", "staged", "ready", "switching", "trial", "trial", "committed"}
		if got := r.of(9); !slices.Equal(got, want) {
			t.Errorf("told %q, wants %q", got, want)
		}
		if c, f := slices.Index(r.calls, "confirm"), slices.Index(r.calls, "raise"); c < 0 || f < c || r.floor != 4 {
			t.Errorf("floor %d, calls %q", r.floor, r.calls)
		}
		if last := r.last(); last.Release != "2.0" || last.Floor != 4 || last.Component != "agent" {
			t.Errorf("%+v", last)
		}
		// What is told again, and what is not taken.
		told, calls := len(r.told), len(r.calls)
		r.offer(u, testOrder("agent", 9), nil)
		r.offer(u, testOrder("agent", 8), ErrOld)
		if len(r.told) != told+1 || r.last().State != words.Committed || len(r.calls) != calls {
			t.Errorf("told %d more, %d calls", len(r.told)-told, len(r.calls)-calls)
		}
		if n, known := u.Attempts("agent"); n != 9 || !known {
			t.Errorf("attempt %d, %v", n, known)
		}
		if _, known := u.Attempts("worker"); known {
			t.Error("of a new record nothing is sure")
		}
		if h, err := u.History(); err != nil || len(h) != 1 || h[0].Path != "offered admitted fetching staged ready switching trial trial committed" || h[0].Took < 60_000 || h[0].Before != "1.0" {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

// TestNewer: before it is in force an update gives way to a newer one, and after that it is led
// to its end first.
func TestNewer(t *testing.T) {
	t.Parallel()
	play(t, func(r *rig, u *Updater) {
		r.set(func() { r.against = []Refusal{{Reason: words.Window, Text: "at two", Passes: true}} })
		r.offer(u, testOrder("agent", 9), nil)
		time.Sleep(time.Minute)
		r.ends(9, "scheduled window")
		r.offer(u, testOrder("agent", 10), nil)
		r.ends(9, "failed superseded")
		r.set(func() { r.against = nil })
		time.Sleep(45 * time.Second)
		r.ends(10, "trial")
		r.offer(u, testOrder("agent", 11), nil)
		r.ends(10, "trial")
		time.Sleep(3 * time.Minute)
		r.ends(10, "committed")
		r.ends(11, "committed runs already")
	})
}

// TestUndo: taken back in a trial, after it, below the floor, and where there is nothing.
func TestUndo(t *testing.T) {
	t.Parallel()
	undo := func(attempt uint64) Order {
		return Order{Rollout: "r-1", Component: "agent", Release: "2.0", Attempt: attempt, Act: release.ActUndo, Before: "1.0"}
	}
	play(t, func(r *rig, u *Updater) {
		r.offer(u, undo(5), nil)
		time.Sleep(time.Second)
		r.ends(5, "rolled-back nothing of this rollout runs here")
		r.offer(u, testOrder("agent", 9), nil)
		time.Sleep(30 * time.Second)
		r.offer(u, undo(10), nil)
		time.Sleep(time.Minute)
		r.ends(9, "rolled-back undone")
		r.ends(10, "rolled-back nothing of this rollout runs here")
		if r.standing["new"] != Fallen || r.floor != 2 {
			t.Errorf("%s, floor %d", r.standing["new"], r.floor)
		}
		r.offer(u, testOrder("agent", 11), nil)
		time.Sleep(2 * time.Minute)
		r.ends(11, "committed")
		r.offer(u, undo(12), nil)
		time.Sleep(time.Minute)
		r.ends(12, "failed refused") // the floor is at 4 now, and 1.0 ran under 2
		r.set(func() { r.floor = 2 })
		r.offer(u, undo(13), nil)
		time.Sleep(time.Minute)
		r.ends(13, "rolled-back undone")
		if last := r.last(); last.Release != "1.0" || r.standing["new"] != Fallen {
			t.Errorf("%+v", last)
		}
	})
}

// TestShadow: a shadow is committed without a switch, and taken back by its end.
func TestShadow(t *testing.T) {
	t.Parallel()
	play(t, func(r *rig, u *Updater) {
		o := testOrder("model/parcels", 9)
		o.Act = release.ActShadow
		r.offer(u, o, nil)
		time.Sleep(time.Minute)
		r.ends(9, "committed")
		if r.count("shadow new") != 1 || r.count("switch") != 0 || r.floor != 2 || r.last().Release != "1.0" {
			t.Errorf("%q, floor %d, %+v", r.calls, r.floor, r.last())
		}
		r.offer(u, Order{Rollout: "r-1", Component: "model/parcels", Release: "2.0", Attempt: 10, Act: release.ActUndo}, nil)
		time.Sleep(time.Minute)
		r.ends(10, "rolled-back undone")
		if r.count("shadow ") != 1 || r.count("back") != 0 {
			t.Errorf("%q", r.calls)
		}
	})
}

// TestFullDisk: nothing is tried again before so much is free as was missing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	play(t, func(r *rig, u *Updater) {
		r.set(func() { r.failing["stage"] = syscall.ENOSPC; r.free = 20 << 20 })
		r.offer(u, testOrder("agent", 9), nil)
		time.Sleep(5 * time.Minute)
		r.ends(9, "scheduled no-space")
		r.set(func() { r.free += 7 << 20; delete(r.failing, "stage") }) // 8 are missing
		time.Sleep(time.Hour)
		if n := r.count("stage"); n != 1 {
			t.Errorf("staged %d times on a full disk", n)
		}
		r.ends(9, "scheduled no-space")
		r.set(func() { r.free += 1 << 20 })
		time.Sleep(5 * time.Minute)
		r.ends(9, "committed")
	})
	play(t, func(r *rig, u *Updater) {
		r.set(func() { r.free = 1 << 20 })
		o := testOrder("agent", 9)
		o.Deadline = time.Hour
		r.offer(u, o, nil)
		time.Sleep(61 * time.Minute)
		r.ends(9, "failed no-space")
		if r.count("fetch") != 0 {
			t.Error("fetched with no space")
		}
	})
}

// TestPeople: orders of people at the board have no number; the same one is not tried a third time.
// What waits and what runs can be aborted.
func TestPeople(t *testing.T) {
	t.Parallel()
	play(t, func(r *rig, u *Updater) {
		local := testOrder("agent", 0)
		local.Local, local.Rollout = true, "local"
		r.set(func() { r.verdict = Bad })
		for range 2 {
			r.offer(u, local, nil)
			time.Sleep(time.Minute)
			r.ends(1, "rolled-back health")
		}
		r.offer(u, local, ErrLoop)
		r.set(func() { r.verdict = Good })
		r.offer(u, testOrder("agent", 1), nil) // a number of its own, though the same
		time.Sleep(30 * time.Second)
		if err := u.Abort(context.Background(), "worker"); !errors.Is(err, ErrNothing) {
			t.Errorf("%v", err)
		}
		r.offer(u, testOrder("model/parcels", 3), nil)
		if err := u.Abort(context.Background(), ""); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		r.ends(3, "failed aborted")
		r.ends(1, "rolled-back aborted")
	})
}

// TestBounds: of more orders than have a place, the fleet hears nothing and sends them again.
func TestBounds(t *testing.T) {
	t.Parallel()
	play(t, func(r *rig, u *Updater) {
		r.set(func() { r.against = []Refusal{{Reason: words.Busy, Text: "an engine is built", Passes: true}} })
		r.offer(u, testOrder("agent", 1), nil)
		for i := range uint64(record.MaxQueue + 3) {
			r.offer(u, testOrder("model/m"+string(rune('a'+i)), 100+i), nil)
		}
		if s := u.Status(); len(s.Waiting) != record.MaxQueue {
			t.Errorf("%d wait", len(s.Waiting))
		}
		if len(r.of(100)) != 1 || len(r.of(100+record.MaxQueue)) != 0 {
			t.Errorf("%q, %q", r.of(100), r.of(100+record.MaxQueue))
		}
		r.set(func() { r.against = nil })
		time.Sleep(10 * time.Minute)
		r.ends(1, "committed")
		r.ends(100, "failed needs") // the rig has no installer for it
		if ents, _ := os.ReadDir(filepath.Join(r.dir, "ota", "manifests")); len(ents) != 0 {
			t.Errorf("%d manifests are left", len(ents))
		}
		for _, bad := range []func(*Order){
			func(o *Order) { o.Rollout = "" }, func(o *Order) { o.Attempt = 0 }, func(o *Order) { o.Component = "kernel" }, func(o *Order) { o.Raw = nil },
			func(o *Order) { o.Manifest = nil }, func(o *Order) { o.Act = "sell" }, func(o *Order) { o.Rollout = "a\nb" }, func(o *Order) { o.Component = "worker" },
		} {
			o := testOrder("agent", 99)
			bad(&o)
			r.offer(u, o, ErrOrder)
		}
	})
}

// TestUntold: a last word that could not be kept for the fleet is told until it can, over a start.
func TestUntold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.live(func(r *rig, u *Updater) {
			r.set(func() { r.unmet = []string{"L4T 36"}; r.failing["tell"] = errors.New("the spool is full") })
			r.offer(u, testOrder("agent", 9), nil)
			time.Sleep(time.Minute)
		})
		r.set(func() { r.told = nil })
		r.live(func(r *rig, u *Updater) {
			time.Sleep(time.Minute)
			r.ends(9, "failed needs")
			r.set(func() { r.told = nil; delete(r.failing, "tell") })
			time.Sleep(time.Minute)
			if got := r.of(9); len(got) != 1 {
				t.Errorf("told %q", got)
			}
		})
	})
}

// TestHangs: an installer that hangs for good, and hears no context, keeps nothing from its end.
func TestHangs(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{"stage": "failed deadline", "switch": "failed deadline", "panic": "failed disk"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			free := make(chan struct{})
			u := r.updater(1, time.Hour)
			inner := u.deps.Installer
			u.deps.Installer = func(c string) Installer { return &hanging{inner(c), what, free} }
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- u.Run(ctx) }()
			time.Sleep(time.Second)
			r.offer(u, testOrder("agent", 9), nil)
			time.Sleep(3 * time.Hour)
			r.ends(9, want)
			cancel()
			<-done
			close(free)
		})
	}
}

type hanging struct {
	Installer
	what string
	free chan struct{}
}

func (h *hanging) Stage(ctx context.Context, c *release.Component, paths map[string]string) (string, error) {
	switch h.what {
	case "stage":
		<-h.free
	case "panic":
		panic("nil map")
	}
	return h.Installer.Stage(ctx, c, paths)
}

func (h *hanging) Switch(ctx context.Context, token string) (Restart, error) {
	if h.what == "switch" {
		<-h.free
	}
	return h.Installer.Switch(ctx, token)
}

// TestLost: a record of which both copies are damaged is told, once, and updates go on.
func TestLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.live(func(r *rig, u *Updater) { r.offer(u, testOrder("agent", 9), nil); time.Sleep(30 * time.Second) })
		for _, name := range []string{"record.a", "record.b"} {
			path := filepath.Join(r.dir, "ota", name)
			b, err := os.ReadFile(path)
			if err == nil {
				b[40] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		warned := 0
		for range 2 {
			u := r.updater(1, time.Hour)
			u.deps.Warn = func(reason, text string) {
				if warned++; reason != words.Disk || !strings.Contains(text, "damaged") {
					t.Errorf("%s: %s", reason, text)
				}
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- u.Run(ctx) }()
			time.Sleep(time.Second)
			if s := u.Status(); !s.Lost || s.Work != nil {
				t.Errorf("%+v", s)
			}
			if _, known := u.Attempts("agent"); known && warned == 1 && r.count("stage") == 1 {
				t.Error("the attempts are known")
			}
			r.standing["new"] = NotYet
			r.offer(u, testOrder("agent", 9), nil)
			time.Sleep(2 * time.Minute)
			r.ends(9, "committed")
			cancel()
			<-done
		}
		if warned != 1 {
			t.Errorf("warned %d times", warned)
		}
	})
}

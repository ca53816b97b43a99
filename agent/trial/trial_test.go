// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/ota/slot"
	"fulmar/schema"
)

// store has a slot of each version; the last one is current, on trial.
func store(t *testing.T, versions ...string) (*slot.Store, []string) {
	t.Helper()
	s := slot.Open(t.TempDir())
	var ids []string
	for _, v := range versions {
		path := filepath.Join(t.TempDir(), "fulmard")
		if err := os.WriteFile(path, []byte("program "+v), 0o755); err != nil {
			t.Fatal(err)
		}
		sl, err := s.Write(v, slot.FromDeb, map[string]string{slot.Agent: path})
		if err == nil {
			_, err = s.Switch(sl.ID)
		}
		if err == nil {
			_, err = s.Begin()
		}
		if err == nil && len(ids) < len(versions)-1 {
			_, err = s.Confirm(sl.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, sl.ID)
	}
	return s, ids
}

func slotOf(s *slot.Store, id, env string) Slot {
	return find(s.Path(id, slot.Agent), env, 7)
}

// words records what is told.
type words struct {
	mu  sync.Mutex
	all []string
}

func (w *words) say(subject, state string, sev schema.Severity, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf("%s %s %d: %s", subject, state, sev, text))
}

func (w *words) want(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.EqualFunc(w.all, want, strings.HasPrefix) {
		t.Errorf("told\n\t%s\nwants\n\t%s", strings.Join(w.all, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// onTrial runs Keep for a while with a progress that moves at the given seconds, and
// tells whether the slot is still on trial then.
func onTrial(t *testing.T, w *words, seconds int, moves func(second int) bool) (still bool) {
	synctest.Test(t, func(t *testing.T) {
		s, ids := store(t, "1.0", "2.0")
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		n := uint64(5) // not 0: what was before is no progress
		done := make(chan error)
		go func() {
			done <- Keep(ctx, slotOf(s, ids[1], ""), func() uint64 {
				mu.Lock()
				defer mu.Unlock()
				return n
			}, w.say)
		}()
		for i := range seconds {
			if moves(i) {
				mu.Lock()
				n++
				mu.Unlock()
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		st, _, err := s.State()
		if err != nil {
			t.Error(err)
		}
		still = st.Trial
	})
	return still
}

func TestProgressConfirms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		seconds int
		moves   func(int) bool
		still   bool
	}{
		{"each second", 63, func(int) bool { return true }, false},
		{"each second, not long enough", 59, func(int) bool { return true }, true},
		{"once a minute", 125, func(i int) bool { return i%60 == 30 }, false},
		{"none at all", 600, func(int) bool { return false }, true},
		{"one, then it hangs", 600, func(i int) bool { return i == 1 }, true},
		{"it hangs after 50 s", 600, func(i int) bool { return i < 50 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var w words
			if got := onTrial(t, &w, c.seconds, c.moves); got != c.still {
				t.Errorf("on trial: %v, wants %v", got, c.still)
			}
			if c.still {
				w.want(t, "slot/fall none 0", "slot trial 0: runs from slot 2.0-")
			} else {
				w.want(t, "slot/fall none 0", "slot trial 0: runs from slot 2.0-", "slot confirmed 0: slot 2.0-")
			}
		})
	}
}

// TestFallIsToldOnce: the start after a going back tells it, the one after that does
// not, and a newer slot that is confirmed ends it.
func TestFallIsToldOnce(t *testing.T) {
	t.Parallel()
	s, ids := store(t, "1.0", "2.0")
	if _, err := s.Back(ids[1], "not confirmed in 3 starts"); err != nil {
		t.Fatal(err)
	}
	keep := func(id string) *words {
		w := new(words)
		synctest.Test(t, func(t *testing.T) {
			n := uint64(0)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			if err := Keep(ctx, slotOf(s, id, ""), func() uint64 { n++; return n }, w.say); err != nil {
				t.Error(err)
			}
		})
		return w
	}
	keep(ids[0]).want(t, "slot/fall went-back 1: went back from slot 2.0-", "slot confirmed 0: runs from slot 1.0-")
	keep(ids[0]).want(t, "slot confirmed 0: runs from slot 1.0-")
	if _, err := s.Switch(ids[1]); err != nil {
		t.Fatal(err)
	}
	keep(ids[0]).want(t, "slot not-current 1: runs from slot 1.0-")
	keep(ids[1]).want(t, "slot trial 0", "slot confirmed 0: slot 2.0-", "slot/fall over 0")
	keep(ids[1]).want(t, "slot/fall none 0", "slot confirmed 0: runs from slot 2.0-")
}

// TestSwitchedMeanwhile: a slot that is switched away from while it proves itself does
// not confirm the new one.
func TestSwitchedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, ids := store(t, "1.0", "2.0")
		var w words
		n := uint64(0)
		err := Keep(t.Context(), slotOf(s, ids[1], ""), func() uint64 {
			if n++; n == 30 {
				if _, err := s.Switch(ids[0]); err != nil {
					t.Error(err)
				}
			}
			return n
		}, w.say)
		if st, _, _ := s.State(); err != nil || !st.Trial || st.Current != ids[0] {
			t.Errorf("%v, %+v: wants slot 1.0 on trial", err, st)
		}
		w.want(t, "slot/fall none", "slot trial", "slot not-current 0")
	})
}

// TestDiskAway: a choice that cannot be written now is written later.
func TestDiskAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, ids := store(t, "1.0", "2.0")
		file := filepath.Join(s.Dir(), "launch.json")
		must := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		var w words
		n := uint64(0)
		err := Keep(t.Context(), slotOf(s, ids[1], ""), func() uint64 {
			if n++; n == 30 { // a folder in its place: root, too, can neither read nor replace it
				must(os.Rename(file, file+".away"))
				must(os.MkdirAll(filepath.Join(file, "x"), 0o700))
				time.AfterFunc(5*time.Minute, func() {
					must(os.RemoveAll(file))
					must(os.Rename(file+".away", file))
				})
			}
			return n
		}, w.say)
		if st, _, serr := s.State(); err != nil || serr != nil || st.Trial {
			t.Errorf("%v, %v: still on trial: %v", err, serr, st.Trial)
		}
		w.want(t, "slot/fall none", "slot trial", "slot unconfirmed 1", "slot unconfirmed 1", "slot unconfirmed 1", "slot unconfirmed 1", "slot unconfirmed 1", "slot confirmed")
	})
}

func TestWhereFrom(t *testing.T) {
	t.Parallel()
	s, ids := store(t, "1.0")
	for _, c := range []struct {
		program, env string
		id, why      string
	}{
		{s.Path(ids[0], slot.Agent), "", ids[0], ""},
		{s.Path(ids[0], slot.Agent), "7 ", ids[0], ""},
		{s.Path(ids[0], slot.Agent), "7 slot 2.0 is damaged", ids[0], "slot 2.0 is damaged"},
		{s.Path(ids[0], slot.Agent), "8 of another process", ids[0], ""},
		{"/usr/lib/fulmar/seed/fulmard", "7 there is no slot", "", "there is no slot"},
		{s.Path("1.0-000000000000", slot.Agent), "", "", ""},
		{"", "", "", ""},
	} {
		got := find(c.program, c.env, 7)
		if got.id != c.id || got.why != c.why || (got.store == nil) != (c.id == "") {
			t.Errorf("%s, %q: slot %q, why %q; wants %q, %q", c.program, c.env, got.id, got.why, c.id, c.why)
		}
	}
	var w words
	if err := Keep(t.Context(), find("/usr/lib/fulmar/seed/fulmard", "7 there is no slot", 7), nil, w.say); err != nil {
		t.Error(err)
	}
	w.want(t, "slot/fall last-resort 2: the slot that was to run could not be started: there is no slot")
}

// TestOwned: what an update has on trial is its own to confirm, whatever progress there is;
// when it owns the slot no more without a word, the slot is confirmed as that of a package.
func TestOwned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		confirms bool
		told     string
	}{"the update confirms": {true, "confirmed by its update"}, "the update has lost what it knew": {false, "is confirmed"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, ids := store(t, "1.0", "2.0")
				var mu sync.Mutex
				owned, n, w := true, uint64(0), &words{}
				done := make(chan error, 1)
				sl := slotOf(s, ids[1], "").Unless(func(id string) bool {
					mu.Lock()
					defer mu.Unlock()
					return owned && id == ids[1]
				})
				go func() {
					done <- Keep(t.Context(), sl, func() uint64 {
						mu.Lock()
						defer mu.Unlock()
						n++
						return n
					}, w.say)
				}()
				time.Sleep(10 * Proof)
				if st, _, err := s.State(); err != nil || !st.Trial {
					t.Fatalf("%+v, %v: somebody else ended the trial", st, err)
				}
				mu.Lock()
				owned = false
				if c.confirms {
					if _, err := s.Confirm(ids[1]); err != nil {
						t.Error(err)
					}
				}
				mu.Unlock()
				time.Sleep(2 * Proof)
				synctest.Wait()
				if st, _, err := s.State(); err != nil || st.Trial {
					t.Errorf("%+v, %v", st, err)
				}
				if err := <-done; err != nil || !strings.Contains(w.all[len(w.all)-1], c.told) {
					t.Errorf("%v, %q", err, w.all)
				}
			})
		})
	}
}

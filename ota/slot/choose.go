// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const stateLock = ".lock"

// Errors of a change of the choice.
var (
	// ErrNotCurrent: the slot is not the one that is to run (any more).
	ErrNotCurrent = errors.New("not the current slot")
	// ErrNoOther: there is no other whole slot to go back to.
	ErrNoOther = errors.New("no other whole slot to go back to")
)

// change lets fn change the state under the lock, and makes what it decided durable:
// first the state, then current. A power cut between them is mended by the next change.
func (s *Store) change(fn func(st *State) error) (State, error) {
	if err := s.Own(); err != nil {
		return State{}, err
	}
	unlock, err := s.lock(stateLock, lockWait)
	if err != nil {
		return State{}, err
	}
	defer unlock()
	st, note, err := s.State()
	if err != nil {
		return State{}, err
	}
	old := st
	if err := fn(&st); err != nil {
		return old, err
	}
	if st != old || note != "" {
		if err := s.save(st); err != nil {
			return old, err
		}
	}
	if st.Current != "" {
		if err := s.relink(st.Current); err != nil {
			return st, err
		}
	}
	return st, nil
}

// Switch makes a slot the current one, on trial. It goes back to the slot that runs
// now, if that one was confirmed, else to the one before it.
func (s *Store) Switch(id string) (State, error) {
	if err := s.Verify(id); err != nil {
		return State{}, fmt.Errorf("switch: %w", err)
	}
	return s.change(func(st *State) error {
		if st.Current == id {
			return nil
		}
		before := []string{st.Current, st.Previous}
		if st.Trial {
			before = []string{st.Previous, st.Current}
		}
		*st = State{V: 1, Current: id, Trial: true, Fall: st.Fall}
		for _, b := range before {
			if _, err := s.Get(b); err == nil && b != id {
				st.Previous = b
				break
			}
		}
		return nil
	})
}

// Confirm ends the trial of the current slot. [ErrNotCurrent] if that is another one.
// over: an earlier going back is history now.
func (s *Store) Confirm(id string) (over bool, err error) {
	_, err = s.change(func(st *State) error {
		if st.Current != id {
			return fmt.Errorf("confirm slot %s: %w: that is %s", id, ErrNotCurrent, st.Current)
		}
		if st.Trial {
			over = st.Fall != nil
			st.Trial, st.Tries, st.Fall = false, 0, nil
		}
		return nil
	})
	return over && err == nil, err
}

// Begin decides which slot is started now and counts the start if it is on trial: the
// current one, or, where that one has used up its tries or is damaged, the one that it
// goes back to. What it decides is durable when it returns. With no slot at all the
// state's Current is "". [ErrNoOther]: the current one is damaged and is the only one.
func (s *Store) Begin() (State, error) {
	return s.change(func(st *State) error {
		if st.Current == "" {
			return nil
		}
		if err := s.Verify(st.Current, Agent); err != nil {
			if err := s.fall(st, err.Error()); err != nil {
				return err
			}
		} else if st.Trial && st.Tries >= MaxTries {
			// With nothing to go back to it is tried on and on: it may be a good program
			// on a board whose power comes and goes.
			if err := s.fall(st, fmt.Sprintf("not confirmed in %d starts", st.Tries)); err != nil && !errors.Is(err, ErrNoOther) {
				return err
			}
		}
		if st.Trial && st.Tries < MaxTries {
			st.Tries++
		}
		return nil
	})
}

// Back goes back from the current slot: because it could not be run, its health is bad,
// or a person says so. [ErrNotCurrent] if id is not the current one, [ErrNoOther] if
// there is nothing to go back to; then nothing changes.
func (s *Store) Back(id, reason string) (State, error) {
	return s.change(func(st *State) error {
		if st.Current != id {
			return fmt.Errorf("go back from slot %s: %w: that is %s", id, ErrNotCurrent, st.Current)
		}
		return s.fall(st, reason)
	})
}

// fall changes the choice to the previous slot, or else to the newest other one, whose
// files are whole. A slot that was confirmed before is so again; another one is on trial.
func (s *Store) fall(st *State, reason string) error {
	for _, id := range s.others(st) {
		if s.Verify(id) != nil {
			continue
		}
		known := id == st.Previous
		*st = State{
			V: 1, Current: id, Trial: !known,
			Fall: &Fall{From: st.Current, To: id, Reason: clip(reason)},
		}
		return nil
	}
	return fmt.Errorf("slot %s (%s): %w", st.Current, reason, ErrNoOther)
}

// others are the slots to go back to, best first. The one that was gone back from the
// last time is none: two bad slots do not hand the board to each other for ever.
func (s *Store) others(st *State) []string {
	ids := []string{st.Previous}
	slots, _ := s.List() // what cannot be listed is not whole
	for _, sl := range slots {
		ids = append(ids, sl.ID)
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		return id == "" || id == st.Current || st.Fall != nil && id == st.Fall.From
	})
}

// Order gives the slots to try, best first, to who writes nothing: the state's choice,
// what current names, the previous one, then the rest but the one gone back from.
func (s *Store) Order() []string {
	st, _, _ := s.State() // what is known; damage gives what current names
	ids := append([]string{st.Current, s.link()}, s.others(&st)...)
	var out []string
	for _, id := range ids {
		if id != "" && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// Told notes that the fleet knows of the newest going back.
func (s *Store) Told() error {
	_, err := s.change(func(st *State) error {
		if st.Fall != nil && !st.Fall.Told {
			f := *st.Fall
			f.Told = true
			st.Fall = &f
		}
		return nil
	})
	return err
}

// clip makes a reason one line of bounded length.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

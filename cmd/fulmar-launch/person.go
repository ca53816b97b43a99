// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"fulmar/ota/slot"
)

// report is what status tells, as JSON.
type report struct {
	State    string     `json:"state"`              // the folder
	Current  string     `json:"current"`            // ID; "" = none
	Trial    bool       `json:"trial"`              // of the current slot
	Tries    int        `json:"tries"`              // starts on trial, of at most MaxTries
	MaxTries int        `json:"max_tries"`          //
	Previous string     `json:"previous,omitempty"` // ID
	Fall     *slot.Fall `json:"fall,omitempty"`     // the newest going back
	Slots    []row      `json:"slots"`
	Note     string     `json:"note,omitempty"` // what is wrong with the state
	Launcher string     `json:"launcher"`       // its release
}

type row struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Origin  string `json:"origin"`
	Whole   bool   `json:"whole"`         // by size, with --verify by SHA-256
	Why     string `json:"why,omitempty"` // it is not whole
}

func (l *launcher) status() int {
	store := slot.Open(l.state)
	st, note, err := store.State()
	if err != nil {
		return l.done("", err)
	}
	r := report{
		State: l.state, Current: st.Current, Trial: st.Trial, Tries: st.Tries, MaxTries: slot.MaxTries,
		Previous: st.Previous, Fall: st.Fall, Slots: []row{}, Note: note, Launcher: release,
	}
	slots, err := store.List()
	if err != nil {
		return l.done("", err)
	}
	ids := store.Order()
	for _, sl := range slots {
		if !slices.Contains(ids, sl.ID) {
			ids = append(ids, sl.ID)
		}
	}
	for _, id := range ids {
		sl, err := store.Get(id)
		if err == nil && l.verify {
			err = store.Verify(id)
		}
		x := row{ID: id, Version: sl.Version, Origin: sl.Origin, Whole: err == nil}
		if err != nil {
			x.Why = err.Error()
		}
		r.Slots = append(r.Slots, x)
	}
	if l.json {
		b, err := json.MarshalIndent(r, "", "  ")
		return l.done(string(b), err)
	}
	l.table(r)
	return 0
}

func (l *launcher) table(r report) {
	if len(r.Slots) == 0 {
		fmt.Fprintf(l.out, "no slot in %s\n", r.State)
	}
	for _, x := range r.Slots {
		word := ""
		switch x.ID {
		case r.Current:
			word = "current, confirmed"
			if r.Trial {
				word = fmt.Sprintf("current, on trial, start %d of %d", r.Tries, r.MaxTries)
			}
		case r.Previous:
			word = "previous"
		}
		fmt.Fprintf(l.out, "%-36s %-4s %s\n", x.ID, x.Origin, word)
		if !x.Whole {
			fmt.Fprintf(l.out, "  not whole: %s\n", x.Why)
		}
	}
	if r.Fall != nil {
		fmt.Fprintf(l.out, "went back from %s to %s: %s\n", r.Fall.From, r.Fall.To, r.Fall.Reason)
	}
	if r.Note != "" {
		fmt.Fprintf(l.out, "%s; the choice is made of what is there\n", r.Note)
	}
}

func (l *launcher) confirm() int {
	store := slot.Open(l.state)
	st, _, err := store.State()
	if err == nil && st.Current == "" {
		err = fmt.Errorf("there is no slot in %s", l.state)
	}
	if err == nil {
		_, err = store.Confirm(st.Current)
	}
	return l.done("slot "+st.Current+" is confirmed", err)
}

func (l *launcher) back(reason string) int {
	if reason == "" {
		reason = "a person went back"
	}
	store := slot.Open(l.state)
	st, _, err := store.State()
	if err == nil {
		st, err = store.Back(st.Current, reason)
	}
	return l.done("slot "+st.Current+" is the current one; restart fulmard to run it", err)
}

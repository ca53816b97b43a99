// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package trial ends the trial of the slot that the agent runs from: after real
// progress the slot is confirmed, and the launcher goes back from it no more. It also
// tells the fleet which slot runs and what the launcher went back from.
//
// The link is no part of it: a board may be offline for weeks, and an upgrade is not
// bad because the network is.
package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fulmar/ota/slot"
	"fulmar/schema"
)

// Proof is how long a slot has to make progress before it is confirmed. A program that
// leaks, deadlocks or loses its sensors mostly shows it within the first minute; longer,
// and power that comes and goes would undo good upgrades.
const Proof = 60 * time.Second

// look is how often progress is looked at, while on trial only.
const look = time.Second

// again is how long after a failure to write the choice it is tried again: the disk may
// be full or read-only for now.
const again = time.Minute

// Slot is the slot that this process runs from.
type Slot struct {
	store *slot.Store
	id    string
	why   string // what the launcher could not start instead of this program
	owned func(id string) bool
}

// ID is the slot's, "" where the process runs out of none.
func (s Slot) ID() string { return s.id }

// Unless gives the slot to an update while owned says so of its ID: the update ends its
// trial, by its own idea of health, and [Keep] waits. When it owns the slot no more and the
// trial still goes on (it has lost what it knew), Keep ends it as that of a package.
func (s Slot) Unless(owned func(id string) bool) Slot {
	s.owned = owned
	return s
}

// Self finds the slot of this process: its program lies in STORE/slots/ID. The store is
// nil if it was not started out of a slot.
func Self() Slot {
	path, err := os.Executable()
	if err != nil {
		path = ""
	}
	return find(path, os.Getenv(slot.LaunchEnv), os.Getpid())
}

func find(program, env string, pid int) Slot {
	var s Slot
	if own, why, _ := strings.Cut(env, " "); own == strconv.Itoa(pid) {
		s.why = why
	}
	dir := filepath.Dir(program)
	root := filepath.Dir(filepath.Dir(dir))
	store := slot.Open(root)
	if id := filepath.Base(dir); filepath.Base(program) == slot.Agent && store.Path(id, slot.Agent) == program {
		if _, err := store.Get(id); err == nil {
			s.store, s.id = store, id
		}
	}
	return s
}

// Say tells the fleet a state of the board, once per change.
type Say func(subject, state string, sev schema.Severity, text string)

// Subjects of what is told.
const (
	subject     = "slot"
	subjectFall = "slot/fall"
)

// Keep tells of the slot and, where it is on trial, confirms it: with the first progress
// that comes [Proof] or more after the first progress. progress is a number that grows
// with it, what the watchdog is fed by. Keep ends with the context or when nothing is
// left to do, and returns nil.
func Keep(ctx context.Context, s Slot, progress func() uint64, say Say) error {
	if s.why != "" {
		say(subjectFall, "last-resort", schema.SeverityAlarm, "the slot that was to run could not be started: "+s.why)
	}
	if s.store == nil {
		return nil
	}
	st, note, err := s.store.State()
	switch {
	case err != nil:
		say(subject, "unknown", schema.SeverityWarn, err.Error())
		return nil
	case note != "":
		say(subject, "unknown", schema.SeverityWarn, note+"; the choice of slot was made of what is there")
	case st.Current != s.id:
		say(subject, "not-current", schema.SeverityWarn, fmt.Sprintf("runs from slot %s, the next start is from %s", s.id, st.Current))
		return nil
	}
	if f := st.Fall; f == nil && s.why == "" {
		say(subjectFall, "none", schema.SeverityInfo, "")
	} else if f != nil && !f.Told {
		say(subjectFall, "went-back", schema.SeverityWarn, fmt.Sprintf("went back from slot %s to %s: %s", f.From, f.To, f.Reason))
		if err := s.store.Told(); err != nil {
			say(subject, "unknown", schema.SeverityWarn, err.Error())
		}
	}
	if !st.Trial {
		say(subject, "confirmed", schema.SeverityInfo, "runs from slot "+s.id)
		return nil
	}
	say(subject, "trial", schema.SeverityInfo, fmt.Sprintf("runs from slot %s on trial, start %d of %d", s.id, st.Tries, slot.MaxTries))
	for {
		if !s.wait(ctx, say) || !prove(ctx, progress) {
			return nil
		}
		if s.owned == nil || !s.owned(s.id) {
			break
		}
	}
	s.confirm(ctx, say)
	return nil
}

// wait waits while an update owns the trial; false if there is nothing left to do then.
func (s Slot) wait(ctx context.Context, say Say) bool {
	if s.owned == nil {
		return true
	}
	for s.owned(s.id) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(look):
		}
	}
	st, note, err := s.store.State()
	if err == nil && note == "" && st.Current == s.id && !st.Trial {
		say(subject, "confirmed", schema.SeverityInfo, "slot "+s.id+" is confirmed by its update")
	}
	return err != nil || note != "" || st.Current == s.id && st.Trial
}

// prove waits for the proof; false if the context ended before.
func prove(ctx context.Context, progress func() uint64) bool {
	t := time.NewTicker(look)
	defer t.Stop()
	last := progress()
	var first time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
		n := progress()
		if n == last {
			continue
		}
		last = n
		if first.IsZero() {
			first = time.Now()
		} else if time.Since(first) >= Proof {
			return true
		}
	}
}

// confirm keeps at it until it is written down: otherwise a good slot would be gone back
// from because the disk was full for a while.
func (s Slot) confirm(ctx context.Context, say Say) {
	for {
		over, err := s.store.Confirm(s.id)
		switch {
		case err == nil:
			say(subject, "confirmed", schema.SeverityInfo, "slot "+s.id+" is confirmed")
			if over {
				say(subjectFall, "over", schema.SeverityInfo, "a newer slot is confirmed")
			}
			return
		case errors.Is(err, slot.ErrNotCurrent):
			say(subject, "not-current", schema.SeverityInfo, err.Error())
			return
		}
		say(subject, "unconfirmed", schema.SeverityWarn, err.Error())
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

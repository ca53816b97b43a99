// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"bytes"
	"slices"
	"strings"

	"fulmar/agent/shadow/settings"
	"fulmar/schema"
	"fulmar/twin"
)

// undonePrefix begins the reason of a key that was undone, in twin.refused.
const undonePrefix = "undone: "

// state is all that is saved. It is changed as a copy, saved, and then put in place.
type state struct {
	board         *twin.Board
	tenant, name  string
	trial         *trial
	history       []Change
	alarms        []subject
	outbox        []schema.Report
	now           schema.Time // of the change that is being made
	restartsTrial bool        // the change put something on trial
}

func (st *state) clone(now schema.Time) *state {
	c := *st
	c.board, c.now, c.restartsTrial = st.board.Clone(), now, false
	c.history, c.alarms, c.outbox = slices.Clone(st.history), slices.Clone(st.alarms), slices.Clone(st.outbox)
	if st.trial != nil {
		t := *st.trial
		t.Keys, t.Set = slices.Clone(t.Keys), slices.Clone(t.Set)
		c.trial = &t
	}
	return &c
}

// effective gives what holds, by key.
func effective(b *twin.Board) map[string]twin.Value {
	out := map[string]twin.Value{}
	for _, k := range b.Keys() {
		out[k], _ = b.Effective(k)
	}
	return out
}

func (st *state) remember(c Change) {
	if c.At = st.now; len(c.Value) > maxShown {
		c.Value = nil
	}
	c.Reason, c.Author = clip(c.Reason, schema.MaxFact), clip(c.Author, schema.MaxName)
	if st.history = append(st.history, c); len(st.history) > MaxHistory {
		st.history = slices.Delete(st.history, 0, len(st.history)-MaxHistory)
	}
}

// settle ends a change: what of it is on trial, what of it is to be told. before is what
// held, h how the board was, set the key that somebody on the board set ("": none).
func (st *state) settle(before map[string]twin.Value, h Health, set string) {
	version, _ := st.board.Version()
	after := effective(st.board)
	for key := range union(before, after) {
		if bytes.Equal(before[key], after[key]) || strings.HasPrefix(key, settings.Free) {
			continue
		}
		if _, from := st.board.Effective(key); from != twin.FromOverride && st.board.Proven(key) {
			continue
		}
		if st.trial == nil {
			st.trial = newTrial(h)
		}
		st.trial.add(key, key == set, version)
		st.restartsTrial = true
	}
	st.board.Prove(st.proven)
	st.take(st.trial == nil)
}

// proven tells which keys the board is well with: what configures nothing, and what holds
// and is not on trial. What an override hides has not been tried.
func (st *state) proven(key string) bool {
	if strings.HasPrefix(key, settings.Free) {
		return true
	}
	_, from := st.board.Effective(key)
	return from != twin.FromOverride && (st.trial == nil || !slices.Contains(st.trial.Keys, key))
}

func union(a, b map[string]twin.Value) map[string]bool {
	out := map[string]bool{}
	for k := range a {
		out[k] = true
	}
	for k := range b {
		out[k] = true
	}
	return out
}

// take turns the events of a change into history, and into reports for the fleet. well
// tells that nothing is on trial.
func (st *state) take(well bool) {
	version, _ := st.board.Version()
	events := st.board.Events()
	for i := range events {
		e := &events[i]
		c := Change{Kind: kindWord(e.Kind), Key: e.Key, Version: version, Reason: e.Why}
		if e.Won != nil {
			c.Author, c.Value = e.Won.Author, e.Won.Value
			if c.Reason == "" {
				c.Reason = e.Won.Reason
			}
		} else if len(e.Lost) > 0 {
			c.Author = e.Lost[0].Author
		}
		st.remember(c)
		st.tell(e.Key, c.Kind, severity(e.Kind), sentence(e))
	}
	st.board.Confirm(len(events))
	st.calm(well)
}

// tell puts a report about a key ("": the twin as a whole) into the outbox, and remembers
// it while it stands as an alarm. Of too many the oldest goes.
func (st *state) tell(key, word string, sev schema.Severity, text string) {
	r := schema.Report{Subject: subjectOf(key), State: word, Severity: sev, Text: clip(text, schema.MaxText)}
	st.alarms = slices.DeleteFunc(st.alarms, func(a subject) bool { return a.Subject == r.Subject })
	if sev > schema.SeverityInfo && len(st.alarms) < maxAlarms {
		st.alarms = append(st.alarms, subject{r.Subject, key, word})
	}
	if st.outbox = append(st.outbox, r); len(st.outbox) > maxOutbox {
		st.outbox = slices.Delete(st.outbox, 0, len(st.outbox)-maxOutbox)
	}
}

// calm takes back the alarms whose cause is gone: at the fleet the newest report of a
// subject stands.
func (st *state) calm(well bool) {
	_, refused := st.board.Version()
	held := map[string]bool{}
	for _, c := range st.board.Conflicts() {
		held[c.Key] = true
	}
	undone := false
	for _, why := range refused {
		undone = undone || strings.HasPrefix(why, undonePrefix)
	}
	for _, a := range slices.Clone(st.alarms) {
		_, no := refused[a.Key]
		gone := a.Key != "" && !no && !held[a.Key]
		switch {
		case a.State == stateNotKept, a.State == stateDamaged, a.State == stateForged:
			continue // taken back where it is found to be well again
		case a.State == KindUndone && a.Key == "":
			gone = !undone
		case a.State == KindUndone: // of what was set on the board: a later one was taken
			_, from := st.board.Effective(a.Key)
			gone = well && from == twin.FromOverride
		}
		if gone {
			st.tell(a.Key, stateOK, schema.SeverityInfo, "what was told of "+a.Subject+" is settled")
		}
	}
}

// well takes back an alarm about the twin as a whole.
func (st *state) well(word, text string) {
	for _, a := range st.alarms {
		if a.Subject == subjectOf("") && a.State == word {
			st.tell("", stateOK, schema.SeverityInfo, text)
			return
		}
	}
}

// States of reports about the twin as a whole, beside those of the events.
const (
	stateOK      = "ok"
	stateNotKept = "not-kept" // the disk does not take it
	stateDamaged = "damaged"  // what lay on the disk could not be read
	stateForged  = "forged"   // a desired version is not signed by a key that may
)

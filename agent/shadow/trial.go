// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/agent/shadow/words"
	"fulmar/schema"
	"fulmar/twin"
)

const (
	// Proof is how long a change is on trial. A setting that stops sampling, the worker
	// or a camera mostly shows it within the first minute; longer, and power that comes and
	// goes would undo good changes.
	Proof = 60 * time.Second
	// maxCrashes is how often the board may start anew within a trial: once is a power cut.
	maxCrashes = 2
	// look is how often health is looked at, while on trial only.
	look = time.Second
	// maxCauses bounds the causes that are remembered from before a trial.
	maxCauses = 64
)

// Health is how the board is.
type Health struct {
	// Causes of ill health: "camera cam0: no picture". What stands before the first ':' says
	// of what, and counts as the same cause whatever follows. Those of the link do not
	// belong here: no key of the twin reaches it, and networks come and go.
	Causes []string
	Ticks  uint64 // of the sampler, a number that grows
	// Every is the longest time between two ticks; 0: nothing is sampled.
	Every time.Duration
}

// trial is what a board has on trial; it lies on the disk before it is applied.
type trial struct {
	Version uint64   `cbor:"1,keyasint,omitempty"` // of desired, if that is part of it
	Keys    []string `cbor:"2,keyasint,omitempty"` // that hold another value than before
	Set     []string `cbor:"3,keyasint,omitempty"` // of them, those set on the board
	Causes  []string `cbor:"4,keyasint,omitempty"` // of ill health before, of what
	Crashes uint8    `cbor:"6,keyasint,omitempty"` // starts since
	Stopped bool     `cbor:"7,keyasint,omitempty"` // in order: the next start is no crash
}

func newTrial(h Health) *trial {
	t := &trial{}
	for _, c := range h.Causes {
		if len(t.Causes) < maxCauses {
			t.Causes = append(t.Causes, ofWhat(c))
		}
	}
	return t
}

func (t *trial) add(key string, set bool, version uint64) {
	if !slices.Contains(t.Keys, key) {
		t.Keys = append(t.Keys, key)
	}
	switch {
	case !set:
		t.Version = version
	case !slices.Contains(t.Set, key):
		t.Set = append(t.Set, key)
	}
}

// ofWhat is the part of a cause that says what is unwell.
func ofWhat(cause string) string {
	of, _, _ := strings.Cut(cause, ":")
	return words.Clip(of, schema.MaxName)
}

// undo goes back from what is on trial.
func (st *state) undo(why string) {
	t := st.trial
	st.trial = nil
	if t == nil {
		return
	}
	st.board.Undo(words.Clip(words.UndonePrefix+why, schema.MaxFact))
	for _, key := range t.Set {
		v, from := st.board.Effective(key)
		if from != twin.FromOverride {
			continue
		}
		st.board.Clear(key)
		st.remember(Change{Kind: KindUndone, Key: key, Value: v, Reason: why})
		st.tell(key, KindUndone, schema.SeverityAlarm, "what was set on the board for "+key+" made it unhealthy and was taken back: "+why)
	}
	st.take(false)
}

// passed ends a trial well.
func (st *state) passed() {
	st.trial = nil
	st.board.Prove(st.proven)
	st.take(true)
}

// watch looks at a board on trial.
type watch struct {
	proof     time.Duration
	began     time.Time
	causes    map[string]time.Time // since when, of those that were not there before
	ticks     uint64
	tickedAt  time.Time
	ticksKnow bool
}

func newWatch(proof time.Duration, now time.Time) *watch {
	return &watch{proof: proof, began: now, causes: map[string]time.Time{}, tickedAt: now}
}

// verdict of a look.
type verdict uint8

const (
	wait verdict = iota
	good
	bad
)

// judge takes one look: how the board is, against how it was before the trial.
func (w *watch) judge(t *trial, h Health, now time.Time) (verdict, string) {
	grace := w.proof / 2 // a camera that is set anew is away for a moment
	standing := map[string]time.Time{}
	for _, c := range h.Causes {
		of := ofWhat(c)
		if slices.Contains(t.Causes, of) {
			continue
		}
		since, known := w.causes[of]
		if !known {
			since = now
		}
		if standing[of] = since; now.Sub(since) >= grace {
			return bad, c
		}
	}
	w.causes = standing
	ran := now.Sub(w.began)
	if h.Ticks != w.ticks || !w.ticksKnow {
		w.ticks, w.tickedAt, w.ticksKnow = h.Ticks, now, true
	}
	if still := now.Sub(w.tickedAt); h.Every > 0 && still >= max(grace, 3*h.Every) {
		return bad, fmt.Sprintf("no sensor was read for %v", still)
	}
	switch {
	case ran < w.proof, len(standing) > 0 && ran < 2*w.proof:
		return wait, ""
	case len(standing) > 0: // it comes and goes
		return bad, h.Causes[slices.IndexFunc(h.Causes, func(c string) bool { _, ok := standing[ofWhat(c)]; return ok })]
	}
	return good, ""
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// The states of a rollout (schema/rest) in words.
const (
	planned    = "planned"
	approval   = "approval"
	waiting    = "waiting"
	before     = "before"
	inWave     = "wave"
	soak       = "soak"
	judging    = "judging"
	held       = "held"
	paused     = "paused"
	stopping   = "stopping"
	done       = "done"
	halted     = "halted"
	rolledBack = "rolled-back"
	aborted    = "aborted"
)

// stateWord gives what people call a state, tone the icon and colour that go with it.
func stateWord(state string) string {
	word := map[string]string{
		planned: "planned", approval: "waits for approval", waiting: "waits to begin", before: "asks before the wave", inWave: "running",
		soak: "soaking", judging: "at the gate", held: "waits for you", paused: "paused", stopping: "stopping", done: "done", halted: "halted",
		rolledBack: "rolled back", aborted: "aborted",
	}[state]
	if word == "" {
		return state
	}
	return word
}

func tone(state string) string {
	switch state {
	case done:
		return "healthy"
	case halted, rolledBack:
		return "failing"
	case held, paused, approval, stopping:
		return "degraded"
	case aborted:
		return "unreachable"
	case before, inWave, soak, judging:
		return "run"
	}
	return "never"
}

// where says which wave a rollout is at: "wave 2 of 4", "shadow phase"; "" where it has not begun.
func where(r *rest.Rollout) string {
	n := 0
	shadow := false
	for i := range r.Waves {
		if r.Waves[i].Shadow {
			shadow = true
			continue
		}
		n++
	}
	switch {
	case r.Wave > 0:
		return fmt.Sprintf("wave %d of %d", r.Wave, n)
	case shadow && !slices.Contains([]string{planned, approval}, r.State):
		return "shadow phase"
	}
	return ""
}

// name is what people call a rollout.
func name(r *rest.Rollout) string {
	if r.Spec.Name != "" {
		return r.Spec.Name
	}
	return r.Spec.Component + " " + r.Spec.Release
}

// title is the headline of one rollout.
func title(r *rest.Rollout) string {
	s := name(r) + " " + map[string]string{
		planned: "is planned; nothing has been changed", approval: "waits for a second person", waiting: "waits to begin", before: "asks its hook before a wave",
		inWave: "is running", soak: "is soaking", judging: "is at the gate", held: "waits for you", paused: "is paused", stopping: "is being stopped",
		done: "is done", halted: "was halted", rolledBack: "was rolled back", aborted: "was aborted",
	}[r.State]
	if w := where(r); w != "" && r.State != done {
		s += ", " + w
	}
	return s
}

// headline sums up all rollouts in a line. One that ended badly counts until another one
// of its component has followed.
func headline(rs []rest.Rollout, now time.Time) string {
	if len(rs) == 0 {
		return "No rollouts yet"
	}
	var bad, you, run, later []string
	var only *rest.Rollout
	newest := map[string]bool{}
	for i := range rs { // newest first
		r := &rs[i]
		first := !newest[r.Spec.Component]
		newest[r.Spec.Component] = true
		switch {
		case r.State == halted && first, r.State == rolledBack && first:
			bad = append(bad, stateWord(r.State))
		case r.State == held, r.State == approval, r.State == paused:
			you = append(you, stateWord(r.State))
		case r.State == planned, r.State == waiting:
			later = append(later, stateWord(r.State))
		case !r.Over:
			run, only = append(run, "running"), r
		}
	}
	parts := append(tally(bad), tally(you)...)
	parts = append(parts, tally(run)...)
	if len(run) == 1 {
		about := []string{}
		if w := where(only); w != "" {
			about = append(about, w)
		}
		if only.Done != nil {
			about = append(about, "done about "+soon(only.Done.In(now.Location()), now))
		}
		if len(about) > 0 {
			parts[len(parts)-1] += " (" + strings.Join(about, ", ") + ")"
		}
	}
	parts = append(parts, tally(later)...)
	if len(parts) == 0 {
		return "Nothing is under way; " + words.Plural(len(rs), "rollout has", "rollouts have") + " ended"
	}
	return strings.Join(parts, ", ")
}

// tally turns words into "2 halted, 1 rolled back".
func tally(list []string) (out []string) {
	var order []string
	n := map[string]int{}
	for _, s := range list {
		if n[s]++; n[s] == 1 {
			order = append(order, s)
		}
	}
	for _, s := range order {
		if n[s] > 1 {
			s = words.Count(uint64(n[s])) + " " + strings.Replace(s, "waits", "wait", 1)
		} else {
			s = "1 " + s
		}
		out = append(out, s)
	}
	return out
}

// soon writes a moment that lies ahead: the clock for today, the day within a week, else
// the date.
func soon(t, now time.Time) string {
	switch {
	case t.Year() == now.Year() && t.YearDay() == now.YearDay():
		return t.Format("15:04")
	case t.Sub(now) < 6*24*time.Hour && t.After(now):
		return t.Format("Mon 15:04")
	}
	return t.Format("2 Jan 15:04")
}

// left writes how long until a deadline.
func left(t *time.Time, now time.Time) string {
	switch {
	case t == nil:
		return ""
	case !t.After(now):
		return "due now"
	}
	return words.Span(t.Sub(now)) + " left"
}

// percent writes a share of boards as the stored sentences of a rollout do: what is not
// all is never written as 100 %.
func percent(v float64) string {
	p := 100 * v
	switch {
	case p >= 100:
		return "100\u00a0%"
	case p > 99.5:
		return words.Number(math.Min(p, 99.99), 2) + "\u00a0%"
	}
	return words.Number(p, 1) + "\u00a0%"
}

// inequality says in words what the figures of a verdict mean.
func inequality(v *rest.Verdict) string {
	ended := v.Good + v.Failed
	of := words.Count(uint64(v.Good)) + " of " + words.Count(uint64(ended)) + " good"
	switch {
	case ended == 0:
		return "No board of the wave has ended yet: nothing to tell."
	case v.Policy == "point" && v.Outcome == "bad":
		return of + " is " + percent(v.Value) + "; the gate asks for " + percent(v.Gate) + ": below it."
	case v.Outcome == "bad" && v.Upper < v.Gate:
		return of + ": at best " + percent(v.Upper) + " of all boards would be good, and the gate asks for " + percent(v.Gate) + ". Below it for sure."
	case v.Outcome == "bad":
		return of + ", and something else speaks against it: see below."
	case v.Outcome == "good":
		return of + " is " + percent(v.Value) + ", the gate asks for " + percent(v.Gate) + ": good enough to go on. It proves that at least " + percent(v.Lower) + " of all boards are good, no more."
	}
	may := of + " may be anything from " + percent(v.Lower) + " to " + percent(v.Upper) + " of all boards"
	if v.Upper < v.Gate {
		return may + ". Below the gate of " + percent(v.Gate) + ", by too few failures to halt: not enough boards to tell."
	}
	return may + "; the gate of " + percent(v.Gate) + " lies between. Not enough boards to tell."
}

// outcome is the word for an outcome, and its tone.
func outcome(o string) (word, tone string) {
	switch o {
	case "good":
		return "good enough", "healthy"
	case "bad":
		return "bad for sure", "failing"
	}
	return "not enough boards to tell", "never"
}

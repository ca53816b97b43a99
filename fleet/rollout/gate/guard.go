// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"fulmar/schema/rest"
)

// MinCohort is how many boards without the release make a cohort: the median of fewer
// is one board's mood.
const MinCohort = 3

// Guard holds a metric of the boards that have the release against those that have
// not. want is how many boards should have a value; less than half of them are not
// enough. then is the cohort's median from before the wave, used where too few boards
// are left without the release; NaN where it was never read.
func Guard(g rest.Guard, have, others []float64, want int, then float64) rest.GuardVerdict {
	v := rest.GuardVerdict{Name: g.Name, Outcome: Unclear, Boards: len(have), Others: len(others)}
	if len(have) == 0 || 2*len(have) < want {
		v.Sentence = fmt.Sprintf("%s: %d of %d boards have a value, not enough to tell", g.Name, len(have), want)
		return v
	}
	v.Value = Median(have)
	if g.Min != nil || g.Max != nil {
		return absolute(g, v)
	}
	whose := fmt.Sprintf("%d boards without it", len(others))
	switch {
	case len(others) >= MinCohort:
		v.Cohort = Median(others)
	case !math.IsNaN(then):
		v.Cohort, whose = then, "the boards before this wave"
	default:
		v.Sentence = fmt.Sprintf("%s: %d boards are without it, at least %d are wanted to compare with", g.Name, len(others), MinCohort)
		return v
	}
	room := math.Max(math.Abs(v.Cohort)*g.Tolerance, g.Slack)
	worse := v.Value > v.Cohort+room
	v.Limit = v.Cohort + room
	if g.Better == "higher" {
		v.Limit = v.Cohort - room
		worse = v.Value < v.Limit
	}
	v.Outcome = Good
	word := "no worse than"
	if worse {
		v.Outcome, word = Bad, "worse than"
	}
	v.Sentence = fmt.Sprintf("%s: %s on %d boards, %s %s of %s (limit %s)", g.Name, number(v.Value), v.Boards, word, number(v.Cohort), whose, number(v.Limit))
	return v
}

func absolute(g rest.Guard, v rest.GuardVerdict) rest.GuardVerdict {
	v.Outcome = Good
	v.Sentence = fmt.Sprintf("%s: %s on %d boards", g.Name, number(v.Value), v.Boards)
	switch {
	case g.Min != nil && v.Value < *g.Min:
		v.Outcome, v.Limit = Bad, *g.Min
		v.Sentence += ", below " + number(v.Limit)
	case g.Max != nil && v.Value > *g.Max:
		v.Outcome, v.Limit = Bad, *g.Max
		v.Sentence += ", above " + number(v.Limit)
	case g.Min != nil:
		v.Limit = *g.Min
	default:
		v.Limit = *g.Max
	}
	return v
}

// Median of values, in the order they have; NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	if m := len(s) / 2; len(s)%2 == 0 {
		return (s[m-1] + s[m]) / 2
	}
	return s[len(s)/2]
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// With adds guards and the word of a hook to a final verdict. A guard that got worse
// is bad; one that cannot be told makes the whole not enough to tell.
func With(v rest.Verdict, guards []rest.GuardVerdict, hook string, hookOK bool) rest.Verdict {
	v.Guards, v.Hook = guards, hook
	if !hookOK && v.Outcome != Bad {
		v.Outcome, v.Sentence = Bad, "the hook after the wave said no: "+hook
	}
	for _, g := range guards {
		switch {
		case g.Outcome == Bad && v.Outcome != Bad:
			v.Outcome, v.Sentence = Bad, "a guard got worse: "+g.Sentence
		case g.Outcome == Unclear && v.Outcome == Good:
			v.Outcome, v.Sentence = Unclear, "a guard cannot be told: "+g.Sentence
		}
	}
	return v
}

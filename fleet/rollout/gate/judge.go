// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"math"
	"sort"

	"fulmar/schema/rest"
)

// The outcomes.
const (
	Bad     = "bad"     // below the gate for sure
	Good    = "good"    // good enough for this wave
	Unclear = "unclear" // not enough boards to tell
)

// The policies.
const (
	Interval = "interval" // halts only what is bad for sure
	Point    = "point"    // the share itself decides, once all have ended
)

// Count is what has become of a wave's boards.
type Count struct {
	Boards int // of the wave
	Good   int
	Failed int // overdue ones among them
}

// Judge holds a wave against its gate. final tells that all boards have ended or were
// given up and the soak is over: before that the only answers are bad and unclear.
//
// A bound is one look's. Who looks at each arrival looks many times: with at least two
// failures wanted, a release that is good on 99.9 % of boards is then halted in about
// 0.3 % of rollouts over 1,000 boards (TestFalseHalts), and no sentence claims more
// than "at best".
func Judge(g rest.GateSpec, c Count, final bool) rest.Verdict {
	n := c.Good + c.Failed
	v := rest.Verdict{
		Outcome: Unclear, Policy: g.Policy, Gate: g.Gate, Good: c.Good, Failed: c.Failed, Boards: c.Boards,
		Upper: Upper(c.Good, c.Failed), Lower: Lower(c.Good, c.Failed),
	}
	if n > 0 {
		v.Value = float64(c.Good) / float64(n)
	}
	answered := float64(n) >= g.MinAnswered*float64(c.Boards) && n > 0
	switch {
	case g.Policy == Point && pointBad(g, c, final):
		v.Outcome = Bad
	case g.Policy != Point && c.Failed >= g.MinFailures && v.Upper < g.Gate:
		v.Outcome = Bad
	case final && answered && meets(c.Good, n, g.Gate):
		v.Outcome = Good
	}
	v.Sentence = sentence(v, n, answered, final)
	return v
}

// pointBad: the share is below the gate, or can no longer get there although all that
// have not ended should turn out good.
func pointBad(g rest.GateSpec, c Count, final bool) bool {
	n := c.Good + c.Failed
	if final && n > 0 && float64(n) >= g.MinAnswered*float64(c.Boards) {
		return !meets(c.Good, n, g.Gate)
	}
	return c.Failed > 0 && !meets(c.Boards-c.Failed, c.Boards, g.Gate)
}

// meets compares good/n with the gate without a rounding in between: 199 of 200 are
// 99.5 %.
func meets(good, n int, gate float64) bool {
	return float64(good) >= gate*float64(n)-1e-9*float64(n)
}

// BadFrom gives how many failures among n ended boards are bad for sure; n+1 where
// none are.
func BadFrom(g rest.GateSpec, n int) int {
	return 1 + sort.Search(n, func(i int) bool {
		c := Count{Boards: n, Good: n - i - 1, Failed: i + 1}
		if g.Policy == Point {
			return pointBad(g, c, false)
		}
		return c.Failed >= g.MinFailures && Upper(c.Good, c.Failed) < g.Gate
	})
}

// Proves says what n boards without a failure show: "20 of 20: at least 86.1 %".
func Proves(n int) string {
	return fmt.Sprintf("%d of %d: at least %s", n, n, Percent(Lower(n, 0)))
}

func sentence(v rest.Verdict, n int, answered, final bool) string {
	failed := fmt.Sprintf("%d of %d failed", v.Failed, n)
	switch {
	case v.Outcome == Bad && v.Policy == Point:
		return fmt.Sprintf("%s; the gate is %s and counts the share itself, %s", failed, Percent(v.Gate), Percent(v.Value))
	case v.Outcome == Bad:
		return fmt.Sprintf("%s; the gate is %s, this is %s at best", failed, Percent(v.Gate), Percent(v.Upper))
	case v.Outcome == Good && v.Failed == 0:
		return fmt.Sprintf("%d of %d are good: that shows at least %s; the gate is %s", n, n, Percent(v.Lower), Percent(v.Gate))
	case v.Outcome == Good:
		return fmt.Sprintf("%d of %d are good, %s: that shows at least %s; the gate is %s", v.Good, n, Percent(v.Value), Percent(v.Lower), Percent(v.Gate))
	case n == 0:
		return fmt.Sprintf("none of %d boards has ended: nothing is known", v.Boards)
	case final && !answered:
		return fmt.Sprintf("only %d of %d boards have ended: not enough to tell", n, v.Boards)
	case !final && v.Failed == 0:
		return fmt.Sprintf("%d of %d boards are good so far", v.Good, v.Boards)
	}
	return fmt.Sprintf("%s; the gate is %s, this is between %s and %s: not enough boards to tell", failed, Percent(v.Gate), Percent(v.Lower), Percent(math.Max(v.Upper, v.Value)))
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
)

// work is what a board did in an hour.
type work struct {
	wakes     int64 // how often any goroutine began to run, as the runtime samples it
	calls     int64 // of the link to its spool
	commits   uint64
	published uint64
	conns     uint64
	steps     int // messages and dials, as the broker saw them
}

// TestClocksThatJump: an hour with five minutes without a network, once with a right
// wall clock and once with one that is set anew each ten seconds, by up to 50 years
// either way. What the board does is the same: nothing is lost, numbers and times keep
// their order (settle and the trace look), and nothing spins. A part that waited for a
// wall time would sleep for years or not at all, and both would show: in records that
// stay, or in how often goroutines run, in calls, commits and messages. Not parallel:
// the runtime counts for the whole process.
func TestClocksThatJump(t *testing.T) {
	hour := func(turn bool) (done work) {
		synctest.Test(t, func(t *testing.T) {
			began := wakeups(t)
			w := newWorld(t, 1, traits{boards: 1, window: 2 * time.Second, calm: true, stepwise: true})
			w.openBroker()
			b := w.boards[0]
			for second := range 3600 {
				if turn && second%10 == 5 {
					b.turn()
				}
				switch second {
				case 20 * 60:
					w.broker.Load().SetCut(true)
				case 25 * 60:
					w.broker.Load().SetCut(false)
				}
				b.add(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"a"}, Value: []float64{1}}})
				if second%5 == 0 {
					b.frame++
					b.add(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0", Frame: b.frame}})
				}
				time.Sleep(time.Second)
			}
			w.settle()
			st := b.session.Status()
			done = work{calls: b.calls.Load(), published: st.Published, conns: st.Generation, steps: w.trace.count}
			for _, c := range b.spool.Stats().Classes {
				done.commits += c.Commits
			}
			w.end()
			done.wakes = wakeups(t) - began
		})
		return done
	}
	straight, turned := hour(false), hour(true)
	turned.steps -= 360 // the turns themselves
	t.Logf("straight %+v", straight)
	t.Logf("turned   %+v", turned)
	if straight.published < 4320 || straight.wakes < 10_000 || straight.calls == 0 || straight.commits == 0 {
		t.Fatalf("the hour was no hour: %+v", straight)
	}
	// Which of two things that are ready goes first is up to the scheduler: a few in a
	// hundred more or less.
	near := func(a, b int64) bool { return a <= b+b/20+5 && b <= a+a/20+5 }
	// The garbage collector and real threads wake goroutines too, which is half as many
	// more or less; a part that looks each millisecond is ten times as many.
	if turned.wakes > 3*straight.wakes || !near(turned.calls, straight.calls) || !near(int64(turned.commits), int64(straight.commits)) ||
		!near(int64(turned.published), int64(straight.published)) || turned.conns != straight.conns || !near(int64(turned.steps), int64(straight.steps)) {
		t.Errorf("with a right clock a board did %+v, with one that jumps %+v", straight, turned)
	}
}

// wakeups counts how often goroutines of this process went from ready to running.
func wakeups(t *testing.T) (n int64) {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		t.Fatal("the runtime counts no wakeups")
	}
	for _, c := range s[0].Value.Float64Histogram().Counts {
		n += int64(c)
	}
	return n
}

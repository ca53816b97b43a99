// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema/rest"
)

var (
	seedFlag  = flag.Uint64("commands.seed", 0, "run only this schedule")
	seedsFlag = flag.Int("commands.schedules", 30, "how many random schedules")
)

// TestSchedules: commands are given, cancelled and approved while the link loses,
// doubles, delays and reorders, boards come and go and lose their power, and the server
// dies between any two of its steps. In the end each command has one last word on each
// board, which is what the board did; order is kept, and nothing was begun too late.
func TestSchedules(t *testing.T) {
	t.Parallel()
	n, first := *seedsFlag, uint64(1)
	if *seedFlag > 0 {
		n, first = 1, *seedFlag
	}
	if testing.Short() {
		n = min(n, 10)
	}
	for i := range n {
		if t.Failed() {
			return
		}
		t.Run(fmt.Sprint(first+uint64(i)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { schedule(t, first+uint64(i)) })
		})
	}
}

func schedule(t *testing.T, seed uint64) {
	w := newWorld(t, seed, "b1", "b2", "b3")
	defer w.close()
	w.start()
	for _, b := range w.boards {
		b.plug()
	}
	names := []string{"set", "set", "move", "move", "pulse", "trigger-safety-shutdown", "never", "unheard-of", "release"}
	ctx := context.Background()
	for range 60 {
		time.Sleep(time.Duration(w.intN(1500)) * time.Millisecond)
		b := w.boards[fmt.Sprintf("b%d", 1+w.intN(3))]
		switch w.intN(12) {
		case 0, 1, 2, 3, 4:
			s := rest.CommandSpec{Name: names[w.intN(len(names))], ValidS: []int64{5, 30, 120}[w.intN(3)], DryRun: w.intN(10) == 0}
			if w.intN(3) == 0 {
				s.Query = "all"
			} else {
				s.Boards = []string{b.name}
			}
			_, _ = w.srv.Give(ctx, person("ann"), s)
		case 5, 6:
			heads, _, err := w.srv.List(ctx, "default", Filter{Limit: 8})
			if err == nil && len(heads) > 0 {
				a := rest.CommandAction{Action: []string{Cancel, Approve, Approve, Refuse}[w.intN(4)]}
				_, _ = w.srv.Act(ctx, person("bob"), heads[w.intN(len(heads))].ID, a)
			}
		case 7:
			b.unplug()
		case 8, 9:
			b.plug()
		case 10:
			b.stop()
			b.start()
		case 11:
			w.srv.mu.Lock()
			w.srv.left = 1 + w.intN(10) // it dies soon, wherever it is then
			w.srv.mu.Unlock()
			time.Sleep(time.Duration(w.intN(1500)) * time.Millisecond)
			w.kill()
			w.start()
		}
	}
	w.heal()
	w.judge(false)
}

// heal makes the link whole and gives everything time to end.
func (w *world) heal() {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	w.kill()
	w.start()
	for _, b := range w.boards {
		b.plug()
	}
	for range 30 {
		time.Sleep(time.Minute)
		for _, b := range w.boards {
			if !b.connected(w.srv) {
				b.plug()
			}
		}
	}
	time.Sleep(2 * time.Hour) // what waited for a second person
	synctest.Wait()
}

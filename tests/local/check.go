// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web"
)

// Wanted is what a run must have delivered at least.
type Wanted struct {
	Sensors    int // so many series ...
	Samples    int // ... with at least so many samples each
	Detections int
}

// settleTime is how long what is on its way may take to be stored.
const settleTime = 15 * time.Second

// Books is the API's answer for one board: what it says it made and what is there.
type Books struct {
	Board    string            `json:"board"`
	Ledger   []web.Ledger      `json:"ledger"`
	Samples  map[string]uint64 `json:"samples"` // good readings by series
	Batches  uint64            `json:"batches"` // sample records stored
	Events   uint64            `json:"events"`  // event records stored
	Pictures uint64            `json:"pictures"`
	Refused  uint64            `json:"refused"`
}

// Check asks the fleet what a stopped board delivered. The text is for a person;
// the error says what is missing.
func (a *API) Check(ctx context.Context, board string, want Wanted) (string, error) {
	c, err := a.Books(ctx, board)
	if err != nil {
		return "", err
	}
	return c.report(), c.judge(want)
}

// Books reads a stopped board's books once nothing is on its way any more, or
// after settleTime as they are.
func (a *API) Books(ctx context.Context, board string) (*Books, error) {
	var c *Books
	for end := time.Now().Add(settleTime); ; {
		var reply struct {
			Boards []Books `json:"boards"`
		}
		if err := a.Get(ctx, "/api/v1/check", &reply); err != nil {
			return nil, err
		}
		all := reply.Boards
		i := slices.IndexFunc(all, func(c Books) bool { return c.Board == board })
		if i < 0 {
			return nil, fmt.Errorf("the fleet knows no board %s", board)
		}
		c = &all[i]
		if c.settled() || time.Now().After(end) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return c, nil
}

func (c *Books) settled() bool {
	return !slices.ContainsFunc(c.Ledger, func(l web.Ledger) bool { return l.Waiting > 0 })
}

func (c *Books) judge(want Wanted) error {
	var wrong []string
	enough := 0
	for _, n := range c.Samples {
		if n >= uint64(want.Samples) {
			enough++
		}
	}
	if enough < want.Sensors {
		wrong = append(wrong, fmt.Sprintf("%d series have %d samples, wants %d", enough, want.Samples, want.Sensors))
	}
	if c.Events < uint64(want.Detections) {
		wrong = append(wrong, fmt.Sprintf("%d detections, wants %d", c.Events, want.Detections))
	}
	if c.Refused > 0 {
		wrong = append(wrong, fmt.Sprintf("%d messages were refused", c.Refused))
	}
	for _, l := range c.Ledger {
		if l.Made != l.Arrived+l.Lost || l.Waiting > 0 || l.Lost > 0 {
			wrong = append(wrong, fmt.Sprintf("class %s: made %d, arrived %d, lost %d, waiting %d", l.Class, l.Made, l.Arrived, l.Lost, l.Waiting))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s: %s", c.Board, strings.Join(wrong, "; "))
	}
	return nil
}

func (c *Books) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, as the fleet has it:\n", c.Board)
	for _, l := range c.Ledger {
		fmt.Fprintf(&b, "  %-9s %6d made = %6d arrived once + %d lost + %d waiting (%d repeats turned away)\n",
			l.Class, l.Made, l.Arrived, l.Lost, l.Waiting, l.Duplicates)
	}
	fmt.Fprintf(&b, "  %d series sampled, %d detections, %d pictures\n", len(c.Samples), c.Events, c.Pictures)
	names := slices.Sorted(maps.Keys(c.Samples))
	slices.SortStableFunc(names, func(x, y string) int { return int(c.Samples[y]) - int(c.Samples[x]) })
	for _, n := range names[:min(len(names), 6)] {
		fmt.Fprintf(&b, "    %-28s %d\n", n, c.Samples[n])
	}
	return b.String()
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"time"

	"fulmar/fleet/rollout/plan"
	"fulmar/schema/rest"
)

// BoardState is where one board stands.
type BoardState uint8

// The states of a board. Kept as words; see String.
const (
	BoardWaiting    BoardState = iota // has not got it
	BoardAssigned                     // was told, has not answered
	BoardInstalling                   // has answered: deadline
	BoardTrial                        // runs it on trial: deadline
	BoardGood
	BoardUndoing   // was told to go back: deadline
	BoardFailed    // and is back on what it ran before
	BoardUndone    // taken back
	BoardStuck     // did not say that it is back: a person has to look
	BoardUnreached // never answered
	BoardOut       // left out of a retry
	numStates
)

func boardWords() [numStates]string {
	return [...]string{"waiting", "assigned", "installing", "trial", "good", "undoing", "failed", "undone", "stuck", "unreached", "out"}
}

// String gives the word of the API.
func (s BoardState) String() string {
	if s >= numStates {
		return fmt.Sprintf("state-%d", uint8(s))
	}
	return boardWords()[s]
}

// Flying tells whether the board is on its way: between having been told and a verdict.
func (s BoardState) Flying() bool {
	return s == BoardAssigned || s == BoardInstalling || s == BoardTrial
}

// Board is one board of a rollout.
type Board struct {
	Name   string            `json:"name"`
	Site   string            `json:"site,omitempty"`
	Zone   string            `json:"zone,omitempty"`
	Facts  map[string]string `json:"facts,omitempty"`
	Was    string            `json:"was,omitempty"` // release before
	Wave   int               `json:"wave"`
	Shadow bool              `json:"shadow,omitempty"` // in the shadow phase first
	Silent bool              `json:"silent,omitempty"` // was not reachable when this was planned

	State     BoardState `json:"state"`
	Bad       bool       `json:"bad,omitempty"`     // counts as a failure
	Earlier   bool       `json:"earlier,omitempty"` // was good in an earlier try
	Acked     bool       `json:"acked,omitempty"`
	Shadowing bool       `json:"shadowing,omitempty"` // runs it beside the old one
	Phase     string     `json:"phase,omitempty"`
	Progress  int        `json:"progress,omitempty"`
	Since     time.Time  `json:"since,omitzero"`
	Deadline  time.Time  `json:"deadline,omitzero"`
	NotBefore time.Time  `json:"not_before,omitzero"` // of the next try
	Attempt   uint64     `json:"attempt,omitempty"`
	Tries     int        `json:"tries,omitempty"`
	Release   string     `json:"release,omitempty"` // running, as it said last
	Reason    string     `json:"reason,omitempty"`
	// Proving: it said committed, and its proof is waited for. Level is how far its word is
	// believed, where it is good.
	Proving bool   `json:"proving,omitempty"`
	Level   string `json:"level,omitempty"`
}

// WaveState is what is known of one wave.
type WaveState struct {
	plan.Wave
	Began   time.Time     `json:"began,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`
	Verdict *rest.Verdict `json:"verdict,omitempty"`
}

// tally counts the boards of a wave. It is kept beside them, not stored.
type Tally struct {
	N       [numStates]int
	Bad     int
	Earlier int // good ones of earlier tries
	Silent  int // unreached ones that were not reachable from the first
}

// Rollout is everything there is to know about one. The boards are kept apart in the
// database; the rest is its head.
type Rollout struct {
	ID      string           `json:"id"`
	Tenant  string           `json:"tenant"`
	Version int64            `json:"version"`
	Spec    rest.RolloutSpec `json:"spec"`
	LeftOut []rest.LeftOut   `json:"left_out,omitempty"`

	State    State     `json:"state"`
	Since    time.Time `json:"since,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"` // zero where it is over
	Into     State     `json:"into,omitempty"`
	Resume   State     `json:"resume,omitempty"`
	Wave     int       `json:"wave"` // -1 before the first, 0 in the shadow phase
	// Shadowed: the shadow phase is over.
	Shadowed bool        `json:"shadowed,omitempty"`
	Waves    []WaveState `json:"waves"`
	Why      string      `json:"why,omitempty"`    // what ended it, or what it is held for
	Common   string      `json:"common,omitempty"` // what the failed share
	Sentence string      `json:"sentence,omitempty"`

	Author   string    `json:"author"`
	Starter  string    `json:"starter,omitempty"`
	Approver string    `json:"approver,omitempty"`
	Created  time.Time `json:"created"`
	Began    time.Time `json:"began,omitzero"`
	Epoch    uint64    `json:"epoch"` // upper part of attempts: rises over all rollouts
	Counter  uint64    `json:"counter"`

	After     map[string]State     `json:"after,omitempty"` // rollouts that come first, as far as known
	Baselines map[string]float64   `json:"baselines,omitempty"`
	Guards    []rest.GuardVerdict  `json:"guards,omitempty"` // read in this judging
	Measured  bool                 `json:"measured,omitempty"`
	Hooked    bool                 `json:"hooked,omitempty"`
	HookOK    bool                 `json:"hook_ok,omitempty"`
	HookSaid  string               `json:"hook_said,omitempty"`
	NextFleet time.Time            `json:"next_fleet,omitzero"` // when the fleet's rate lets the next board begin
	NextSite  map[string]time.Time `json:"next_site,omitempty"`

	Past []rest.RolloutAttempt `json:"past,omitempty"`
	// Final holds the boards by state, of each wave, when it ended: for views that are
	// made without the boards.
	Final []map[string]int `json:"final,omitempty"`

	Boards []Board `json:"-"`

	windows plan.Windows
	zones   map[string]*time.Location
	index   map[string]int
	tallies []Tally // by wave
}

// Wake makes what is not stored, after a rollout was read.
func (r *Rollout) Wake() error {
	ws, err := plan.ParseWindows(r.Spec.Windows)
	if err != nil {
		return fmt.Errorf("rollout %s: %w", r.ID, err)
	}
	r.windows, r.zones, r.index = ws, map[string]*time.Location{}, make(map[string]int, len(r.Boards))
	for i := range r.Boards {
		r.index[r.Boards[i].Name] = i
	}
	if r.NextSite == nil {
		r.NextSite = map[string]time.Time{}
	}
	if r.Baselines == nil {
		r.Baselines = map[string]float64{}
	}
	r.Recount()
	return nil
}

// Group is the wave that a board counts in.
func (r *Rollout) Group(b *Board) int {
	if b.Shadow && !r.Shadowed {
		return 0
	}
	return b.Wave
}

func (r *Rollout) Recount() {
	r.tallies = make([]Tally, len(r.Spec.Waves)+1)
	for i := range r.Boards {
		r.Count(&r.Boards[i], 1)
	}
}

func (r *Rollout) Count(b *Board, by int) {
	t := &r.tallies[r.Group(b)]
	t.N[b.State] += by
	if b.Bad {
		t.Bad += by
	}
	if b.Earlier && b.State == BoardGood {
		t.Earlier += by
	}
	if b.Silent && b.State == BoardUnreached {
		t.Silent += by
	}
}

// WaveOf gives what is known of wave n; nil where there is none.
func (r *Rollout) WaveOf(n int) *WaveState {
	for i := range r.Waves {
		if r.Waves[i].N == n {
			return &r.Waves[i]
		}
	}
	return nil
}

// Counts gives the boards of a wave by state; those of all waves for -1.
func (r *Rollout) Counts(wave int) map[string]int {
	out := map[string]int{}
	for i := range r.tallies {
		if wave >= 0 && wave != i {
			continue
		}
		if len(r.Boards) == 0 && i < len(r.Final) {
			for s, n := range r.Final[i] {
				out[s] += n
			}
			continue
		}
		for s, n := range r.tallies[i].N {
			if n > 0 {
				out[BoardState(s).String()] += n
			}
		}
	}
	return out
}

// Tally counts the boards of wave n.
func (r *Rollout) Tally(n int) Tally { return r.tallies[n] }

// Open tells whether the windows let a board of the zone begin.
func (r *Rollout) Open(zone string, now time.Time) bool { return r.windows.Open(r.zone(zone), now) }

// Total sums the tallies of all waves.
func (r *Rollout) Total() (sum Tally) {
	for _, t := range r.tallies {
		for s, n := range t.N {
			sum.N[s] += n
		}
		sum.Bad += t.Bad
		sum.Silent += t.Silent
	}
	return sum
}

// Has gives the board's place, false where it is not in the rollout.
func (r *Rollout) Has(board string) (int, bool) {
	i, ok := r.index[board]
	return i, ok
}

// Settled tells whether no board is in between.
func (r *Rollout) Settled() bool {
	t := r.Total()
	return t.N[BoardAssigned]+t.N[BoardInstalling]+t.N[BoardTrial]+t.N[BoardUndoing] == 0
}

func (r *Rollout) zone(name string) *time.Location {
	z := r.zones[name]
	if z == nil {
		z = plan.Zone(name)
		r.zones[name] = z
	}
	return z
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// RolloutSpec is a plan as a person writes it. What is left out gets the default that
// stands beside it; the plan that a [Rollout] shows has them filled in.
type RolloutSpec struct {
	Name      string `json:"name,omitempty"`     // as people call it; Release where empty
	Component string `json:"component"`          // agent, worker, config, rootfs or model/NAME
	Release   string `json:"release"`            // what the boards shall run: the name of a release that the fleet knows
	Envelope  []byte `json:"envelope,omitempty"` // its signed manifest, filled in by the fleet; at most 32 KiB

	Query       string   `json:"query,omitempty"`       // which boards; empty: all
	Boards      []string `json:"boards,omitempty"`      // these alone, of those that Query gives
	Unreachable string   `json:"unreachable,omitempty"` // boards not there now: "later" (in the last wave) or "never"

	Waves   []WaveSpec `json:"waves,omitempty"`   // 2 %, 10 % and the rest; the last one takes the rest
	Gate    GateSpec   `json:"gate"`              //
	Guards  []Guard    `json:"guards,omitempty"`  // none
	Windows []Window   `json:"windows,omitempty"` // always
	PerSite int        `json:"per_site,omitempty"`
	// Bytes is what one board downloads, filled in by the fleet where it is left out. FleetRate and SiteRate bound what all boards
	// and those of one site download, in bytes a second; 0 no bound.
	Bytes     int64 `json:"bytes,omitempty"`
	FleetRate int64 `json:"fleet_bytes_per_s,omitempty"`
	SiteRate  int64 `json:"site_bytes_per_s,omitempty"`

	Approval bool        `json:"approval,omitempty"` // a second person has to agree
	After    []string    `json:"after,omitempty"`    // rollouts that have to be done first
	Shadow   *ShadowSpec `json:"shadow,omitempty"`   // of models: runs beside the old one first
	Before   *Hook       `json:"before,omitempty"`   // called before each wave
	Behind   *Hook       `json:"behind,omitempty"`   // called after each wave; part of its gate
	Undo     string      `json:"undo,omitempty"`     // what a halt takes back: "wave", "all" or "failed"
	Limits   Limits      `json:"limits"`
}

// WaveSpec is one wave: Count boards, or Percent of all.
type WaveSpec struct {
	Percent float64 `json:"percent,omitempty"`
	Count   int     `json:"count,omitempty"`
	SoakS   int64   `json:"soak_s,omitempty"`  // how long the boards run it before the gate; 600
	Pause   bool    `json:"pause,omitempty"`   // a person says when the next wave begins
	Unclear string  `json:"unclear,omitempty"` // not enough boards to tell: "wait" for a person or "continue"
}

// GateSpec is what a wave has to show. Policy "interval" halts when the share of good
// boards is below Gate for sure and goes on when it is not below; policy "point" goes
// on at Gate and above and takes everything back below it.
type GateSpec struct {
	Policy      string  `json:"policy,omitempty"`       // "interval"
	Gate        float64 `json:"gate,omitempty"`         // share of good boards, 0.995
	MinFailures int     `json:"min_failures,omitempty"` // fewer never halt, 2
	MinAnswered float64 `json:"min_answered,omitempty"` // share of a wave that has to have ended, 0.5; below is not enough to tell
}

// Guard is a metric that must not get worse. Expr is PromQL that gives one value for
// each label "board". Without Min and Max the median of the boards of the wave is held
// against that of the boards that have not got the release.
type Guard struct {
	Name      string   `json:"name"`
	Expr      string   `json:"expr"`
	Better    string   `json:"better"`              // "lower" or "higher"
	Tolerance float64  `json:"tolerance,omitempty"` // how much worse is still good, as a share of the cohort's value; 0.1
	Slack     float64  `json:"slack,omitempty"`     // the same, in the metric's unit; the larger of the two counts
	Min       *float64 `json:"min,omitempty"`       // the median must not be below
	Max       *float64 `json:"max,omitempty"`       // nor above
}

// Window is when boards may begin: between From and To (15:04; over midnight where To is
// not after From) on days (mon to sun, of the beginning; none: all). Zone is an IANA
// name, "" or "site" the zone of the board's site (UTC where it has none).
type Window struct {
	Days []string `json:"days,omitempty"`
	From string   `json:"from"`
	To   string   `json:"to"`
	Zone string   `json:"zone,omitempty"`
}

// ShadowSpec is a first phase in which a model runs beside the one in use and decides
// nothing. Agreement guards it: its Min is the share of frames on which both agree.
type ShadowSpec struct {
	Percent   float64 `json:"percent,omitempty"`
	Count     int     `json:"count,omitempty"`
	SoakS     int64   `json:"soak_s,omitempty"` // 3600
	Agreement *Guard  `json:"agreement,omitempty"`
}

// Hook is a URL that gets a POST; any answer of 2xx within the limit is a yes.
type Hook struct {
	URL    string `json:"url"`
	LimitS int64  `json:"limit_s,omitempty"` // 60
}

// Limits are how long things may take, in seconds.
type Limits struct {
	AckS     int64 `json:"ack_s,omitempty"`     // a board has not answered an assignment: it is tried again, 300
	InstallS int64 `json:"install_s,omitempty"` // from the answer to the trial: a failure after that, 7200
	TrialS   int64 `json:"trial_s,omitempty"`   // of the trial: a failure after that, 900
	WaveS    int64 `json:"wave_s,omitempty"`    // a wave waits for boards it does not reach, 86400
	UndoS    int64 `json:"undo_s,omitempty"`    // boards that have not confirmed are listed after that, 3600
}

// Rollout is a plan and how far it is.
type Rollout struct {
	ID      string      `json:"id"` // r-31
	Version int64       `json:"version"`
	Spec    RolloutSpec `json:"spec"`

	State    string     `json:"state"` // planned, approval, waiting, before, wave, soak, judging, held, paused, stopping; done, halted, rolled-back, aborted
	Since    time.Time  `json:"since"`
	Over     bool       `json:"over"`               // State is one of the last four
	Deadline *time.Time `json:"deadline,omitempty"` // of every state that is not over
	// Then is what happens at the deadline, a sentence.
	Then     string `json:"then,omitempty"`
	Sentence string `json:"sentence"`     // where it stands or how it ended, and why
	Do       string `json:"do,omitempty"` // what to do next, a command

	Author   string    `json:"author"`
	Starter  string    `json:"starter,omitempty"`
	Approver string    `json:"approver,omitempty"`
	Created  time.Time `json:"created"`

	Wave    int              `json:"wave"` // the current one; 0 before the first and in the shadow phase
	Waves   []Wave           `json:"waves"`
	Counts  map[string]int   `json:"counts"`             // boards by state
	Levels  map[string]int   `json:"levels,omitempty"`   // good boards by level, while their names are known
	LeftOut []LeftOut        `json:"left_out,omitempty"` // boards of the query that are not in the plan, by reason
	Common  string           `json:"common,omitempty"`   // what the failed have in common that the good have not
	Reasons []FailureReason  `json:"reasons,omitempty"`
	Verdict *Verdict         `json:"verdict,omitempty"` // of the current wave, newest
	Steps   []RolloutStep    `json:"steps,omitempty"`   // newest first, at most 200
	Actions []string         `json:"actions,omitempty"` // which RolloutAction.Do are possible now
	Done    *time.Time       `json:"done_about,omitempty"`
	Rolls   []RolloutAttempt `json:"attempts,omitempty"` // the tries before this one
}

// RolloutAttempt is how an earlier try of the same rollout ended.
type RolloutAttempt struct {
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	State    string    `json:"state"`
	Sentence string    `json:"sentence"`
}

// Wave is one wave of a rollout. Each names its boards before it starts.
type Wave struct {
	N       int            `json:"n"` // 0 is the shadow phase
	Shadow  bool           `json:"shadow,omitempty"`
	Boards  int            `json:"boards"`
	Sites   int            `json:"sites"`
	Counts  map[string]int `json:"counts"` // by state of the board
	SoakS   int64          `json:"soak_s"`
	Pause   bool           `json:"pause,omitempty"`
	Began   *time.Time     `json:"began,omitempty"`
	Ended   *time.Time     `json:"ended,omitempty"`
	Verdict *Verdict       `json:"verdict,omitempty"` // the last one
	Proves  string         `json:"proves"`            // what it shows at best: "20 of 20: at least 86.1 %"
	Halts   int            `json:"halts"`             // so many failures halt it
	Names   []string       `json:"names,omitempty"`   // the first 1,000
}

// Verdict is what a gate says. Value, Upper and Lower are shares of good boards among
// those that ended; the bounds are Clopper-Pearson, one-sided, 95 % for a single look.
type Verdict struct {
	Outcome  string         `json:"outcome"` // "bad", "good", "unclear": not enough boards to tell
	Policy   string         `json:"policy"`
	Gate     float64        `json:"gate"`
	Good     int            `json:"good"`
	Failed   int            `json:"failed"`
	Boards   int            `json:"boards"` // of the wave
	Value    float64        `json:"value"`
	Upper    float64        `json:"upper"`
	Lower    float64        `json:"lower"`
	Guards   []GuardVerdict `json:"guards,omitempty"`
	Hook     string         `json:"hook,omitempty"` // what the hook behind the wave said
	Sentence string         `json:"sentence"`
	At       time.Time      `json:"at"`
}

// GuardVerdict is one guard of a verdict.
type GuardVerdict struct {
	Name     string  `json:"name"`
	Outcome  string  `json:"outcome"` // "good", "bad", "unclear"
	Value    float64 `json:"value"`   // median of the boards that have it
	Cohort   float64 `json:"cohort"`  // of those that have not
	Limit    float64 `json:"limit"`
	Boards   int     `json:"boards"`
	Others   int     `json:"others"`
	Sentence string  `json:"sentence"`
}

// FailureReason is one reason and the boards that gave it.
type FailureReason struct {
	Reason string   `json:"reason"`
	Boards int      `json:"boards"`
	Names  []string `json:"names"` // the first 20
}

// LeftOut is a reason why boards are not in the plan.
type LeftOut struct {
	Reason string   `json:"reason"`
	Boards int      `json:"boards"`
	Names  []string `json:"names"` // the first 20
}

// RolloutStep is one thing that happened.
type RolloutStep struct {
	At   time.Time `json:"at"`
	Who  string    `json:"who"` // a person, a token, or "fleet"
	From string    `json:"from,omitempty"`
	To   string    `json:"to"`
	Say  string    `json:"say"`
}

// RolloutBoard is one board of a rollout.
type RolloutBoard struct {
	Board    string     `json:"board"`
	Site     string     `json:"site,omitempty"`
	Wave     int        `json:"wave"`
	State    string     `json:"state"`           // waiting, assigned, installing, trial, good, failed, undoing, undone, stuck, unreached
	Phase    string     `json:"phase,omitempty"` // the board's own word: fetching, staged, ...
	Progress int        `json:"progress"`        // per cent of the phase
	Since    time.Time  `json:"since"`
	Deadline *time.Time `json:"deadline,omitempty"`
	Attempt  uint64     `json:"attempt,omitempty"` // rises over all assignments of the fleet
	Tries    int        `json:"tries"`
	Release  string     `json:"release,omitempty"` // running now, as it says
	Reason   string     `json:"reason,omitempty"`
	// Level is how far the word of a good board is believed: claimed (it says so), bound (its
	// TPM signed it), measured (and its boot is measured). Proving: it said committed, and its
	// TPM's word is waited for.
	Level   string `json:"level,omitempty"`
	Proving bool   `json:"proving,omitempty"`
	// Past is how earlier attempts ended, newest first.
	Past []RolloutStep `json:"past,omitempty"`
}

// Forecast is a plan played through before it starts. Nothing has been changed.
type Forecast struct {
	Boards   int            `json:"boards"`
	LeftOut  []LeftOut      `json:"left_out,omitempty"`
	Waves    []ForecastWave `json:"waves"`
	Done     *time.Time     `json:"done_about,omitempty"` // if it started now; nil: not within 90 days
	Bytes    int64          `json:"bytes"`                // of all downloads
	Assumes  []string       `json:"assumes"`              // what the times rest on
	Sentence string         `json:"sentence"`
}

// ForecastWave is one wave of a forecast.
type ForecastWave struct {
	Wave
	Starts *time.Time `json:"starts_about,omitempty"`
	Ends   *time.Time `json:"ends_about,omitempty"`
}

// The things a person does to a rollout.
const (
	RolloutStart    = "start"
	RolloutApprove  = "approve"
	RolloutPause    = "pause"
	RolloutResume   = "resume" // also: go on where it is held
	RolloutAbort    = "abort"
	RolloutRetry    = "retry"
	RolloutRollback = "rollback"
)

// RolloutAction is one of them.
type RolloutAction struct {
	Do      string `json:"do,omitempty"`      // in the path of the API, not in the body
	Why     string `json:"why,omitempty"`     // for the audit log
	Without string `json:"without,omitempty"` // of retry: a query of boards to leave out
	Only    string `json:"only,omitempty"`    // of retry: a query of boards to try alone
	Scope   string `json:"scope,omitempty"`   // of rollback: "wave" or "all"
}

// The events of rollouts that webhooks get; the data of each is a [RolloutEvent].
const (
	RolloutAsks       = "rollout.approval"    // waits for a second person
	RolloutStarted    = "rollout.started"     // or was tried again
	RolloutWave       = "rollout.wave"        // boards of the next wave get it
	RolloutHeld       = "rollout.held"        // waits for a person
	RolloutHalted     = "rollout.halted"      // by its gate
	RolloutDone       = "rollout.done"        // all waves are through
	RolloutRolledBack = "rollout.rolled-back" // a person took it back
	RolloutAborted    = "rollout.aborted"     // a person or a deadline ended it
)

// RolloutEvent is what happened to a rollout.
type RolloutEvent struct {
	Rollout   string `json:"rollout"` // r-31
	Version   int64  `json:"version"` // as the API wants it back, at the end of what happened
	Name      string `json:"name,omitempty"`
	Component string `json:"component"`
	Release   string `json:"release"`
	From      string `json:"from"` // states
	State     string `json:"state"`
	Who       string `json:"who"` // a person, a token, or "fleet"
	Say       string `json:"say"` // a sentence
	URL       string `json:"url,omitempty"`
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

// errStale, errNone and refusal are what a keeper of rollouts answers with.
var (
	errStale = errors.New("rollout: stale")
	errNone  = errors.New("rollout: none")
)

type refusal struct{ pointer, detail string }

func (r *refusal) Error() string { return r.detail }

// problem puts these into words, as the server does.
func problem(err error) (rest.Problem, bool) {
	var no *refusal
	switch {
	case errors.Is(err, errStale):
		return rest.Problem{Status: 412, Title: "Somebody changed it meanwhile", Do: "look at what changed, then do it again"}, true
	case errors.Is(err, errNone):
		return rest.Problem{Status: 404, Title: "There is no such rollout"}, true
	case errors.As(err, &no):
		return rest.Problem{Status: 422, Title: "It was refused as it stands", Errors: []rest.Fault{{Pointer: no.pointer, Detail: no.detail}}}, true
	}
	return rest.Problem{}, false
}

// books keeps rollouts in memory.
type books struct {
	mu     sync.Mutex
	list   []rest.Rollout
	boards map[string][]rest.RolloutBoard
	did    []string
	made   []rest.RolloutSpec
	err    error
}

func (b *books) List(context.Context, string) ([]rest.Rollout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list), b.err
}

func (b *books) Get(_ context.Context, tenant, id string) (*rest.Rollout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.list {
		if b.list[i].ID == id && tenant == "main" {
			r := b.list[i]
			return &r, b.err
		}
	}
	return nil, errNone
}

func (b *books) Boards(_ context.Context, _, id string) ([]rest.RolloutBoard, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.boards[id]), b.err
}

func (b *books) Forecast(_ context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Forecast, error) {
	if err := by.May(rest.RolloutsWrite); err != nil {
		return nil, err
	}
	if strings.Contains(s.Query, "hall4") {
		return nil, &refusal{"/query", "no board has site=hall4; did you mean hall-4 (1,014 boards)?"}
	}
	if strings.Contains(s.Component, " ") {
		return nil, &refusal{"/component", "wants agent, worker, config, rootfs or model/NAME"}
	}
	at := fixed()
	when := func(h int) *time.Time { t := at.Add(time.Duration(h) * time.Hour); return &t }
	return &rest.Forecast{
		Boards: 1000, Bytes: 6_100_000_000, Done: when(38), Sentence: "1,000 boards in 3 waves, done about Mon 04:30",
		LeftOut: []rest.LeftOut{{Reason: "run this release already", Boards: 14, Names: names("dock", 900, 14)}},
		Assumes: []string{"each board takes 6 minutes to install and 10 to pass its trial, as the last 5 rollouts did", "no wave halts"},
		Waves: []rest.ForecastWave{
			{Wave: rest.Wave{N: 1, Boards: 20, Sites: 5, Proves: "20 of 20: at least 86.1 %", Halts: 2, Names: names("dock", 1, 20)}, Starts: when(0), Ends: when(1)},
			{Wave: rest.Wave{N: 2, Boards: 100, Sites: 5, Proves: "120 of 120: at least 97.5 %", Halts: 3, Names: names("dock", 21, 100)}, Starts: when(1), Ends: when(3)},
			{Wave: rest.Wave{N: 3, Boards: 880, Sites: 5, Proves: "1,000 of 1,000: at least 99.7 %", Halts: 10, Names: names("dock", 121, 880)}, Starts: when(8), Ends: when(38)},
		},
	}, nil
}

func (b *books) Create(_ context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Rollout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := by.May(rest.RolloutsWrite); err != nil {
		return nil, err
	}
	b.made = append(b.made, s)
	r := rest.Rollout{ID: fmt.Sprintf("r-%d", 40+len(b.made)), Spec: s, State: planned, Since: fixed(), Created: fixed(), Author: by.Author, Sentence: "planned for 1,000 boards; nothing has been changed", Version: 1, Actions: []string{"start", "abort"}}
	b.list = append(b.list, r)
	return &r, nil
}

func (b *books) Act(_ context.Context, by access.Caller, id string, version int64, a rest.RolloutAction) (*rest.Rollout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.list {
		r := &b.list[i]
		switch {
		case r.ID != id:
			continue
		case r.Version != version:
			return nil, errStale
		case a.Do == rest.RolloutApprove && by.Author == r.Author:
			return nil, access.ErrNotAllowed
		}
		b.did = append(b.did, fmt.Sprintf("%s %s by %s without=%s only=%s scope=%s why=%s", a.Do, id, by.Who, a.Without, a.Only, a.Scope, a.Why))
		r.Version++
		if a.Do == rest.RolloutPause {
			r.State, r.Actions, r.Sentence = paused, []string{"resume", "abort", "rollback"}, "paused by "+by.Who
		}
		return r, nil
	}
	return nil, errNone
}

// names gives n names from one on.
func names(prefix string, from, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("%s-%04d", prefix, from+i))
	}
	return out
}

// fixed is the moment of tests that need no clock: a Saturday.
func fixed() time.Time { return time.Date(2026, 11, 21, 14, 2, 11, 0, time.UTC) }

// wave makes one wave.
func wave(n, boards int, counts map[string]int, began, ended *time.Time, v *rest.Verdict) rest.Wave {
	return rest.Wave{N: n, Boards: boards, Sites: min(boards, 5), Counts: counts, SoakS: 600, Began: began, Ended: ended, Verdict: v, Proves: fmt.Sprintf("%d of %d: at least 86.1 %%", boards, boards), Halts: 2}
}

// sum adds the counts of waves.
func sum(ws []rest.Wave) map[string]int {
	out := map[string]int{}
	for _, w := range ws {
		for k, n := range w.Counts {
			out[k] += n
		}
	}
	return out
}

// newBooks makes a rollout in each state that looks different.
func newBooks(now time.Time) *books {
	at := func(min int) *time.Time { t := now.Add(time.Duration(min) * time.Minute); return &t }
	spec := rest.RolloutSpec{
		Component: "model/forklift", Release: "forklift-v7", Name: "forklift-v7", Query: "site=hall-4 and model=orin-nx", Unreachable: "later", Undo: "wave",
		Waves: []rest.WaveSpec{{Percent: 2, SoakS: 600, Unclear: "wait"}, {Percent: 10, SoakS: 1800, Unclear: "wait"}, {Percent: 100, SoakS: 1800, Unclear: "wait"}},
		Gate:  rest.GateSpec{Policy: "interval", Gate: 0.995, MinFailures: 2, MinAnswered: 0.5}, PerSite: 3, Bytes: 6_100_000,
		Windows: []rest.Window{{Days: []string{"mon", "tue"}, From: "22:00", To: "05:00"}}, Approval: true,
		Guards: []rest.Guard{{Name: "latency", Expr: "fulmar_latency_ms", Better: "lower", Tolerance: 0.1}},
	}
	b := &books{boards: map[string][]rest.RolloutBoard{}}

	bad := &rest.Verdict{
		Outcome: "bad", Policy: "interval", Gate: 0.995, Good: 17, Failed: 3, Boards: 20, Value: 0.85, Upper: 0.9578, Lower: 0.656, At: *at(-12),
		Sentence: "3 of 20 failed; the gate is 99.5 %, this is 95.8 % at best",
		Guards: []rest.GuardVerdict{
			{Name: "latency", Outcome: "good", Value: 7.1, Cohort: 7.3, Limit: 8.03, Boards: 17, Others: 980, Sentence: "the median of the wave is 7.1, that of the others 7.3"},
			{Name: "memory", Outcome: "bad", Value: 91, Cohort: 74, Limit: 81.4, Boards: 17, Others: 980, Sentence: "the median of the wave is 91, the limit is 81.4"},
			{Name: "fps", Outcome: "unclear", Value: 0, Cohort: 29.9, Limit: 26.9, Boards: 0, Others: 980, Sentence: "no board of the wave sent it"},
		},
	}
	halted1 := []rest.Wave{wave(1, 20, map[string]int{"undone": 16, "stuck": 1, "failed": 3}, at(-60), at(-12), bad), wave(2, 100, map[string]int{"waiting": 100}, nil, nil, nil), wave(3, 880, map[string]int{"waiting": 866, "unreached": 14}, nil, nil, nil)}
	b.list = append(b.list, rest.Rollout{
		ID: "r-31", Version: 9, Spec: spec, State: halted, Since: *at(-12), Over: true, Author: "m.kern", Starter: "m.kern", Approver: "a.wolff", Created: *at(-90), Wave: 1, Waves: halted1, Counts: sum(halted1),
		Sentence: "halted in wave 1: 3 of 20 failed; the gate is 99.5 %, this is 95.8 % at best; 980 boards untouched", Do: "fulmar rollout retry r-31 --without 'dla=on'",
		Common: "all 3 are Orin NX 8GB with DLA on; of the good boards none is",
		Reasons: []rest.FailureReason{
			{Reason: "the worker crashed three times: CUDA error 700 in Conv_212", Boards: 2, Names: []string{"dock-0017", "dock-0003"}},
			{Reason: "overdue: no answer in 15 min of trial", Boards: 1, Names: []string{"dock-0011"}},
		},
		LeftOut: []rest.LeftOut{{Reason: "they run this release already", Boards: 2, Names: []string{"dock-0990", "dock-0991"}}},
		Verdict: bad, Actions: []string{"retry", "rollback"},
		Steps: []rest.RolloutStep{
			{At: *at(-12), Who: "fleet", From: "judging", To: halted, Say: "halted in wave 1: 3 of 20 failed"},
			{At: *at(-60), Who: "fleet", From: "waiting", To: inWave, Say: "wave 1 began: 20 boards over 5 sites"},
			{At: *at(-61), Who: "a.wolff", From: approval, To: waiting, Say: "approved"},
			{At: *at(-90), Who: "m.kern", To: planned, Say: "planned for 1,000 boards"},
		},
		Rolls: []rest.RolloutAttempt{{Began: *at(-3000), Ended: *at(-2900), State: aborted, Sentence: "aborted by m.kern: wrong camera profile"}},
	})
	for i, n := range names("dock", 1, 20) {
		x := rest.RolloutBoard{Board: n, Site: fmt.Sprintf("hall-%d", i%5), Wave: 1, State: "undone", Since: *at(-10), Release: "forklift-v6", Tries: 1, Attempt: uint64(400 + i)}
		switch n {
		case "dock-0017", "dock-0003", "dock-0011":
			x.State, x.Reason = "failed", "the worker crashed three times: CUDA error 700 in Conv_212"
		case "dock-0005":
			x.State, x.Reason, x.Release = "stuck", "212 MB free, forklift-v6 needs 388", "forklift-v7"
		}
		b.boards["r-31"] = append(b.boards["r-31"], x)
	}
	for _, n := range names("dock", 986, 14) {
		b.boards["r-31"] = append(b.boards["r-31"], rest.RolloutBoard{Board: n, Site: "hall-4", Wave: 3, State: "unreached", Since: *at(-9000)})
	}
	b.running(spec, now, at)
	b.others(spec, at)
	return b
}

// running adds one in its second wave.
func (b *books) running(spec rest.RolloutSpec, now time.Time, at func(int) *time.Time) {
	spec.Component, spec.Release, spec.Name = "agent", "1.8.2", "agent 1.8.2"
	good := &rest.Verdict{Outcome: "good", Policy: "interval", Gate: 0.995, Good: 20, Boards: 20, Value: 1, Upper: 1, Lower: 0.8609, At: *at(-40), Sentence: "20 of 20 are good: that shows at least 86.1 %; the gate is 99.5 %"}
	so := &rest.Verdict{Outcome: "unclear", Policy: "interval", Gate: 0.995, Good: 61, Boards: 100, Value: 1, Upper: 1, Lower: 0.952, At: *at(-1), Sentence: "61 of 100 boards are good so far"}
	ws := []rest.Wave{wave(1, 20, map[string]int{"good": 20}, at(-120), at(-40), good), wave(2, 100, map[string]int{"good": 61, "installing": 31, "trial": 6, "unreached": 2}, at(-38), nil, so), wave(3, 880, map[string]int{"waiting": 880}, nil, nil, nil)}
	ws[2].Pause = true
	b.list = append(b.list, rest.Rollout{
		ID: "r-32", Version: 14, Spec: spec, State: inWave, Since: *at(-38), Deadline: at(38), Then: "boards that have not ended by then count as failed", Author: "a.wolff", Starter: "a.wolff", Approver: "m.kern", Created: *at(-200),
		Wave: 2, Waves: ws, Counts: sum(ws), Verdict: so, Actions: []string{"pause", "abort", "rollback"}, Done: at(60 * 40),
		Sentence: "wave 2: 61 of 100 are good; 31 are installing, 6 in trial, 2 were not reached",
		Steps:    []rest.RolloutStep{{At: *at(-38), Who: "fleet", From: "judging", To: inWave, Say: "wave 2 began: 100 boards over 5 sites"}},
	})
	for i, n := range names("dock", 21, 100) {
		x := rest.RolloutBoard{Board: n, Site: fmt.Sprintf("hall-%d", i%5), Wave: 2, State: "good", Since: *at(-20), Release: "1.8.2", Tries: 1}
		switch {
		case i < 31:
			x.State, x.Phase, x.Progress, x.Deadline, x.Release = "installing", "fetching", 3*i, at(80), "1.8.1"
		case i < 37:
			x.State, x.Phase, x.Deadline, x.Tries = "trial", "trial", at(i-20), 2
		case i < 39:
			x.State, x.Release = "unreached", ""
		}
		b.boards["r-32"] = append(b.boards["r-32"], x)
	}
}

// others adds one of each other state.
func (b *books) others(spec rest.RolloutSpec, at func(int) *time.Time) {
	ws := func(counts ...map[string]int) (out []rest.Wave) {
		for i, c := range counts {
			n := 0
			for _, k := range c {
				n += k
			}
			out = append(out, wave(i+1, n, c, nil, nil, nil))
		}
		return out
	}
	add := func(r rest.Rollout) {
		r.Spec.Name, r.Counts = r.ID+" "+r.Spec.Component, sum(r.Waves)
		b.list = append(b.list, r)
	}
	cfg, worker, root := spec, spec, spec
	cfg.Component, cfg.Release = "config", "site-7"
	worker.Component, worker.Release = "worker", "1.8.0"
	root.Component, root.Release = "rootfs", "36.4.4"
	add(rest.Rollout{ID: "r-33", Version: 2, Spec: cfg, State: approval, Since: *at(-5), Deadline: at(60 * 70), Then: "it is aborted: nobody approved it", Author: "m.kern", Starter: "m.kern", Created: *at(-6), Waves: ws(map[string]int{"waiting": 20}, map[string]int{"waiting": 180}), Sentence: "waits for a second person to approve it", Actions: []string{"approve", "abort"}})
	unclear := &rest.Verdict{Outcome: "unclear", Policy: "interval", Gate: 0.995, Good: 8, Failed: 1, Boards: 20, Value: 0.888, Upper: 0.9943, Lower: 0.57, At: *at(-3), Sentence: "1 of 9 failed; the gate is 99.5 %, this is between 57.1 % and 99.4 %: not enough boards to tell"}
	add(rest.Rollout{ID: "r-34", Version: 5, Spec: worker, State: held, Since: *at(-3), Deadline: at(60 * 20), Then: "it is aborted", Author: "m.kern", Starter: "m.kern", Approver: "a.wolff", Created: *at(-100), Wave: 1, Waves: ws(map[string]int{"good": 8, "failed": 1, "unreached": 11}, map[string]int{"waiting": 180}), Verdict: unclear, Sentence: "held after wave 1: not enough boards to tell", Actions: []string{"resume", "abort", "rollback"}})
	add(rest.Rollout{ID: "r-35", Version: 1, Spec: root, State: planned, Since: *at(-1), Deadline: at(60 * 24 * 7), Then: "the plan is dropped", Author: "m.kern", Created: *at(-1), Waves: ws(map[string]int{"waiting": 4}, map[string]int{"waiting": 40}), Sentence: "planned for 44 boards; nothing has been changed", Actions: []string{"start", "abort"}})
	add(rest.Rollout{ID: "r-20", Version: 30, Spec: worker, State: done, Since: *at(-60 * 24 * 3), Over: true, Author: "m.kern", Approver: "a.wolff", Created: *at(-60 * 24 * 4), Wave: 2, Waves: ws(map[string]int{"good": 20}, map[string]int{"good": 178, "unreached": 2}), Sentence: "done: 198 of 198 are good, 2 were never reached"})
	add(rest.Rollout{ID: "r-19", Version: 30, Spec: root, State: aborted, Since: *at(-60 * 24 * 9), Over: true, Author: "a.wolff", Created: *at(-60 * 24 * 9), Wave: 1, Waves: ws(map[string]int{"good": 3, "waiting": 41}), Sentence: "aborted by a.wolff: the wrong base"})
}

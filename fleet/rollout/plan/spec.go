// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"fulmar/fleet/rollout/gate"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// Bounds of a plan: people write it, programs too.
const (
	MaxBoards   = 100_000 // of one rollout
	maxWaves    = 20
	maxGuards   = 16
	maxWindows  = 14
	maxAfter    = 16
	maxEnvelope = schema.MaxEnvelope
	maxExpr     = 1 << 10
	maxText     = 256
	maxSeconds  = 30 * 24 * 3600 // of each time in it
	maxBytes    = 1 << 40
)

// Words of a plan.
const (
	Later    = "later"
	Never    = "never"
	Wait     = "wait"
	Continue = "continue"
	UndoWave = "wave"
	UndoAll  = "all"
	UndoBad  = "failed"
)

// Error is what is wrong with one field of a plan.
type Error struct {
	Pointer string // JSON pointer
	Detail  string
}

// Error implements error.
func (e *Error) Error() string { return "plan: " + e.Pointer + ": " + e.Detail }

// Is makes every Error one of its class: errors.Is(err, &plan.Error{}).
func (e *Error) Is(target error) bool {
	_, is := target.(*Error)
	return is
}

func wrong(pointer, format string, args ...any) error {
	return &Error{pointer, fmt.Sprintf(format, args...)}
}

// Complete fills in the defaults and checks every field; the first wrong one is an
// [*Error].
func Complete(s rest.RolloutSpec) (rest.RolloutSpec, error) {
	s.Waves, s.Guards = slices.Clone(s.Waves), slices.Clone(s.Guards)
	defaults(&s)
	for _, check := range []func(*rest.RolloutSpec) error{checkWhat, checkWaves, checkGates, checkWhen, checkHooks} {
		if err := check(&s); err != nil {
			return s, err
		}
	}
	return s, nil
}

func defaults(s *rest.RolloutSpec) {
	s.Name = cmp.Or(s.Name, s.Release)
	s.Unreachable = cmp.Or(s.Unreachable, Later)
	if len(s.Waves) == 0 {
		s.Waves = []rest.WaveSpec{{Percent: 2}, {Percent: 10}, {Percent: 100}}
	}
	for i := range s.Waves {
		s.Waves[i].SoakS = cmp.Or(s.Waves[i].SoakS, 600)
		s.Waves[i].Unclear = cmp.Or(s.Waves[i].Unclear, Wait)
	}
	g := &s.Gate
	g.Policy, g.Gate = cmp.Or(g.Policy, gate.Interval), cmp.Or(g.Gate, 0.995)
	g.MinFailures, g.MinAnswered = cmp.Or(g.MinFailures, 2), cmp.Or(g.MinAnswered, 0.5)
	if s.Undo == "" && g.Policy == gate.Point {
		s.Undo = UndoAll // below its gate nothing of it stays
	}
	s.Undo = cmp.Or(s.Undo, UndoWave)
	for i := range s.Guards {
		guardDefaults(&s.Guards[i])
	}
	if s.Shadow != nil {
		sh := *s.Shadow
		sh.SoakS = cmp.Or(sh.SoakS, 3600)
		if sh.Percent == 0 && sh.Count == 0 {
			sh.Percent = 2
		}
		if sh.Agreement != nil {
			g := *sh.Agreement
			g.Name = cmp.Or(g.Name, "agreement")
			guardDefaults(&g)
			sh.Agreement = &g
		}
		s.Shadow = &sh
	}
	for _, h := range []**rest.Hook{&s.Before, &s.Behind} {
		if *h != nil {
			*h = &rest.Hook{URL: (*h).URL, LimitS: cmp.Or((*h).LimitS, 60)}
		}
	}
	l := &s.Limits
	l.AckS, l.InstallS, l.TrialS = cmp.Or(l.AckS, 300), cmp.Or(l.InstallS, 7200), cmp.Or(l.TrialS, 900)
	l.WaveS, l.UndoS = cmp.Or(l.WaveS, 86_400), cmp.Or(l.UndoS, 3600)
}

func guardDefaults(g *rest.Guard) {
	g.Better = cmp.Or(g.Better, "lower")
	if g.Tolerance == 0 && g.Slack == 0 && g.Min == nil && g.Max == nil {
		g.Tolerance = 0.1
	}
}

// CheckComponent tells whether s names what a board runs.
func CheckComponent(s string) error {
	name, model := strings.CutPrefix(s, "model/")
	if model && schema.CheckBoard(name) == nil || slices.Contains([]string{"agent", "worker", "config", "rootfs"}, s) {
		return nil
	}
	return wrong("/component", "wants agent, worker, config, rootfs or model/NAME")
}

func checkWhat(s *rest.RolloutSpec) error {
	if err := CheckComponent(s.Component); err != nil {
		return err
	}
	switch {
	case s.Release == "" || len(s.Release) > schema.MaxName || strings.ContainsFunc(s.Release, odd):
		return wrong("/release", "wants 1 to %d bytes without spaces", schema.MaxName)
	case len(s.Name) > maxText || strings.ContainsFunc(s.Name, func(r rune) bool { return r < ' ' }):
		return wrong("/name", "wants at most %d bytes on one line", maxText)
	case len(s.Envelope) > maxEnvelope:
		return wrong("/envelope", "%d bytes, at most %d", len(s.Envelope), maxEnvelope)
	case len(s.Query) > maxExpr:
		return wrong("/query", "%d bytes, at most %d", len(s.Query), maxExpr)
	case len(s.Boards) > MaxBoards:
		return wrong("/boards", "%d boards, at most %d", len(s.Boards), MaxBoards)
	case s.Unreachable != Later && s.Unreachable != Never:
		return wrong("/unreachable", "wants later or never")
	case s.Undo != UndoWave && s.Undo != UndoAll && s.Undo != UndoBad:
		return wrong("/undo", "wants wave, all or failed")
	case len(s.After) > maxAfter:
		return wrong("/after", "%d rollouts, at most %d", len(s.After), maxAfter)
	case s.PerSite < 0 || s.PerSite > MaxBoards:
		return wrong("/per_site", "wants 0 (no bound) to %d", MaxBoards)
	}
	for field, v := range map[string]int64{"/bytes": s.Bytes, "/fleet_bytes_per_s": s.FleetRate, "/site_bytes_per_s": s.SiteRate} {
		if v < 0 || v > maxBytes {
			return wrong(field, "wants 0 to %d", int64(maxBytes))
		}
	}
	if s.Bytes == 0 && (s.FleetRate > 0 || s.SiteRate > 0) {
		return wrong("/bytes", "is wanted to hold a rate: what does one board download?")
	}
	return nil
}

func odd(r rune) bool { return r <= ' ' || r == 0x7f }

func checkWaves(s *rest.RolloutSpec) error {
	if len(s.Waves) > maxWaves {
		return wrong("/waves", "%d waves, at most %d", len(s.Waves), maxWaves)
	}
	for i, w := range s.Waves {
		p := fmt.Sprintf("/waves/%d", i)
		if w.Percent != 0 && w.Count != 0 || w.Percent < 0 || w.Percent > 100 || w.Count < 0 || w.Count > MaxBoards || w.Percent == 0 && w.Count == 0 && i < len(s.Waves)-1 {
			return wrong(p, "wants a percent of 0 to 100 or a count of boards")
		}
		if w.SoakS < 0 || w.SoakS > maxSeconds {
			return wrong(p+"/soak_s", "wants 0 to %d s", maxSeconds)
		}
		if w.Unclear != Wait && w.Unclear != Continue {
			return wrong(p+"/unclear", "wants wait or continue")
		}
	}
	if sh := s.Shadow; sh != nil {
		if !strings.HasPrefix(s.Component, "model/") {
			return wrong("/shadow", "only a model can run beside the old one")
		}
		if sh.Percent < 0 || sh.Percent > 100 || sh.Count < 0 || sh.Count > MaxBoards || sh.SoakS < 0 || sh.SoakS > maxSeconds {
			return wrong("/shadow", "wants a percent or a count of boards, and a soak of 0 to %d s", maxSeconds)
		}
	}
	return nil
}

func checkGates(s *rest.RolloutSpec) error {
	g := s.Gate
	switch {
	case g.Policy != gate.Interval && g.Policy != gate.Point:
		return wrong("/gate/policy", "wants interval or point")
	case !(g.Gate > 0 && g.Gate <= 1):
		return wrong("/gate/gate", "wants a share above 0 and at most 1")
	case g.MinFailures < 1 || g.MinFailures > MaxBoards:
		return wrong("/gate/min_failures", "wants 1 to %d", MaxBoards)
	case !(g.MinAnswered > 0 && g.MinAnswered <= 1):
		return wrong("/gate/min_answered", "wants a share above 0 and at most 1")
	case len(s.Guards) > maxGuards:
		return wrong("/guards", "%d guards, at most %d", len(s.Guards), maxGuards)
	}
	for i, g := range s.Guards {
		if err := checkGuard(fmt.Sprintf("/guards/%d", i), g); err != nil {
			return err
		}
	}
	if s.Shadow != nil && s.Shadow.Agreement != nil {
		return checkGuard("/shadow/agreement", *s.Shadow.Agreement)
	}
	return nil
}

func checkGuard(p string, g rest.Guard) error {
	switch {
	case g.Name == "" || len(g.Name) > schema.MaxName:
		return wrong(p+"/name", "wants 1 to %d bytes", schema.MaxName)
	case g.Expr == "" || len(g.Expr) > maxExpr:
		return wrong(p+"/expr", "wants PromQL of 1 to %d bytes", maxExpr)
	case g.Better != "lower" && g.Better != "higher":
		return wrong(p+"/better", "wants lower or higher")
	case !(g.Tolerance >= 0 && g.Tolerance <= 10) || !(g.Slack >= 0):
		return wrong(p+"/tolerance", "wants a share of 0 to 10, and a slack of 0 and more")
	}
	return nil
}

func checkWhen(s *rest.RolloutSpec) error {
	if len(s.Windows) > maxWindows {
		return wrong("/windows", "%d windows, at most %d", len(s.Windows), maxWindows)
	}
	if _, err := ParseWindows(s.Windows); err != nil {
		return err
	}
	for field, v := range map[string]int64{
		"ack_s": s.Limits.AckS, "install_s": s.Limits.InstallS, "trial_s": s.Limits.TrialS, "wave_s": s.Limits.WaveS, "undo_s": s.Limits.UndoS,
	} {
		if v < 1 || v > maxSeconds {
			return wrong("/limits/"+field, "wants 1 to %d s", maxSeconds)
		}
	}
	return nil
}

func checkHooks(s *rest.RolloutSpec) error {
	for field, h := range map[string]*rest.Hook{"/before": s.Before, "/behind": s.Behind} {
		if h == nil {
			continue
		}
		u, err := url.Parse(h.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(h.URL) > maxExpr {
			return wrong(field+"/url", "wants http or https and a host, at most %d bytes", maxExpr)
		}
		if h.LimitS < 1 || h.LimitS > 3600 {
			return wrong(field+"/limit_s", "wants 1 to 3600 s")
		}
	}
	return nil
}

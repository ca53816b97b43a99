// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package planform turns the form of a plan into a plan, and what is wrong with a plan
// into words beside the fields of its form.
package planform

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

// Bounds of the form. The API and the command line take more.
const (
	Waves   = 5
	Guards  = 3
	Windows = 2
	// MaxForm bounds the whole form, in bytes.
	MaxForm = form.Max
	// MaxExpr bounds a query and a PromQL expression, in bytes.
	MaxExpr = 1 << 10
)

// Blank is the form as it begins, with the defaults of the plan in it.
func Blank() *form.Form {
	return form.New("component", "agent", "unreachable", "later", "policy", "interval", "gate", "99.5", "min_failures", "2", "min_answered", "50", "undo", "wave",
		"w0size", "2 %", "w0soak", "10", "w1size", "10 %", "w1soak", "10", "w2size", "rest", "w2soak", "10")
}

// Read makes a plan of what was typed; what is wrong stands in the form.
func Read(f *form.Form) rest.RolloutSpec {
	s := rest.RolloutSpec{
		Name: f.Line("name", 128), Component: f.Need("component", 128), Release: f.Need("release", 128),
		Query: f.Line("query", MaxExpr), Unreachable: f.OneOf("unreachable", "later", "never"), Undo: f.OneOf("undo", "wave", "all", "failed"),
		Gate: rest.GateSpec{
			Policy: f.OneOf("policy", "interval", "point"), Gate: f.Number("gate", 0.1, 100, 99.5) / 100,
			MinFailures: f.Whole("min_failures", 1, 100_000, 2), MinAnswered: f.Number("min_answered", 1, 100, 50) / 100,
		},
		PerSite: f.Whole("per_site", 0, 100_000, 0), Bytes: int64(f.Number("bytes", 0, 1e6, 0) * 1e6),
		FleetRate: int64(f.Number("fleet_rate", 0, 1e6, 0) * 1e6), SiteRate: int64(f.Number("site_rate", 0, 1e6, 0) * 1e6),
		Approval: f.Ticked("approval"), After: f.List("after"),
	}
	s.Limits.TrialS = 60 * int64(f.Whole("trial_min", 1, 43_200, 15))
	s.Limits.InstallS = 60 * int64(f.Whole("install_min", 1, 43_200, 120))
	s.Limits.WaveS = 3600 * int64(f.Whole("wave_h", 1, 720, 24))
	for name, h := range map[string]**rest.Hook{"before": &s.Before, "behind": &s.Behind} {
		if u := f.Line(name, MaxExpr); u != "" {
			*h = &rest.Hook{URL: u}
		}
	}
	s.Waves, s.Guards, s.Windows = readWaves(f), readGuards(f), readWindows(f)
	readShadow(f, &s)
	return s
}

// size reads "2 %", "20", or "rest".
func size(f *form.Form, name string) (percent float64, count int) {
	s := f.Line(name, 16)
	switch {
	case s == "" || s == "rest":
		return 0, 0
	case strings.HasSuffix(s, "%"):
		return f.Number(name, 0.01, 100, 0), 0
	}
	return 0, f.Whole(name, 1, 100_000, 0)
}

func readWaves(f *form.Form) (out []rest.WaveSpec) {
	for i := range Waves {
		n := "w" + strconv.Itoa(i)
		if f.Line(n+"size", 16) == "" {
			continue
		}
		w := rest.WaveSpec{SoakS: 60 * int64(f.Whole(n+"soak", 0, 43_200, 10)), Pause: f.Ticked(n + "pause"), Unclear: f.OneOf(n+"unclear", "wait", "continue")}
		w.Percent, w.Count = size(f, n+"size")
		out = append(out, w)
	}
	for i := range out[:max(len(out)-1, 0)] {
		if out[i].Percent == 0 && out[i].Count == 0 {
			f.Wrong("w"+strconv.Itoa(i)+"size", "Only the last wave takes the rest: give a share or a number.")
		}
	}
	if len(out) > 0 { // the last one takes the rest, whatever was typed
		out[len(out)-1].Percent, out[len(out)-1].Count = 100, 0
	}
	return out
}

func readGuards(f *form.Form) (out []rest.Guard) {
	for i := range Guards {
		n := "g" + strconv.Itoa(i)
		if f.Line(n+"expr", MaxExpr) == "" && f.Line(n+"name", 64) == "" {
			continue
		}
		out = append(out, rest.Guard{Name: f.Need(n+"name", 64), Expr: f.Need(n+"expr", MaxExpr), Better: f.OneOf(n+"better", "lower", "higher"), Tolerance: f.Number(n+"tolerance", 0, 1000, 10) / 100})
	}
	return out
}

func readWindows(f *form.Form) (out []rest.Window) {
	for i := range Windows {
		n := "v" + strconv.Itoa(i)
		if f.Line(n+"from", 8) == "" && f.Line(n+"to", 8) == "" {
			continue
		}
		w := rest.Window{From: f.Need(n+"from", 8), To: f.Need(n+"to", 8), Zone: f.Line(n+"zone", 64)}
		for _, d := range f.List(n + "days") {
			d = strings.ToLower(d)
			if !slices.Contains([]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, d) {
				f.Wrong(n+"days", "Days are mon tue wed thu fri sat sun.")
				break
			}
			w.Days = append(w.Days, d)
		}
		out = append(out, w)
	}
	return out
}

func readShadow(f *form.Form, s *rest.RolloutSpec) {
	if f.Line("shadow", 16) == "" {
		return
	}
	h := &rest.ShadowSpec{SoakS: 60 * int64(f.Whole("shadow_soak", 0, 43_200, 60))}
	h.Percent, h.Count = size(f, "shadow")
	if e := f.Line("agree", MaxExpr); e != "" {
		least := f.Number("agree_min", 0, 100, 95) / 100
		h.Agreement = &rest.Guard{Name: "agreement", Expr: e, Better: "higher", Min: &least}
	}
	s.Shadow = h
}

// Mark names a plan, so that what is made is what was played through.
func Mark(s rest.RolloutSpec) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("mark a plan: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// FieldOf gives the field of the form for a JSON pointer into a plan.
func FieldOf(pointer string) string {
	known := map[string]string{
		"/name": "name", "/component": "component", "/release": "release", "/query": "query", "/unreachable": "unreachable",
		"/gate/policy": "policy", "/gate/gate": "gate", "/gate/min_failures": "min_failures", "/gate/min_answered": "min_answered", "/per_site": "per_site",
		"/bytes": "bytes", "/fleet_bytes_per_s": "fleet_rate", "/site_bytes_per_s": "site_rate", "/after": "after", "/undo": "undo", "/shadow": "shadow",
		"/shadow/agreement/expr": "agree", "/before/url": "before", "/behind/url": "behind", "/limits/trial_s": "trial_min", "/limits/install_s": "install_min", "/limits/wave_s": "wave_h",
		"/waves": "w0size", "/guards": "g0expr", "/windows": "v0from",
	}
	if name := known[pointer]; name != "" {
		return name
	}
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	if len(parts) < 2 || len(parts[1]) != 1 || parts[1][0] < '0' || parts[1][0] > '9' {
		return ""
	}
	n, last := int(parts[1][0]-'0'), parts[len(parts)-1]
	switch {
	case parts[0] == "after":
		return "after"
	case parts[0] == "waves" && n < Waves:
		return "w" + parts[1] + map[string]string{"soak_s": "soak", "unclear": "unclear"}[last] + map[bool]string{true: "", false: "size"}[last == "soak_s" || last == "unclear"]
	case parts[0] == "guards" && n < Guards:
		if slices.Contains([]string{"name", "better", "tolerance"}, last) {
			return "g" + parts[1] + last
		}
		return "g" + parts[1] + "expr"
	case parts[0] == "windows" && n < Windows:
		if slices.Contains([]string{"days", "to", "zone"}, last) {
			return "v" + parts[1] + last
		}
		return "v" + parts[1] + "from"
	}
	return ""
}

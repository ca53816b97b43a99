// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"fmt"
	"net/url"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// oneView is one release.
type oneView struct {
	*rest.Release
	Form            *form.Form
	Word, Tone, Say string
	Size, Here      string
	Uses            []string // rollouts that want it
	Parts           []part
	Gone            []gone
	MoreGone        int
	Made            []made
	Making          string // what becomes of the patches, a sentence
	Ready           bool
	CanComplete     bool // all objects are here
	Write, Plan     bool
}

// part is one component.
type part struct {
	rest.ReleaseComponent
	Size, First, Link string
	Rows              []way
	Others            []rest.ReleaseRuns // what else boards run of it
}

// way is one way in which it travels.
type way struct{ Name, Size, Share, From string }

// gone is an object that is missing.
type gone struct{ Tree, Size, Here string }

// made is a patch.
type made struct {
	What, From, Word, Tone, Size, Share, Say string
	Boards                                   int
}

func newOne(s *web.Shown, r *rest.Release, f *form.Form) *oneView {
	v := &oneView{
		Release: r, Form: f, Size: size(r.Bytes), Here: share(r.Have, r.Bytes), Uses: r.InUse, Ready: rank(r) == 2,
		Write: s.May(rest.ReleasesWrite), Plan: s.May(rest.RolloutsWrite),
	}
	v.Word, v.Tone, v.Say = standing(r)
	v.CanComplete = r.State != rest.ReleaseReady && len(r.Missing) == 0
	if v.CanComplete {
		v.Say = "All of it is here, and nobody has said so yet: complete it, and rollouts take it."
	}
	for i := range r.Components {
		v.Parts = append(v.Parts, newPart(r, &r.Components[i]))
	}
	for i, m := range r.Missing {
		if i == maxMiss {
			v.MoreGone = len(r.Missing) - maxMiss
			break
		}
		v.Gone = append(v.Gone, gone{m.Tree, size(m.Size), share(m.Have, m.Size)})
	}
	for i := range r.Patches {
		v.Made = append(v.Made, newMade(&r.Patches[i]))
	}
	v.Making = making(r)
	s.Shape("verdict", v.Word, v.Say, v.Here, v.Uses)
	s.Shape("missing", len(r.Missing), r.Have)
	s.Shape("parts", fmt.Sprint(r.Components))
	s.Shape("patches", fmt.Sprint(r.Patches))
	s.Shape("acts", v.Word, v.Uses, v.CanComplete)
	return v
}

func newPart(r *rest.Release, c *rest.ReleaseComponent) part {
	p := part{ReleaseComponent: *c, Size: size(c.Bytes), First: size(c.Travel)}
	p.Link = "/rollouts/new?" + url.Values{"component": {c.Name}, "release": {r.Release}}.Encode()
	for _, w := range c.Ways {
		p.Rows = append(p.Rows, way{Name: codec(w.Codec), Size: size(w.Bytes), Share: percent(w.Share), From: from(w.From)})
	}
	for _, o := range c.Runs {
		if o.Release != r.Release && o.Release != c.Version {
			p.Others = append(p.Others, o)
		}
	}
	return p
}

// codec puts the word of a codec into one for people.
func codec(s string) string {
	switch s {
	case "raw":
		return "as it is"
	case "zstd":
		return "packed (zstd)"
	case "elf":
		return "patch of programs (elf)"
	case "words":
		return "patch of weights (words)"
	}
	return "patch (" + s + ")"
}

// from shortens what a patch is applied to where it has no name here.
func from(s string) string {
	if len(s) == 64 {
		return s[:12] + "..., not here"
	}
	return s
}

func percent(v float64) string {
	if v > 0 && v < 0.01 {
		return "under 1\u00a0%"
	}
	return fmt.Sprintf("%.0f\u00a0%%", 100*v)
}

func newMade(p *rest.ReleasePatch) made {
	m := made{What: p.Component + ", " + p.Path, From: p.From, Boards: p.Boards, Word: p.State, Tone: "never", Say: words.Sentence(p.Say)}
	switch p.State {
	case "made":
		m.Tone, m.Size, m.Share = "healthy", size(p.Bytes), percent(float64(p.Bytes)/float64(max(1, p.Full)))+" of "+size(p.Full)
	case "making":
		m.Tone = "run"
	case "failed":
		m.Tone = "degraded"
	case "useless":
		m.Word = "of no use"
	}
	return m
}

// making says what becomes of the patches.
func making(r *rest.Release) string {
	n := map[string]int{}
	for i := range r.Patches {
		n[r.Patches[i].State]++
	}
	switch todo := n["waiting"] + n["making"]; {
	case todo > 0:
		return fmt.Sprintf("%s still to make, one at a time. No rollout waits for them: boards take the whole file meanwhile.", words.Plural(todo, "patch is", "patches are"))
	case len(r.Patches) > 0:
		return "All that are wanted now are made."
	case len(r.InUse) == 0:
		return "Patches are made once a rollout wants this release, from what its boards run."
	}
	return "No patch is wanted: no board runs another release of this that is here."
}

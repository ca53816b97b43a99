// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/rollouts/planform"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

const (
	maxID  = 64  // bytes of a rollout's id
	maxWhy = 256 // bytes of what a person says to an act: as the rollouts take it
)

// pages are the pages of rollouts.
type pages struct{ cfg Config }

// Pages gives the pages of rollouts.
func Pages(cfg Config) []web.Page {
	p := &pages{cfg}
	view := func(name string, build func(context.Context, *web.Shown) error) *web.View {
		return &web.View{
			Name: "roll-" + name, Files: form.With(files), Templates: []string{form.Pieces, "templates/bars.html", "templates/" + name + ".html"},
			Funcs: template.FuncMap{"next": func(n int) int { return n + 1 }}, Assets: form.Assets(), Build: build,
		}
	}
	one := view("one", p.one)
	one.Personal = true // whoever planned it has other buttons
	return []web.Page{
		{Tab: "Rollouts", Path: "/rollouts", Right: rest.BoardsRead, View: view("list", p.list)},
		{Tab: "Rollouts", Path: "/rollouts/new", Right: rest.RolloutsWrite, View: view("plan", p.blank), Act: p.plan, MaxForm: planform.MaxForm},
		{Tab: "Rollouts", Path: "/rollouts/{id}", Right: rest.BoardsRead, View: one, Act: p.act, MaxForm: form.Max},
		{Path: "/rollouts/count", Right: rest.BoardsRead, Serve: p.count},
	}
}

func (p *pages) list(ctx context.Context, s *web.Shown) error {
	rs, err := p.cfg.Rollouts.List(ctx, s.Session.Tenant)
	if err != nil {
		return err
	}
	v := list(s.Sheet, rs)
	v.Plan = s.May(rest.RolloutsWrite)
	s.Title, s.Data = v.Headline, v
	return nil
}

func (p *pages) one(ctx context.Context, s *web.Shown) error { return p.build(ctx, s, nil) }

// build reads one rollout and makes its page; f is a form that was refused.
func (p *pages) build(ctx context.Context, s *web.Shown, f *form.Form) error {
	id := s.Value("id")
	if len(id) > maxID {
		return web.ErrNotFound
	}
	ro, err := p.cfg.Rollouts.Get(ctx, s.Session.Tenant, id)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	boards, err := p.cfg.Rollouts.Boards(ctx, s.Session.Tenant, id)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := one(s.Sheet, ro, boards, s.Query)
	v.Acts = newActs(ro, s.Session.Caller(), f)
	s.Title, s.Data = v.Title, v
	return nil
}

func (p *pages) act(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	id := s.Value("id")
	version, err := strconv.ParseInt(f.Raw("version"), 10, 64)
	a := rest.RolloutAction{Do: f.Raw("do"), Why: f.Line("why", maxWhy), Without: f.Line("without", planform.MaxExpr), Only: f.Line("only", planform.MaxExpr)}
	if a.Do == rest.RolloutRollback {
		a.Scope = f.OneOf("scope", "wave", "all")
	}
	if err != nil || !slices.Contains(actOrder(), a.Do) {
		f.Refuse("Nothing was done: the form asks for nothing that can be done here.", "Press one of the buttons.")
	}
	by := s.Session.Caller()
	need := rest.RolloutsWrite
	if a.Do == rest.RolloutApprove {
		need = rest.RolloutsApprove
	}
	if err := by.May(need); err != nil {
		return "", err
	}
	if f.OK() {
		if _, err = p.cfg.Rollouts.Act(ctx, by, id, version, a); err == nil {
			return "/rollouts/" + url.PathEscape(id), nil
		}
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, func(string) string { return "" }); !ok {
			return "", p.cfg.Problem.Gone(err)
		}
	}
	if err := p.build(ctx, s, f); err != nil {
		return "", err
	}
	return "", web.ErrAgain
}

// blank shows the form of a plan; ?q= fills in the query, ?component= and ?release= what
// boards shall run.
func (p *pages) blank(ctx context.Context, s *web.Shown) error {
	f := planform.Blank()
	for word, field := range map[string]string{"q": "query", "component": "component", "release": "release"} {
		if v := s.Query.Get(word); v != "" && len(v) <= planform.MaxExpr {
			f.Set(field, v)
		}
	}
	v, err := p.newPlan(ctx, s, f)
	s.Title, s.Data = "Plan a rollout", v
	return err
}

// newPlan makes the view of the form, with what can be rolled out.
func (p *pages) newPlan(ctx context.Context, s *web.Shown, f *form.Form) (*planView, error) {
	v := newPlan(f)
	if p.cfg.Releases == nil {
		return v, nil
	}
	all, err := p.cfg.Releases(ctx, s.Session.Caller())
	v.Known = offer(all)
	return v, err
}

// plan plays a plan through, and makes it where that was seen before.
func (p *pages) plan(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	spec := planform.Read(f)
	m, err := planform.Mark(spec)
	if err != nil {
		return "", err
	}
	by := s.Session.Caller()
	if f.OK() && f.Raw("do") == "create" && f.Raw("seen") == m {
		var made *rest.Rollout
		if made, err = p.cfg.Rollouts.Create(ctx, by, spec); err == nil {
			return "/rollouts/" + url.PathEscape(made.ID), nil
		}
	}
	var fc *rest.Forecast
	if f.OK() && err == nil {
		fc, err = p.cfg.Rollouts.Forecast(ctx, by, spec)
	}
	if err != nil {
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, planform.FieldOf); !ok {
			return "", err
		}
		if fc != nil { // no board is left: why, for each
			for _, l := range fc.LeftOut {
				f.Refuse(words.Plural(l.Boards, "board is", "boards are")+" left out: "+l.Reason+".", "Choose other boards, or mend that first.")
			}
		}
	}
	v, err := p.newPlan(ctx, s, f)
	if err != nil {
		return "", err
	}
	s.Title, s.Data = "Plan a rollout", v
	if f.OK() && fc != nil {
		v.show(fc, m, s.At)
		s.Title, s.Code = "What would happen", http.StatusOK
		if f.Raw("do") == "create" {
			f.Refuse("The plan was changed after it was played through: nothing was made.", "This is what would happen now.")
		}
	}
	return "", web.ErrAgain
}

// count tells how many boards a query matches, for the form while somebody types.
func (p *pages) count(w http.ResponseWriter, r *http.Request, s web.Session) error {
	if p.cfg.Count == nil {
		return web.ErrNotFound
	}
	c, err := p.cfg.Count(r.Context(), s.Caller(), r.URL.Query().Get("q"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c) // the reader has gone: nobody is left to tell
	return nil
}

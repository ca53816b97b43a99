// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

const (
	// readTimeout bounds one page: a plan is played through over all boards in it.
	readTimeout = 20 * time.Second
	maxID       = 64 // bytes of a rollout's id
)

// Pages are the pages of rollouts.
type Pages struct {
	cfg   Config
	frame *web.Handler
	tmpl  map[string]*template.Template
}

// Mount adds the pages of rollouts to the page.
func Mount(h *web.Handler, cfg Config) error {
	own, err := fs.Sub(files, "templates")
	if err != nil {
		return fmt.Errorf("read embedded templates: %w", err)
	}
	p := &Pages{cfg: cfg, frame: h}
	pieces, err := fs.Sub(files, "templates/pieces")
	if err != nil {
		return fmt.Errorf("read embedded templates: %w", err)
	}
	if p.tmpl, err = h.Parse(own, []fs.FS{form.Files, pieces}, "list", "one", "plan"); err != nil {
		return err
	}
	h.Mount(
		web.Page{Tab: "Rollouts", Path: "/rollouts", Right: rest.BoardsRead, Handler: p.get(p.list), Live: p.live},
		web.Page{Path: "/rollouts/{id}", Right: rest.BoardsRead, Handler: p.get(p.one), Live: p.live},
		web.Page{Path: "/rollouts/{id}/act", Right: rest.BoardsRead, Handler: p.post(p.act)},
		web.Page{Path: "/rollouts/new", Right: rest.RolloutsWrite, Handler: p.planned},
		web.Page{Path: "/rollouts/count", Right: rest.BoardsRead, Handler: p.get(p.count)},
	)
	return nil
}

// serve is one page, with the time it may take.
type serve func(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session)

func (p *Pages) get(next serve) func(http.ResponseWriter, *http.Request, web.Session) {
	return only(http.MethodGet, next)
}

func (p *Pages) post(next serve) func(http.ResponseWriter, *http.Request, web.Session) {
	return only(http.MethodPost, next)
}

func only(method string, next serve) func(http.ResponseWriter, *http.Request, web.Session) {
	return func(w http.ResponseWriter, r *http.Request, s web.Session) {
		if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
			w.Header().Set("Allow", method)
			http.Error(w, "this address takes "+method, http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
		defer cancel()
		next(ctx, w, r, s)
	}
}

// live gives the live half of the list or of one rollout.
func (p *Pages) live(ctx context.Context, tenant string, u *url.URL) (*live.Sheet, error) {
	s := live.NewSheet(p.frame.Now())
	id, one := strings.CutPrefix(u.Path, "/rollouts/")
	if !one {
		rs, err := p.cfg.Rollouts.List(ctx, tenant)
		if err != nil {
			return nil, err
		}
		list(s, rs)
		return s, nil
	}
	_, err := p.build(ctx, s, tenant, id, u.Query())
	return s, err
}

func (p *Pages) list(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session) {
	rs, err := p.cfg.Rollouts.List(ctx, s.Tenant)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	sheet := live.NewSheet(p.frame.Now())
	v := list(sheet, rs)
	v.Plan = s.Caller().May(rest.RolloutsWrite) == nil
	p.frame.Draw(w, r, s, http.StatusOK, web.View{Template: p.tmpl["list"], Name: "rollouts", Title: v.Headline, Tab: "rollouts", Sheet: sheet, Data: v})
}

// build reads one rollout and makes its view.
func (p *Pages) build(ctx context.Context, s *live.Sheet, tenant, id string, q url.Values) (*oneView, error) {
	if len(id) > maxID {
		return nil, web.ErrNotFound
	}
	ro, err := p.cfg.Rollouts.Get(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	boards, err := p.cfg.Rollouts.Boards(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	return one(s, ro, boards, q), nil
}

func (p *Pages) one(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session) {
	p.showOne(ctx, w, r, s, r.PathValue("id"), http.StatusOK, nil)
}

// showOne draws a rollout; f is a form that was refused.
func (p *Pages) showOne(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session, id string, code int, f *form.Form) {
	sheet := live.NewSheet(p.frame.Now())
	v, err := p.build(ctx, sheet, s.Tenant, id, r.URL.Query())
	if err != nil {
		p.failed(w, r, err)
		return
	}
	v.Acts = newActs(v.Rollout, s.Caller(), f)
	if f != nil {
		sheet = still(sheet)
	}
	p.frame.Draw(w, r, s, code, web.View{Template: p.tmpl["one"], Name: "rollout", Title: v.Title, Tab: "rollouts", Sheet: sheet, Data: v})
}

// still makes a page that is not live: its address is that of a form.
func still(s *live.Sheet) *live.Sheet { return live.NewSheet(s.At) }

func (p *Pages) act(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session) {
	id := r.PathValue("id")
	f, err := form.Read(w, r, form.Max)
	if err != nil {
		p.frame.Fail(w, r, http.StatusRequestEntityTooLarge, "The form could not be read", "Nothing was done. Try again with less text.")
		return
	}
	version, err := strconv.ParseInt(f.Raw("version"), 10, 64)
	a := rest.RolloutAction{Do: f.Raw("do"), Why: f.Line("why", form.MaxLine), Without: f.Line("without", maxExpr), Only: f.Line("only", maxExpr)}
	if a.Do == rest.RolloutRollback {
		a.Scope = f.OneOf("scope", "wave", "all")
	}
	known := false
	for _, do := range actOrder() {
		known = known || do == a.Do
	}
	if !known || err != nil {
		f.Refuse("Nothing was done: the form asks for nothing that can be done here.", "Press one of the buttons.")
	}
	if !f.OK() {
		p.showOne(ctx, w, r, s, id, http.StatusUnprocessableEntity, f)
		return
	}
	if _, err = p.cfg.Rollouts.Act(ctx, s.Caller(), id, version, a); err != nil {
		code, ok := p.refused(f, err, func(string) string { return "" })
		if !ok {
			p.failed(w, r, err)
			return
		}
		p.showOne(ctx, w, r, s, id, code, f)
		return
	}
	http.Redirect(w, r, "/rollouts/"+url.PathEscape(id), http.StatusSeeOther)
}

// planned serves the form of a plan: empty, played through, or made.
func (p *Pages) planned(w http.ResponseWriter, r *http.Request, s web.Session) {
	if r.Method == http.MethodPost {
		p.post(p.plan)(w, r, s)
		return
	}
	p.get(func(_ context.Context, w http.ResponseWriter, r *http.Request, s web.Session) {
		f := blankPlan()
		if q := r.URL.Query().Get("q"); q != "" && len(q) <= maxExpr {
			f.Set("query", q)
		}
		p.drawPlan(w, r, s, http.StatusOK, newPlan(f))
	})(w, r, s)
}

func (p *Pages) drawPlan(w http.ResponseWriter, r *http.Request, s web.Session, code int, v *planView) {
	t := "Plan a rollout"
	if v.Forecast != nil {
		t = "What would happen"
	}
	p.frame.Draw(w, r, s, code, web.View{Template: p.tmpl["plan"], Name: "plan", Title: t, Tab: "rollouts", Data: v})
}

func (p *Pages) plan(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session) {
	f, err := form.Read(w, r, maxPlan)
	if err != nil {
		p.frame.Fail(w, r, http.StatusRequestEntityTooLarge, "The form could not be read", "Nothing was done. A signed manifest has at most 32 KiB; a query at most 1,024 characters.")
		return
	}
	spec := readPlan(f, r)
	m, err := mark(spec)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	if f.OK() && f.Raw("do") == "create" && f.Raw("seen") == m {
		var made *rest.Rollout
		if made, err = p.cfg.Rollouts.Create(ctx, s.Caller(), spec); err == nil {
			http.Redirect(w, r, "/rollouts/"+url.PathEscape(made.ID), http.StatusSeeOther)
			return
		}
	}
	var fc *rest.Forecast
	if f.OK() && err == nil {
		fc, err = p.cfg.Rollouts.Forecast(ctx, s.Caller(), spec)
	}
	code := http.StatusOK
	if err != nil {
		var ok bool
		if code, ok = p.refused(f, err, fieldOf); !ok {
			p.failed(w, r, err)
			return
		}
	}
	v := newPlan(f)
	switch {
	case !f.OK() && code == http.StatusOK:
		code = http.StatusUnprocessableEntity
	case f.OK() && fc != nil:
		v.show(fc, m, p.frame.Now())
		if f.Raw("do") == "create" {
			f.Refuse("The plan was changed after it was played through: nothing was made.", "This is what would happen now.")
		}
	}
	p.drawPlan(w, r, s, code, v)
}

// count tells how many boards a query matches, for the form while somebody types.
func (p *Pages) count(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session) {
	if p.cfg.Count == nil {
		http.NotFound(w, r)
		return
	}
	c, err := p.cfg.Count(ctx, s.Caller(), r.URL.Query().Get("q"))
	if err != nil {
		http.Error(w, "not counted right now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c) // the reader has gone: nobody is left to tell
}

// refused writes an error into a form; false for a fault of the server.
func (p *Pages) refused(f *form.Form, err error, field func(string) string) (code int, ok bool) {
	if errors.Is(err, access.ErrNotAllowed) {
		f.Refuse("Nothing was done: you may not do that.", "What a second person has to do, nobody does alone. An admin gives roles.")
		return http.StatusForbidden, true
	}
	if p.cfg.Problem == nil {
		return 0, false
	}
	pr, ok := p.cfg.Problem(err)
	if !ok || pr.Status >= 500 || pr.Status == http.StatusNotFound {
		return 0, false
	}
	f.Take(pr, field)
	return pr.Status, true
}

// failed tells that something is not there, or that the server has a fault.
func (p *Pages) failed(w http.ResponseWriter, r *http.Request, err error) {
	if p.cfg.Problem != nil {
		if pr, ok := p.cfg.Problem(err); ok && pr.Status == http.StatusNotFound {
			err = web.ErrNotFound
		}
	}
	p.frame.Failed(w, r, err)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/static"
	"fulmar/fleet/web/trust"
	"fulmar/schema/rest"
)

// Page is one address of the page: what is shown there, what can be done there, or
// both. The fleet, a board, detections and all that other packages add are Pages;
// this package is the door, the frame around them and what keeps them live.
type Page struct {
	// Tab is the word of the bar that the page stands under; "" is none. The first page
	// with a word is where the word leads to, so its Path has no values in it.
	Tab string
	// Path is a pattern of [http.ServeMux] without method: "/rollouts/{id}"; "/" is that
	// path alone.
	Path string
	// Right is what a person needs to look; "" is everybody with a password of their own.
	Right rest.Right
	// View is shown on GET; nil where Serve answers or nothing is to be seen.
	View *View
	// Serve answers GET with something that is not a page: data, a picture. An error is
	// answered as one of View.Build, unless something was written.
	Serve func(w http.ResponseWriter, r *http.Request, s Session) error
	// Act does what a form asks for, on POST. The form is read already, at most MaxForm
	// bytes of it, and came from this site. It gives the local address to go to next.
	//   - [ErrAgain]: the page is shown as the act left it in p, with p.Code (0: 422), in
	//     View's template: errors beside the fields, a secret shown once
	//   - *[Problem]: a page that says what is wrong and what to do
	//   - an error that wraps [access.ErrNotAllowed], [ErrNotFound] or [ErrStale]: 403, 404, 409
	Act func(ctx context.Context, p *Shown, r *http.Request) (next string, err error)
	// ActRight is what a person needs for Act; "" is Right.
	ActRight rest.Right
	// MaxForm bounds the form, in bytes; 0 is 4 KiB.
	MaxForm int64
}

// View is how a page is built and drawn.
type View struct {
	// Name is the page's own: class p-NAME of the body.
	Name string
	// Files holds Templates; nil is this package's own. They are parsed after the layout
	// and the shared pieces, and one of them defines "main", which gets the [Shown].
	Files     fs.FS
	Templates []string
	Funcs     template.FuncMap
	// Assets are the files of static/assets that only this view loads: scripts and styles.
	Assets []string
	// Personal marks a view that differs between people of one role: its live half is
	// made for each.
	Personal bool
	// Build fills in p: Title, Data, live texts and shapes of parts. It runs for the page
	// and, with no part wanted (see [Shown.Want]), once a tick for each live view, so it
	// reads what is dear only for parts that are wanted. A view without shapes is not live.
	Build func(ctx context.Context, p *Shown) error
}

// ErrAgain shows the page of a form again. See [Page.Act].
var ErrAgain = errors.New("shown again")

// ErrStale is for what somebody else changed while a person filled in a form: 409.
var ErrStale = errors.New("changed by somebody else meanwhile")

// Problem is what is wrong with what was asked for, as a page says it.
type Problem = trust.Problem

// Tab is one word of the bar.
type Tab struct{ Word, Path string }

// tabs are the words of the bar that lead somewhere for these rights.
func (h *Handler) tabs(have rest.Rights) (out []Tab) {
	seen := map[string]bool{}
	for i := range h.cfg.Pages {
		p := &h.cfg.Pages[i]
		if p.Tab != "" && !seen[p.Tab] {
			seen[p.Tab] = true
			if p.Right == "" || have.Has(p.Right) {
				out = append(out, Tab{p.Tab, p.Path})
			}
		}
	}
	return out
}

// parse prepares the templates of all pages.
func (h *Handler) parse() error {
	for i := range h.cfg.Pages {
		v := h.cfg.Pages[i].View
		if v == nil || h.pages[v.Name] != nil {
			continue
		}
		fm := funcs()
		for k, f := range v.Funcs {
			fm[k] = f
		}
		t, err := static.Parse(h.assets, fm, v.Files, v.Templates...)
		if err != nil {
			return fmt.Errorf("page %s: %w", v.Name, err)
		}
		h.pages[v.Name] = t
	}
	return nil
}

// mount adds all pages to the routes. Two pages with one path are an error.
func (h *Handler) mount(mux *http.ServeMux) error {
	taken := map[string]bool{}
	for i := range h.cfg.Pages {
		p := &h.cfg.Pages[i]
		if taken[p.Path] || !strings.HasPrefix(p.Path, "/") {
			return fmt.Errorf("web: path %q has two pages or is none", p.Path)
		}
		taken[p.Path] = true
		path := p.Path
		if path == "/" {
			path = "/{$}"
		}
		switch {
		case p.View != nil:
			mux.HandleFunc("GET "+path, h.signedIn(h.allowed(p.Right, func(w http.ResponseWriter, r *http.Request, s Session) { h.show(w, r, s, p) })))
		case p.Serve != nil:
			mux.HandleFunc("GET "+path, h.signedIn(h.allowed(p.Right, func(w http.ResponseWriter, r *http.Request, s Session) {
				if err := p.Serve(w, r, s); err != nil {
					h.failed(w, r, err)
				}
			})))
		}
		if p.Act != nil {
			right := p.ActRight
			if right == "" {
				right = p.Right
			}
			mux.HandleFunc("POST "+path, h.signedIn(h.allowed(right, func(w http.ResponseWriter, r *http.Request, s Session) { h.act(w, r, s, p) })))
		}
	}
	return nil
}

// allowed lets only those through who have a right.
func (h *Handler) allowed(right rest.Right, next func(http.ResponseWriter, *http.Request, Session)) func(http.ResponseWriter, *http.Request, Session) {
	return func(w http.ResponseWriter, r *http.Request, s Session) {
		if right != "" {
			if err := s.Caller().May(right); err != nil {
				h.failed(w, r, err)
				return
			}
		}
		next(w, r, s)
	}
}

// find gives the page with a view at an address, and the values in its path.
func (h *Handler) find(u *url.URL) (*Page, map[string]string) {
	var best *Page
	var values map[string]string
	for i := range h.cfg.Pages {
		p := &h.cfg.Pages[i]
		if p.View == nil {
			continue
		}
		if v, ok := match(p.Path, u.EscapedPath()); ok && (best == nil || len(v) < len(values)) {
			best, values = p, v // the fewer values, the closer
		}
	}
	return best, values
}

// match holds an escaped path against a pattern, as [http.ServeMux] does.
func match(pattern, path string) (map[string]string, bool) {
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	out := map[string]string{}
	for i, w := range want {
		name, isName := strings.CutPrefix(w, "{")
		if name, rest := strings.CutSuffix(name, "...}"); isName && rest {
			if i >= len(have) {
				return nil, false
			}
			s, err := url.PathUnescape(strings.Join(have[i:], "/"))
			out[name] = s
			return out, err == nil
		}
		if i >= len(have) {
			return nil, false
		}
		s, err := url.PathUnescape(have[i])
		switch {
		case err != nil:
			return nil, false
		case isName && s != "":
			out[strings.TrimSuffix(name, "}")] = s
		case isName || s != w:
			return nil, false
		}
	}
	return out, len(want) == len(have)
}

// build makes the view of an address. only names the parts that will be rendered;
// nil all.
func (h *Handler) build(ctx context.Context, s Session, u *url.URL, only map[string]bool) (*Shown, error) {
	pg, values := h.find(u)
	if pg == nil {
		return nil, ErrNotFound
	}
	if pg.Right != "" {
		if err := s.Caller().May(pg.Right); err != nil {
			return nil, err
		}
	}
	p := h.start(pg, s, u, values)
	p.only = only
	return p, pg.View.Build(ctx, p)
}

// start begins a page for a person.
func (h *Handler) start(pg *Page, s Session, u *url.URL, values map[string]string) *Shown {
	p := h.blank("", "")
	p.Tab, p.Session, p.User, p.values = pg.Tab, s, s.User, values
	p.Tabs = h.tabs(s.Caller().Rights)
	p.Query = u.Query()
	p.Query.Del("parts")
	p.View = u.EscapedPath()
	if e := p.Query.Encode(); e != "" {
		p.View += "?" + e
	}
	if pg.View != nil {
		p.Name, p.assets = pg.View.Name, pg.View.Assets
	}
	return p
}

// show serves a view, whole or in the parts asked for.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, s Session, _ *Page) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	p, err := h.build(ctx, s, r.URL, wanted(r.URL))
	if err != nil {
		h.failed(w, r, err)
		return
	}
	code := http.StatusOK
	if p.Code != 0 {
		code = p.Code
	}
	p.noSecret = true
	h.render(w, r, code, p)
}

// act does what a form asks for.
func (h *Handler) act(w http.ResponseWriter, r *http.Request, s Session, pg *Page) {
	limit := pg.MaxForm
	if limit <= 0 {
		limit = maxForm
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	if err := r.ParseForm(); err != nil {
		h.fail(w, r, http.StatusRequestEntityTooLarge, "The form could not be read", "It was too long or broke off. Nothing was changed; try again with less.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	values, _ := match(pg.Path, r.URL.EscapedPath()) // the route has matched it
	p := h.start(pg, s, r.URL, values)
	next, err := pg.Act(ctx, p, r)
	switch {
	case err == nil:
		http.Redirect(w, r, local(next), http.StatusSeeOther)
	case errors.Is(err, ErrAgain) && pg.View != nil:
		code := p.Code
		if code == 0 {
			code = http.StatusUnprocessableEntity
		}
		h.render(w, r, code, p)
	default:
		h.failed(w, r, err)
	}
}

// failed turns an error of a page into one that says what to do.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	var no *Problem
	switch {
	case errors.As(err, &no):
		h.fail(w, r, no.Code, no.What, no.Do)
	case errors.Is(err, ErrNotFound):
		h.fail(w, r, http.StatusNotFound, "This is not there", "It may have been removed, or the address has a slip. Go to the fleet and find it from there.")
	case errors.Is(err, ErrStale):
		h.fail(w, r, http.StatusConflict, "Somebody else changed this meanwhile", "Nothing was changed by you. Go back, reload the page, look at what is there now, and try again.")
	case errors.Is(err, access.ErrNotAllowed):
		h.fail(w, r, http.StatusForbidden, "Your role may not do this", "Nothing was changed. Ask an administrator for another role.")
	case errors.Is(err, context.Canceled):
	case r.Method == http.MethodPost:
		h.cfg.Log.Error("not done", "path", r.URL.Path, "err", err)
		h.fail(w, r, http.StatusServiceUnavailable, "This cannot be done right now", "Nothing was changed. Try again in a minute; the server's log says why.")
	default:
		h.cfg.Log.Error("page not read", "path", r.URL.Path, "err", err)
		h.fail(w, r, http.StatusServiceUnavailable, "The fleet's store cannot be read right now", "Nothing is lost by it: boards keep their records until they are stored. Try again in a minute; the server's log says why.")
	}
}

// live streams a view. A view is named by its own path and query, so a stream can
// show nothing that the page itself would not.
func (h *Handler) live(w http.ResponseWriter, r *http.Request, s Session) {
	view := r.URL.Query().Get("view")
	u, err := url.Parse(view)
	if err != nil || local(view) != view {
		http.Error(w, "this view has no live part", http.StatusBadRequest)
		return
	}
	pg, _ := h.find(u)
	if pg == nil || pg.Right != "" && s.Caller().May(pg.Right) != nil {
		http.Error(w, "this view has no live part", http.StatusNotFound)
		return
	}
	k := live.Key{Tenant: s.Tenant, Role: string(s.Role), View: u.RequestURI()}
	if pg.View.Personal {
		k.Who = s.User
	}
	h.hub.Serve(w, r, k, func() bool {
		now, ok := h.auth.Session(r)
		return ok && now == s // another role sees other things
	})
}

// sheets builds the live half of views.
func (h *Handler) sheets(ctx context.Context, keys []live.Key) map[live.Key]*live.Sheet {
	out := map[live.Key]*live.Sheet{}
	for _, k := range keys {
		u, err := url.Parse(k.View)
		if err != nil {
			continue
		}
		s := Session{Tenant: k.Tenant, Role: rest.Role(k.Role), User: k.Who}
		p, err := h.build(ctx, s, u, map[string]bool{}) // texts and shapes, no history
		if err != nil {
			if !errors.Is(err, ErrNotFound) {
				h.cfg.Log.Error("live view not read", "view", u.Path, "tenant", k.Tenant, "err", err)
			}
			continue
		}
		out[k] = p.Sheet
	}
	return out
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"context"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/static"
	"fulmar/fleet/web/verdict"
	"fulmar/fleet/web/words"
)

const (
	// maxForm bounds the body of a form, in bytes: two passwords and a path.
	maxForm = 4 << 10
	// maxQuery bounds the query of a URL, in bytes: filters and two ids.
	maxQuery = 1 << 10
	// maxParts bounds the pieces asked for at once: more is a whole page.
	maxParts = 16
	// readTimeout bounds one read of the source for one page.
	readTimeout = 10 * time.Second
)

// policy allows the page's own files and nothing else: nothing inline, no frames,
// no string becomes markup or code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// Config shapes the page.
type Config struct {
	// Release is shown in the foot of each page.
	Release string
	// EnrolCommand gives the command that a new board is enrolled with, for the
	// empty fleet; nil or "" shows how to ask for a token instead.
	EnrolCommand func(ctx context.Context, tenant string) (string, error)
	// Keeper decides which boards belong to the fleet; nil shows none that ask.
	Keeper Keeper
	// Zone is the time zone of the pages; nil is time.Local.
	Zone *time.Location
	// Tick is how often the Source is read for live viewers; 0 is 1 s.
	Tick time.Duration
	// MaxViewers bounds live streams at one time; 0 is 64.
	MaxViewers int
	Log        *slog.Logger
}

// Handler is the page. Serve it at "/". Its live parts end with Run's context.
type Handler struct {
	http.Handler
	cfg  Config
	src  Source
	auth Auth
	// factors is auth, where it has a second factor; nil otherwise.
	factors Factors
	assets  static.Assets
	pages   map[string]*template.Template
	hub     *live.Hub
}

// New makes the page. The handler serves at once; live values need [Handler.Run].
func New(cfg Config, src Source, auth Auth) (*Handler, error) {
	if src == nil || auth == nil {
		return nil, errors.New("web: needs a source and an auth")
	}
	if cfg.Zone == nil {
		cfg.Zone = time.Local
	}
	if cfg.Tick <= 0 {
		cfg.Tick = time.Second
	}
	if cfg.MaxViewers <= 0 {
		cfg.MaxViewers = 64
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{cfg: cfg, src: src, auth: auth}
	h.factors, _ = auth.(Factors)
	var err error
	if h.assets, err = static.LoadAssets(); err != nil {
		return nil, err
	}
	if h.pages, err = static.LoadPages(h.assets, funcs(), "login", "password", "factor", "error", "fleet", "board", "detections", "detection"); err != nil {
		return nil, err
	}
	h.hub = live.New(live.Config{Tick: cfg.Tick, MaxViewers: cfg.MaxViewers, Log: cfg.Log}, h.sheets)
	h.Handler = h.routes()
	return h, nil
}

// funcs are what templates may call.
func funcs() template.FuncMap {
	return template.FuncMap{
		"count": func(n any) string { return words.Count(whole(n)) }, "sentence": words.Sentence,
		"plural": func(n any, one, many string) string { return words.Plural(int(whole(n)), one, many) },
		"states": verdict.States, "icon": State.Class,
		"state": func(s string) State { return State(s) },
		"pair":  func(a, b any) [2]any { return [2]any{a, b} },
	}
}

// whole takes the counts of the views, int or uint64.
func whole(n any) uint64 {
	if u, ok := n.(uint64); ok {
		return min(u, 1<<62)
	}
	i, _ := n.(int)
	return uint64(max(i, 0))
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
	h.hub.Serve(w, r, live.Key{Tenant: s.Tenant, View: u.RequestURI()}, func() bool {
		now, ok := h.auth.Session(r)
		return ok && now == s // another role sees other things
	})
}

// sheets builds the live half of views: one overview for all views of a tenant.
func (h *Handler) sheets(ctx context.Context, keys []live.Key) map[live.Key]*live.Sheet {
	seen := map[string]*Overview{}
	out := map[live.Key]*live.Sheet{}
	for _, k := range keys {
		ov, ok := seen[k.Tenant]
		if !ok {
			var err error
			if ov, err = h.src.Overview(ctx, k.Tenant); err != nil {
				h.cfg.Log.Error("live values not read", "tenant", k.Tenant, "err", err)
			}
			seen[k.Tenant] = ov
		}
		u, err := url.Parse(k.View)
		if ov == nil || err != nil {
			continue
		}
		p, err := h.build(ctx, k.Tenant, u, ov, map[string]bool{}) // texts and shapes, no history
		if err != nil {
			if !errors.Is(err, ErrNotFound) {
				h.cfg.Log.Error("live view not read", "view", u.Path, "err", err)
			}
			continue
		}
		out[k] = p.Sheet
	}
	return out
}

// Run reads the source for all live viewers until the context ends, then ends
// their streams.
func (h *Handler) Run(ctx context.Context) error { return h.hub.Run(ctx) }

func (h *Handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/{name}", h.assets)
	mux.HandleFunc("GET /login", h.loginForm)
	mux.HandleFunc("POST /login", h.login)
	mux.HandleFunc("GET /password", h.passwordForm)
	mux.HandleFunc("POST /password", h.password)
	mux.HandleFunc("GET /second-factor", h.factor)
	mux.HandleFunc("POST /second-factor", h.factor)
	mux.HandleFunc("POST /logout", h.logout)
	mux.HandleFunc("POST /theme", h.theme)
	mux.HandleFunc("GET /{$}", h.signedIn(h.view))
	mux.HandleFunc("GET /boards/{board}", h.signedIn(h.view))
	mux.HandleFunc("GET /boards/{board}/series", h.signedIn(h.series))
	mux.HandleFunc("POST /requests/{id}", h.signedIn(h.decide))
	mux.HandleFunc("POST /boards/{board}/revoke", h.signedIn(h.decide))
	mux.HandleFunc("POST /boards/{board}/forget", h.signedIn(h.decide))
	mux.HandleFunc("GET /detections", h.signedIn(h.view))
	mux.HandleFunc("GET /detections/{id...}", h.signedIn(h.view))
	mux.HandleFunc("GET /pictures/{board}/{blob}", h.signedIn(h.picture))
	mux.HandleFunc("GET /live", h.signedIn(h.live))
	mux.HandleFunc("/", h.signedIn(func(w http.ResponseWriter, r *http.Request, _ Session) {
		h.fail(w, r, http.StatusNotFound, "There is no such page", "Go to the fleet and find your way from there.")
	}))
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, http.StatusForbidden, "Refused: the form came from another site", "Open the page itself and try again.")
	}))
	guarded := cross.Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "same-origin")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		head.Set("Cache-Control", "no-store")
		if len(r.URL.RawQuery) > maxQuery {
			h.fail(w, r, http.StatusRequestURITooLong, "The address is too long", "Remove some of the filters.")
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// signedIn lets only a user with a password of their own through. Pages lead to
// the log-in; what a script or a picture asks for gets a plain 401.
func (h *Handler) signedIn(next func(http.ResponseWriter, *http.Request, Session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, ok := h.auth.Session(r)
		if ok && !s.MustChange && !s.MustEnrol {
			next(w, r, s)
			return
		}
		page := r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") && r.Header.Get("X-Fulmar-Part") == ""
		switch {
		case !page:
			http.Error(w, "log in first", http.StatusUnauthorized)
		case ok && s.MustChange:
			http.Redirect(w, r, "/password", http.StatusSeeOther)
		case ok:
			http.Redirect(w, r, "/second-factor", http.StatusSeeOther)
		default:
			http.Redirect(w, r, "/login?"+url.Values{"next": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
		}
	}
}

// view serves the fleet, a board or detections, whole or in the parts asked for.
func (h *Handler) view(w http.ResponseWriter, r *http.Request, s Session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	ov, err := h.src.Overview(ctx, s.Tenant)
	if err == nil {
		var p *page
		if p, err = h.build(ctx, s.Tenant, r.URL, ov, wanted(r.URL)); err == nil {
			p.User = s.User
			h.render(w, r, http.StatusOK, p)
			return
		}
	}
	h.failed(w, r, err)
}

// wanted are the parts that a URL asks for; nil means the whole page.
func wanted(u *url.URL) map[string]bool {
	list := strings.Split(u.Query().Get("parts"), ",")
	if list[0] == "" || len(list) > maxParts {
		return nil
	}
	only := map[string]bool{}
	for _, p := range list {
		only[p] = true
	}
	return only
}

// render writes a page; a template that breaks half-way sends no half page.
func (h *Handler) render(w http.ResponseWriter, r *http.Request, code int, p *page) {
	if c, err := r.Cookie(themeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		p.Theme = c.Value
	}
	p.Release, p.Factors = h.cfg.Release, h.factors != nil
	var b bytes.Buffer
	if err := h.pages[p.Name].ExecuteTemplate(&b, "layout", p); err != nil {
		h.cfg.Log.Error("page not rendered", "page", p.Name, "err", err)
		http.Error(w, "this page cannot be shown right now", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the reader has gone: nobody is left to tell
}

// failed turns an error of the source into a page.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		h.fail(w, r, http.StatusNotFound, "This is not there", "It may have been removed, or the address has a slip. Go to the fleet and find it from there.")
	case errors.Is(err, context.Canceled):
	default:
		h.cfg.Log.Error("page not read", "path", r.URL.Path, "err", err)
		h.fail(w, r, http.StatusServiceUnavailable, "The fleet's store cannot be read right now", "Nothing is lost by it: boards keep their records until they are stored. Try again in a minute; the server's log says why.")
	}
}

// fail serves a page that says what is wrong and what to do.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, code int, what, do string) {
	p := h.blank("error", what)
	p.Data = map[string]string{"What": what, "Do": do, "Code": http.StatusText(code)}
	h.render(w, r, code, p)
}

// blank starts a page without live parts.
func (h *Handler) blank(name, title string) *page {
	return &page{Name: name, Title: title, Sheet: live.NewSheet(time.Now().In(h.cfg.Zone))}
}

// picture serves a stored JPEG as it is. A blob never changes, so the browser may
// keep it; only this browser, for it is behind the log-in.
func (h *Handler) picture(w http.ResponseWriter, r *http.Request, s Session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	f, err := h.src.Picture(ctx, s.Tenant, r.PathValue("board"), r.PathValue("blob"))
	if errors.Is(err, ErrNotFound) {
		http.Error(w, "this picture is not here", http.StatusNotFound)
		return
	}
	if err != nil {
		h.cfg.Log.Error("picture not read", "board", r.PathValue("board"), "blob", r.PathValue("blob"), "err", err)
		http.Error(w, "this picture cannot be read right now", http.StatusServiceUnavailable)
		return
	}
	defer closeQuietly(f)
	head := w.Header()
	head.Set("Content-Type", "image/jpeg")
	head.Set("Cache-Control", "private, max-age=31536000, immutable")
	head.Set("ETag", `"`+url.PathEscape(r.PathValue("blob"))+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// closeQuietly closes what was only read.
func closeQuietly(c io.Closer) { _ = c.Close() }

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"context"
	"errors"
	"html/template"
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
	// maxQuery bounds the query of a URL, in bytes: a query over boards, escaped, and two
	// ids.
	maxQuery = 6 << 10
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
	// Pages are all that is shown behind the door, in the order of the bar. One of them
	// has the path "/".
	Pages []Page
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
	auth Auth
	// factors is auth, where it has a second factor; nil otherwise.
	factors Factors
	assets  static.Assets
	pages   map[string]*template.Template
	hub     *live.Hub
}

// New makes the page. The handler serves at once; live values need [Handler.Run].
func New(cfg Config, auth Auth) (*Handler, error) {
	if auth == nil || len(cfg.Pages) == 0 {
		return nil, errors.New("web: needs pages and an auth")
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
	h := &Handler{cfg: cfg, auth: auth}
	h.factors, _ = auth.(Factors)
	var err error
	if h.assets, err = static.LoadAssets(); err != nil {
		return nil, err
	}
	if h.pages, err = static.LoadPages(h.assets, funcs(), "login", "password", "factor", "error"); err != nil {
		return nil, err
	}
	if err := h.parse(); err != nil {
		return nil, err
	}
	h.hub = live.New(live.Config{Tick: cfg.Tick, MaxViewers: cfg.MaxViewers, Log: cfg.Log}, h.sheets)
	h.Handler, err = h.routes()
	return h, err
}

// funcs are what templates may call.
func funcs() template.FuncMap {
	return template.FuncMap{
		"count": func(n any) string { return words.Count(whole(n)) }, "sentence": words.Sentence,
		"plural": func(n any, one, many string) string { return words.Plural(int(whole(n)), one, many) },
		"states": verdict.States, "icon": State.Class,
		"state": func(s string) State { return State(s) },
		"pair":  func(a, b any) [2]any { return [2]any{a, b} },
		"list":  func(a ...any) []any { return a },
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

// Run reads the source for all live viewers until the context ends, then ends
// their streams.
func (h *Handler) Run(ctx context.Context) error { return h.hub.Run(ctx) }

func (h *Handler) routes() (http.Handler, error) {
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
	mux.HandleFunc("GET /live", h.signedIn(h.live))
	mux.HandleFunc("/", h.signedIn(func(w http.ResponseWriter, r *http.Request, _ Session) {
		h.fail(w, r, http.StatusNotFound, "There is no such page", "Go to the fleet and find your way from there.")
	}))
	if err := h.mount(mux); err != nil {
		return nil, err
	}
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
	}), nil
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
func (h *Handler) render(w http.ResponseWriter, r *http.Request, code int, p *Shown) {
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
	out := b.Bytes()
	if p.noSecret {
		out = squeezed(w, r, out)
	}
	w.WriteHeader(code)
	_, _ = w.Write(out) // the reader has gone: nobody is left to tell
}

// fail serves a page that says what is wrong and what to do.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, code int, what, do string) {
	p := h.blank("error", what)
	p.Data = map[string]string{"What": what, "Do": do, "Code": http.StatusText(code)}
	h.render(w, r, code, p)
}

// blank starts a page without live parts.
func (h *Handler) blank(name, title string) *Shown {
	return &Shown{Name: name, Title: title, Sheet: live.NewSheet(time.Now().In(h.cfg.Zone))}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/static"
	"fulmar/schema/rest"
)

// Page is a page that another package makes. It is drawn in the layout of all others
// with [Handler.Draw].
type Page struct {
	Tab   string     // word in the bar; "" for a page below another
	Path  string     // pattern of [http.ServeMux], without a method
	Right rest.Right // who may see it
	// Handler serves it to somebody who is logged in and has the right. Forms from
	// other sites are refused before.
	Handler func(w http.ResponseWriter, r *http.Request, s Session)
	// Live gives the live half of an address below Path; nil: the page is not live. It
	// is shared by all viewers, so it must not depend on who looks.
	Live func(ctx context.Context, tenant string, u *url.URL) (*live.Sheet, error)
}

// View is one page at one moment, ready for the layout.
type View struct {
	Template *template.Template // of [Handler.Parse]
	Name     string             // class of the body
	Title    string
	Tab      string
	Sheet    *live.Sheet // nil: nothing in it is live
	Data     any
}

// Parse reads templates of another package: each named page with the layout, the shared
// pieces and all pieces of extra.
func (h *Handler) Parse(files fs.FS, pieces []fs.FS, names ...string) (map[string]*template.Template, error) {
	return static.Parse(h.assets, funcs(), files, pieces, names...)
}

// Mount adds pages. It has to be called before the handler serves.
func (h *Handler) Mount(pages ...Page) {
	for _, p := range pages {
		h.more = append(h.more, p)
		h.mux.HandleFunc(p.Path, h.signedIn(func(w http.ResponseWriter, r *http.Request, s Session) {
			if s.Caller().May(p.Right) != nil {
				h.Fail(w, r, http.StatusForbidden, "You may not see this", "Your role does not allow it. An admin gives roles.")
				return
			}
			p.Handler(w, r, s)
		}))
	}
}

// Draw serves a view in the layout.
func (h *Handler) Draw(w http.ResponseWriter, r *http.Request, s Session, code int, v View) {
	p := h.blank(v.Name, v.Title)
	p.User, p.Tab, p.Data, p.tmpl, p.role = s.User, v.Tab, v.Data, v.Template, s
	if v.Sheet != nil {
		p.Sheet, p.only = v.Sheet, wanted(r.URL)
	}
	q := r.URL.Query()
	q.Del("parts")
	p.View = r.URL.EscapedPath()
	if e := q.Encode(); e != "" {
		p.View += "?" + e
	}
	h.render(w, r, code, p)
}

// Fail serves a page that says what is wrong and what to do.
func (h *Handler) Fail(w http.ResponseWriter, r *http.Request, code int, what, do string) {
	h.fail(w, r, code, what, do)
}

// Failed serves an error that is nobody's fault: logged here, told as such.
func (h *Handler) Failed(w http.ResponseWriter, r *http.Request, err error) { h.failed(w, r, err) }

// tab is one word in the bar.
type tab struct{ Word, Path string }

// Lower is how a page names its tab.
func (t tab) Lower() string { return strings.ToLower(t.Word) }

// tabs lists the words in the bar that somebody may see.
func (h *Handler) tabs(s Session) []tab {
	out := []tab{{"Fleet", "/"}, {"Detections", "/detections"}}
	for _, p := range h.more {
		if p.Tab != "" && s.Caller().May(p.Right) == nil {
			out = append(out, tab{p.Tab, p.Path})
		}
	}
	return out
}

// liveOf gives the page that a live address belongs to.
func (h *Handler) liveOf(u *url.URL) *Page {
	r := &http.Request{Method: http.MethodGet, URL: u, Host: "page"}
	_, pattern := h.mux.Handler(r)
	for i := range h.more {
		if strings.TrimPrefix(pattern, "GET ") == h.more[i].Path && h.more[i].Live != nil {
			return &h.more[i]
		}
	}
	return nil
}

// Now is the moment of a page, in its zone.
func (h *Handler) Now() time.Time { return time.Now().In(h.cfg.Zone) }

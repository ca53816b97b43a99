// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"
)

// themeCookie remembers light or dark. It holds nothing else.
const themeCookie = "fulmar-theme"

// form is what the log-in and the password page show.
type form struct {
	Next  string
	Error string
	Must  bool
	Min   int
	User  string
	Step  bool // the password was right, a code is wanted
}

// local gives a path of this page, "/" for anything that could lead elsewhere.
func local(next string) string {
	if len(next) > maxQuery || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

func (h *Handler) loginForm(w http.ResponseWriter, r *http.Request) {
	next := local(r.URL.Query().Get("next"))
	if _, ok := h.auth.Session(r); ok {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	f := form{Next: next}
	if h.factors != nil {
		f.User = h.factors.Remembered(r)
	}
	h.showLogin(w, r, http.StatusOK, f)
}

func (h *Handler) showLogin(w http.ResponseWriter, r *http.Request, code int, f form) {
	p := h.blank("login", "Log in")
	p.Data = f
	h.render(w, r, code, p)
}

// readForm reads a small form; false when it answered already.
func (h *Handler) readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		h.fail(w, r, http.StatusRequestEntityTooLarge, "The form could not be read", "Try again with a shorter password.")
		return false
	}
	return true
}

func (h *Handler) login(w http.ResponseWriter, r *http.Request) {
	if !h.readForm(w, r) {
		return
	}
	next := local(r.PostForm.Get("next"))
	user, code := r.PostForm.Get("user"), r.PostForm.Get("code")
	err := h.auth.Login(w, r, user, r.PostForm.Get("password"), code)
	switch {
	case err == nil:
		http.Redirect(w, r, next, http.StatusSeeOther)
	case errors.Is(err, ErrCodeWanted):
		h.showLogin(w, r, http.StatusOK, form{Next: next, Step: true})
	default:
		status, text := h.explain(err)
		if errors.Is(err, ErrWrongPassword) { // the same for a user who is not there
			text = "User and password do not belong together. Check for a capital or a missing character and try again."
		}
		// Who was asked for a code is asked again, unless it has to begin anew.
		again := code != "" && !errors.Is(err, ErrTooLate) && !errors.Is(err, ErrWrongPassword)
		h.showLogin(w, r, status, form{Next: next, Error: text, User: user, Step: again})
	}
}

// explain puts an error of the auth into a status and words.
func (h *Handler) explain(err error) (int, string) {
	switch {
	case errors.Is(err, ErrWrongPassword):
		return http.StatusUnauthorized, "That is not the password. Check for a capital or a missing character and try again."
	case errors.Is(err, ErrWrongCode):
		return http.StatusUnauthorized, "That code is not good. Each is good once and for half a minute: wait for the next one. If it goes on, see whether your phone's clock is right."
	case errors.Is(err, ErrTooLate):
		return http.StatusUnauthorized, "That took too long. Begin again with your password."
	case errors.Is(err, ErrTooManyTries):
		return http.StatusTooManyRequests, "Too many tries. Wait a few minutes, then try again."
	case errors.Is(err, ErrWeakPassword):
		return http.StatusUnprocessableEntity, "That password is too easy to guess or is the old one. Choose another; a few words in a row do well."
	}
	h.cfg.Log.Error("log-in or change of password not possible", "err", err)
	return http.StatusServiceUnavailable, "This cannot be done right now. Try again in a minute; the server's log says why."
}

func (h *Handler) passwordForm(w http.ResponseWriter, r *http.Request) {
	h.showPassword(w, r, http.StatusOK, "")
}

func (h *Handler) showPassword(w http.ResponseWriter, r *http.Request, code int, text string) {
	s, ok := h.auth.Session(r)
	if !ok {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	p := h.blank("password", "Choose a password")
	p.Data = form{Error: text, Must: s.MustChange, Min: MinPassword, User: s.User}
	h.render(w, r, code, p)
}

func (h *Handler) password(w http.ResponseWriter, r *http.Request) {
	if !h.readForm(w, r) {
		return
	}
	if _, ok := h.auth.Session(r); !ok {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	fresh := r.PostForm.Get("new")
	switch {
	case fresh != r.PostForm.Get("again"):
		h.showPassword(w, r, http.StatusUnprocessableEntity, "The two new passwords differ. Type the same one twice.")
		return
	case utf8.RuneCountInString(fresh) < MinPassword:
		h.showPassword(w, r, http.StatusUnprocessableEntity, "The new password is too short. It needs at least 15 characters; a few words in a row do well.")
		return
	}
	if err := h.auth.SetPassword(w, r, r.PostForm.Get("old"), fresh); err != nil {
		code, text := h.explain(err)
		h.showPassword(w, r, code, text)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (h *Handler) logout(w http.ResponseWriter, r *http.Request) {
	h.auth.Logout(w, r)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// theme keeps the choice of light or dark in a cookie, so that the server writes
// it into the page and nothing flashes.
func (h *Handler) theme(w http.ResponseWriter, r *http.Request) {
	if !h.readForm(w, r) {
		return
	}
	c := &http.Cookie{Name: themeCookie, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode, MaxAge: 365 * 24 * 3600}
	switch v := r.PostForm.Get("theme"); v {
	case "light", "dark":
		c.Value = v
	default:
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
	http.Redirect(w, r, local(r.PostForm.Get("back")), http.StatusSeeOther)
}

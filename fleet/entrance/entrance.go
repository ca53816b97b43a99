// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package entrance lets people in by the cookies of their browser and programs by their
// token, and says as whom. The page and the API ask it; package accounts decides.
package entrance

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/api"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// The cookies. Their prefix binds them to this host, path / and TLS.
const (
	cookieName = "__Host-fulmar" // the session
	// knownCookie marks a browser that was logged in: SECRET.USER. It lets nobody in; it
	// fills in the user and is asked first when strangers guess.
	knownCookie = "__Host-fulmar-known"
	knownLife   = 180 * 24 * time.Hour
	// stepCookie is between password and code.
	stepCookie = "__Host-fulmar-step"
	stepLife   = 5 * time.Minute
	maxCookie  = 160 // bytes: 64 hex digits, a dot and a name
)

// Auth lets people in by session and programs by token.
type Auth struct{ who *accounts.Accounts }

// New makes it over the accounts.
func New(a *accounts.Accounts) Auth { return Auth{a} }

var (
	_ web.Auth    = Auth{}
	_ web.Factors = Auth{}
)

func cookie(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil || len(c.Value) > maxCookie {
		return ""
	}
	return c.Value
}

// setCookie sets a cookie for as long as the browser is open, or for life where that is
// not 0; value "" takes it away.
func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{
		Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: int(life / time.Second),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// from tells where a request comes from.
func from(r *http.Request) accounts.From {
	known, _, _ := strings.Cut(cookie(r, knownCookie), ".")
	return accounts.From{Addr: api.Remote(r), Agent: r.UserAgent(), Known: known}
}

// Remembered implements [web.Factors].
func (a Auth) Remembered(r *http.Request) string {
	_, user, _ := strings.Cut(cookie(r, knownCookie), ".")
	return user // only ever shown to the browser that sent it
}

func (a Auth) session(r *http.Request) (accounts.Session, error) {
	secret := cookie(r, cookieName)
	if secret == "" {
		return accounts.Session{}, accounts.ErrUnknown
	}
	return a.who.Session(r.Context(), secret)
}

// Session implements [web.Auth].
func (a Auth) Session(r *http.Request) (web.Session, bool) {
	s, err := a.session(r)
	return web.Session{Tenant: s.Tenant, User: s.User, Role: s.Role, MustChange: s.MustChange, MustEnrol: s.MustEnrol, ID: s.ID}, err == nil
}

// words turns the accounts' errors into the page's.
func words(err error) error {
	for _, p := range [][2]error{
		{accounts.ErrWrongPassword, web.ErrWrongPassword},
		{accounts.ErrTooManyTries, web.ErrTooManyTries},
		{accounts.ErrWeakPassword, web.ErrWeakPassword},
		{accounts.ErrCodeWanted, web.ErrCodeWanted},
		{accounts.ErrWrongCode, web.ErrWrongCode},
	} {
		if errors.Is(err, p[0]) {
			return p[1]
		}
	}
	return err
}

// Login implements [web.Auth]. A session that the browser had ends.
func (a Auth) Login(w http.ResponseWriter, r *http.Request, user, password, code string) error {
	var o accounts.Opened
	var err error
	if step := cookie(r, stepCookie); user == "" && password == "" && code != "" {
		o, err = a.who.Second(r.Context(), step, code, from(r))
		if errors.Is(err, accounts.ErrUnknown) {
			return web.ErrTooLate
		}
	} else {
		o, err = a.who.Login(r.Context(), strings.TrimSpace(user), password, code, from(r))
	}
	if o.Step != "" {
		setCookie(w, stepCookie, o.Step, stepLife)
	}
	if err != nil {
		return words(err)
	}
	a.drop(r)
	setCookie(w, stepCookie, "", 0)
	return a.opened(w, r, o)
}

// opened gives a browser its new session.
func (a Auth) opened(w http.ResponseWriter, r *http.Request, o accounts.Opened) error {
	s, err := a.who.Session(r.Context(), o.Session)
	if err != nil {
		return err
	}
	setCookie(w, cookieName, o.Session, 0)
	setCookie(w, knownCookie, o.Known+"."+s.User, knownLife)
	return nil
}

// drop ends the session that a request has, if it has one. One that could not be ended
// still ends by its idle time.
func (a Auth) drop(r *http.Request) {
	if secret := cookie(r, cookieName); secret != "" {
		_ = a.who.Logout(context.WithoutCancel(r.Context()), secret)
	}
}

// SetPassword implements [web.Auth].
func (a Auth) SetPassword(w http.ResponseWriter, r *http.Request, old, fresh string) error {
	s, err := a.session(r)
	if err != nil {
		return web.ErrWrongPassword
	}
	o, err := a.who.SetPassword(r.Context(), s.User, old, fresh, from(r))
	if err != nil {
		return words(err)
	}
	return a.opened(w, r, o)
}

// Logout implements [web.Auth].
func (a Auth) Logout(w http.ResponseWriter, r *http.Request) {
	a.drop(r)
	setCookie(w, cookieName, "", 0)
}

// Factor implements [web.Factors].
func (a Auth) Factor(r *http.Request) (on bool, recovery int, err error) {
	s, err := a.session(r)
	if err != nil {
		return false, 0, err
	}
	f, err := a.who.Factor(r.Context(), s.User)
	return f.On, f.Recovery, err
}

// BeginFactor implements [web.Factors].
func (a Auth) BeginFactor(r *http.Request) (key, uri string, err error) {
	s, err := a.session(r)
	if err != nil {
		return "", "", err
	}
	return a.who.BeginTOTP(r.Context(), s.Caller())
}

// ConfirmFactor implements [web.Factors].
func (a Auth) ConfirmFactor(_ http.ResponseWriter, r *http.Request, code string) ([]string, error) {
	s, err := a.session(r)
	if err != nil {
		return nil, err
	}
	codes, err := a.who.ConfirmTOTP(r.Context(), s.Caller(), code)
	if err != nil {
		return nil, words(err)
	}
	return codes, a.who.EndOthers(context.WithoutCancel(r.Context()), s.User, s.ID)
}

// DropFactor implements [web.Factors].
func (a Auth) DropFactor(r *http.Request, password, code string) error {
	s, err := a.session(r)
	if err != nil {
		return err
	}
	return words(a.who.DropOwn(r.Context(), s.Caller(), password, code, from(r)))
}

// Caller tells who asks: a program by its token, or a person by their session. A
// session whose password or second factor is not settled has no rights.
func (a Auth) Caller(r *http.Request) (access.Caller, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		token, ok := strings.CutPrefix(h, "Bearer ")
		if !ok {
			return access.Caller{}, api.ErrNotLoggedIn
		}
		c, err := a.who.Token(r.Context(), token)
		if errors.Is(err, accounts.ErrUnknown) {
			return access.Caller{}, api.ErrNotLoggedIn
		}
		return c, err
	}
	s, err := a.session(r)
	if errors.Is(err, accounts.ErrUnknown) {
		return access.Caller{}, api.ErrNotLoggedIn
	}
	if err != nil {
		return access.Caller{}, err
	}
	if s.MustChange || s.MustEnrol {
		return access.Caller{}, api.ErrNotAllowed
	}
	return s.Caller(), nil
}

// with gives the caller where they have a right over all boards of the tenant.
func (a Auth) with(r *http.Request, right rest.Right) (access.Caller, error) {
	c, err := a.Caller(r)
	if err != nil {
		return c, err
	}
	if c.May(right) != nil || c.Boards != "" {
		return c, api.ErrNotAllowed
	}
	return c, nil
}

// Reader tells for which tenant a request may read all boards.
func (a Auth) Reader(r *http.Request) (string, error) {
	c, err := a.with(r, rest.BoardsRead)
	return c.Tenant, err
}

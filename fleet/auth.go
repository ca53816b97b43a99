// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"fulmar/fleet/api"
	"fulmar/fleet/registry"
	"fulmar/fleet/web"
)

// cookieName is bound by its prefix to this host, path / and TLS.
const cookieName = "__Host-fulmar"

// auth lets people in by session and programs by token.
type auth struct{ reg *registry.Registry }

var _ web.Auth = auth{}

func secretOf(r *http.Request) string {
	c, err := r.Cookie(cookieName)
	if err != nil || len(c.Value) > 128 {
		return ""
	}
	return c.Value
}

func setCookie(w http.ResponseWriter, secret string) {
	c := &http.Cookie{Name: cookieName, Value: secret, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if secret == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// Session implements [web.Auth].
func (a auth) Session(r *http.Request) (web.Session, bool) {
	secret := secretOf(r)
	if secret == "" {
		return web.Session{}, false
	}
	s, err := a.reg.Session(r.Context(), secret)
	return web.Session{Tenant: s.Tenant, User: s.User, MustChange: s.MustChange}, err == nil
}

// words turns the registry's errors into the page's.
func words(err error) error {
	for _, p := range [][2]error{
		{registry.ErrWrongPassword, web.ErrWrongPassword},
		{registry.ErrTooManyTries, web.ErrTooManyTries},
		{registry.ErrWeakPassword, web.ErrWeakPassword},
	} {
		if errors.Is(err, p[0]) {
			return p[1]
		}
	}
	return err
}

// Login implements [web.Auth].
func (a auth) Login(w http.ResponseWriter, r *http.Request, password string) error {
	secret, err := a.reg.Login(r.Context(), password, api.Remote(r))
	if err != nil {
		return words(err)
	}
	setCookie(w, secret)
	return nil
}

// SetPassword implements [web.Auth].
func (a auth) SetPassword(w http.ResponseWriter, r *http.Request, old, fresh string) error {
	if _, ok := a.Session(r); !ok {
		return web.ErrWrongPassword
	}
	secret, err := a.reg.SetPassword(r.Context(), old, fresh, api.Remote(r))
	if err != nil {
		return words(err)
	}
	setCookie(w, secret)
	return nil
}

// Logout implements [web.Auth].
func (a auth) Logout(w http.ResponseWriter, r *http.Request) {
	if secret := secretOf(r); secret != "" {
		// A session that could not be ended still ends by its idle time.
		_ = a.reg.Logout(context.WithoutCancel(r.Context()), secret)
	}
	setCookie(w, "")
}

// Reader tells for which tenant a request may read: a session whose password is settled, or a token.
func (a auth) Reader(r *http.Request) (string, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		token, ok := strings.CutPrefix(h, "Bearer ")
		if !ok || len(token) > 128 {
			return "", api.ErrNotLoggedIn
		}
		tenant, _, err := a.reg.APIToken(r.Context(), token)
		if errors.Is(err, registry.ErrUnknown) {
			return "", api.ErrNotLoggedIn
		}
		return tenant, err
	}
	s, ok := a.Session(r)
	switch {
	case !ok:
		return "", api.ErrNotLoggedIn
	case s.MustChange:
		return "", api.ErrNotAllowed
	}
	return s.Tenant, nil
}

// Admin tells for which tenant a request may change things, and who asks: a session whose password is settled, or a token of
// scope admin.
func (a auth) Admin(r *http.Request) (tenant, who string, err error) {
	tenant, err = a.Reader(r)
	if err != nil {
		return "", "", err
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok { // Reader has let a session in
		return tenant, registry.AdminUser, nil
	}
	_, scope, err := a.reg.APIToken(r.Context(), token)
	if err != nil || scope != registry.ScopeAdmin {
		return "", "", errors.Join(api.ErrNotAllowed, err)
	}
	return tenant, registry.TokenName(token), nil
}

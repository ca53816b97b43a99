// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

// Errors an [Auth] answers with; the page has words for them. Any other error is
// shown as "cannot be done right now" and logged.
var (
	// ErrWrongPassword: the password is not the one on record. Nothing more is said.
	ErrWrongPassword = errors.New("wrong password")
	// ErrTooManyTries: wait before the next try.
	ErrTooManyTries = errors.New("too many tries")
	// ErrWeakPassword: too short or the same as the old one. At least
	// [MinPassword] characters are asked for on the page.
	ErrWeakPassword = errors.New("weak password")
)

// MinPassword is the shortest password the page accepts, in characters. Long
// beats complicated: NIST SP 800-63B asks for 15 where a password stands alone.
const MinPassword = 15

// Session is who asks.
type Session struct {
	Tenant string
	User   string
	Role   rest.Role
	// MustChange is set while the user still has the one-time password: nothing
	// but the change of password is shown.
	MustChange bool
}

// Caller is the person, as all that changes something takes them.
func (s Session) Caller() access.Caller {
	return access.Caller{Tenant: s.Tenant, Who: s.User, Author: s.User, Rights: s.Role.Rights()}
}

// Auth is what the page needs of accounts. It owns the session cookie (HttpOnly,
// Secure, SameSite=Lax or stricter) and the limit on tries; the page owns the forms and
// refuses cross-origin posts before it calls.
type Auth interface {
	// Session tells who asks; false when nobody is logged in.
	Session(r *http.Request) (Session, bool)
	// Login checks the password and sets the session cookie. It writes headers
	// only, never a body.
	Login(w http.ResponseWriter, r *http.Request, password string) error
	// SetPassword replaces the password of the session's user and renews the
	// session; all other sessions of the user end.
	SetPassword(w http.ResponseWriter, r *http.Request, old, fresh string) error
	// Logout ends the session and clears the cookie.
	Logout(w http.ResponseWriter, r *http.Request)
}

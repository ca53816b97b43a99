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
	// ErrWrongPassword: user and password are no pair. Nothing more is said.
	ErrWrongPassword = errors.New("wrong password")
	// ErrCodeWanted: the password is right; a code of the second factor is wanted, and
	// [Auth.Login] is to be called with that alone.
	ErrCodeWanted = errors.New("a code is wanted")
	// ErrWrongCode: the code is wrong or was used already.
	ErrWrongCode = errors.New("wrong code")
	// ErrTooLate: the password was shown too long ago, or not at all.
	ErrTooLate = errors.New("too late")
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
	// but the change of password is shown. MustEnrol is set while their role wants a
	// second factor that they have not: nothing but its enrolment is shown.
	MustChange bool
	MustEnrol  bool
	// ID names the session among those of its user, and lets nobody in; "" names none.
	ID string
}

// Caller is the user as the one who asks for something; without rights as long as the
// password or the second factor is not settled.
func (s Session) Caller() access.Caller {
	c := access.Caller{Tenant: s.Tenant, Who: s.User, Author: s.User}
	if !s.MustChange && !s.MustEnrol {
		c.Rights = s.Role.Rights()
	}
	return c
}

// Auth is what the page needs of accounts. It owns the session cookie (HttpOnly,
// Secure, SameSite=Lax or stricter) and the limit on tries; the page owns the forms and
// refuses cross-origin posts before it calls.
type Auth interface {
	// Session tells who asks; false when nobody is logged in.
	Session(r *http.Request) (Session, bool)
	// Login checks user and password and sets the session cookie. Where it answers
	// ErrCodeWanted, a second call with the code alone finishes. It writes headers
	// only, never a body.
	Login(w http.ResponseWriter, r *http.Request, user, password, code string) error
	// SetPassword replaces the password of the session's user and renews the
	// session; all other sessions of the user end.
	SetPassword(w http.ResponseWriter, r *http.Request, old, fresh string) error
	// Logout ends the session and clears the cookie.
	Logout(w http.ResponseWriter, r *http.Request)
}

// Factors is what the page of the second factor needs. An [Auth] may have it as well;
// there is no such page where it has not.
type Factors interface {
	// Remembered gives the user who was last logged in with this browser, or "".
	Remembered(r *http.Request) string
	// Factor tells whether the session's user has a second factor, and how many
	// recovery codes are left.
	Factor(r *http.Request) (on bool, recovery int, err error)
	// BeginFactor makes a key: in base32 to be typed, and as an otpauth URI.
	BeginFactor(r *http.Request) (key, uri string, err error)
	// ConfirmFactor puts it on when the code is of it, renews the session and ends all
	// others. The recovery codes are shown this once.
	ConfirmFactor(w http.ResponseWriter, r *http.Request, code string) (recovery []string, err error)
	// DropFactor takes it off.
	DropFactor(r *http.Request, password, code string) error
}

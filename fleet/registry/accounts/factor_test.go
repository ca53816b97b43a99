// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"encoding/base32"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/accounts/totp"
	"fulmar/schema/rest"
)

// enrol puts a second factor on and gives its key and recovery codes.
func (h *house) enrol(by access.Caller) (key []byte, recovery []string) {
	h.t.Helper()
	secret, uri, err := h.BeginTOTP(h.t.Context(), by)
	if err != nil {
		h.t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Query().Get("secret") != secret || u.Path != "/fulmar:"+by.Author {
		h.t.Fatal(uri, err)
	}
	if key, err = base32.StdEncoding.DecodeString(secret); err != nil || len(key) != 20 {
		h.t.Fatal(secret, err)
	}
	_, err = h.ConfirmTOTP(h.t.Context(), by, "000000x")
	is(h.t, "a wrong code confirms", err, ErrWrongCode)
	if recovery, err = h.ConfirmTOTP(h.t.Context(), by, h.code(key)); err != nil || len(recovery) != recoveries {
		h.t.Fatal(recovery, err)
	}
	return key, recovery
}

func (h *house) code(key []byte) string { return totp.Code(key, h.at) }

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	by := h.user("admin", rest.Admin)
	_, err := h.ConfirmTOTP(ctx, by, "000000")
	is(t, "confirm what was never begun", err, ErrWrongCode)
	key, recovery := h.enrol(by)
	_, _, err = h.BeginTOTP(ctx, by)
	is(t, "a second one", err, ErrFactorOn)
	// Password alone opens nothing; the code that confirmed is used up.
	o, err := h.login("admin", good, "")
	is(t, "password alone", err, ErrCodeWanted)
	if o.Session != "" || o.Step == "" {
		t.Fatalf("%+v", o)
	}
	_, err = h.Second(ctx, o.Step, h.code(key), where(here))
	is(t, "a code twice", err, ErrWrongCode)
	h.later(totp.Step)
	in, err := h.Second(ctx, o.Step, h.code(key), where(here))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := h.session(in); err != nil || s.User != "admin" {
		t.Fatal(s, err)
	}
	_, err = h.Second(ctx, o.Step, h.code(key), where(here))
	is(t, "a step twice", err, ErrUnknown)
	// Both at once; a wrong password says nothing of the code.
	h.later(totp.Step)
	_, err = h.login("admin", "wrong wrong wrong", h.code(key))
	is(t, "wrong password, right code", err, ErrWrongPassword)
	if _, err = h.login("admin", good, h.code(key)[:3]+" "+h.code(key)[3:]); err != nil {
		t.Error("both at once: ", err)
	}
	// A recovery code is good once.
	h.later(time.Minute)
	if _, err = h.login("admin", good, strings.ToUpper(recovery[3])); err != nil {
		t.Fatal("recovery code: ", err)
	}
	_, err = h.login("admin", good, recovery[3])
	is(t, "a recovery code twice", err, ErrWrongCode)
	if f, err := h.Factor(ctx, "admin"); err != nil || !f.On || f.Recovery != recoveries-1 {
		t.Errorf("%+v %v", f, err)
	}
	// A step ends by itself.
	o, _ = h.login("admin", good, "")
	h.later(stepLife + time.Second)
	_, err = h.Second(ctx, o.Step, h.code(key), where(here))
	is(t, "a step that is too old", err, ErrUnknown)
	// Off only with password and code.
	is(t, "off without password", h.DropOwn(ctx, by, "wrong wrong wrong", h.code(key), where(here)), ErrWrongPassword)
	is(t, "off without code", h.DropOwn(ctx, by, good, "123", where(here)), ErrWrongCode)
	h.later(totp.Step)
	if err := h.DropOwn(ctx, by, good, h.code(key), where(here)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.login("admin", good, ""); err != nil {
		t.Error(err)
	}
	for _, w := range []string{"second-factor: of admin is on", "with a password and a recovery code, 9 are left", "second-factor-off: of admin"} {
		if !strings.Contains(strings.Join(h.log(), "\n"), w) {
			t.Errorf("the audit log lacks %q", w)
		}
	}
}

// TestGuessedCodes: who has the password gets a bounded number of guesses at the code,
// by however many steps and addresses.
func TestGuessedCodes(t *testing.T) {
	t.Parallel()
	h := open(t)
	by := h.user("admin", rest.Admin)
	key, _ := h.enrol(by)
	h.later(time.Hour)
	n := 0
	for i := range 50 {
		at := where(fmt.Sprintf("10.0.%d.1", i))
		o, err := h.Login(t.Context(), "admin", good, "", at)
		is(t, "password", err, ErrCodeWanted)
		if _, err = h.Second(t.Context(), o.Step, "12345", at); err != ErrWrongCode {
			is(t, "guess", err, ErrTooManyTries)
			break
		}
		n++
	}
	if n != codeBurst {
		t.Errorf("%d guesses, wants %d", n, codeBurst)
	}
	_, err := h.login("admin", good, h.code(key))
	is(t, "the right code while that lasts", err, ErrTooManyTries)
	h.later(codeRefill)
	if _, err := h.login("admin", good, h.code(key)); err != nil {
		t.Error(err)
	}
}

// TestDisabledWithFactor: nothing tells that the password of a disabled user is right.
func TestDisabledWithFactor(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.user("admin", rest.Admin)
	key, _ := h.enrol(h.user("kern", rest.Viewer))
	h.later(time.Hour)
	step, _ := h.login("kern", good, "")
	if err := h.Disable(t.Context(), console, "kern", true); err != nil {
		t.Fatal(err)
	}
	o, err := h.login("kern", good, "")
	is(t, "disabled", err, ErrWrongPassword)
	if o != (Opened{}) {
		t.Errorf("%+v", o)
	}
	_, err = h.Second(t.Context(), step.Step, h.code(key), where(here))
	is(t, "disabled between password and code", err, ErrUnknown)
}

// TestRequired: a role that wants a second factor shows nothing before there is one.
func TestRequired(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	h.user("admin", rest.Admin)
	op, rel := h.user("op", rest.Operator), h.user("rel", rest.Releaser)
	o1, _ := h.login("op", good, "")
	o2, _ := h.login("rel", good, "")
	is(t, "an operator sets it", h.RequireTOTP(ctx, op, rest.Viewer), access.ErrNotAllowed)
	if err := h.RequireTOTP(ctx, console, rest.Releaser); err != nil {
		t.Fatal(err)
	}
	if s, err := h.session(o1); err != nil || s.MustEnrol || s.Caller().Rights == 0 {
		t.Errorf("an operator: %+v %v", s, err)
	}
	if s, err := h.session(o2); err != nil || !s.MustEnrol || s.Caller().Rights != 0 {
		t.Errorf("a releaser: %+v %v", s, err)
	}
	h.later(time.Hour)
	h.enrol(rel)
	if s, err := h.session(o2); err != nil || s.MustEnrol || !s.Caller().Rights.Has(rest.RolloutsWrite) {
		t.Errorf("a releaser with one: %+v %v", s, err)
	}
	if from, err := h.TOTPFrom(ctx, DefaultTenant); from != rest.Releaser || err != nil {
		t.Error(from, err)
	}
	if h.RequireTOTP(ctx, console, "root") == nil {
		t.Error("an unknown role")
	}
}

// TestProgramsHaveNoFactor: a token changes nothing of its author's second factor.
func TestProgramsHaveNoFactor(t *testing.T) {
	t.Parallel()
	h := open(t)
	by := h.user("admin", rest.Admin)
	by.Who = "token t"
	_, _, err1 := h.BeginTOTP(t.Context(), by)
	_, err2 := h.ConfirmTOTP(t.Context(), by, "1")
	for _, err := range []error{err1, err2, h.DropOwn(t.Context(), by, good, "1", where(here))} {
		is(t, "a token", err, access.ErrNotAllowed)
	}
}

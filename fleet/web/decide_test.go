// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/views"
)

// withKeeper is a site where boards ask to join.
func withKeeper(t *testing.T) (*site, *keeper) {
	t.Helper()
	s, k := newSite(t), newKeeper(time.Now())
	s.with(views.Config{Source: s.src, Keeper: k})
	return s, k
}

func TestDecide(t *testing.T) {
	t.Parallel()
	s, k := withKeeper(t)
	body := s.get("/").Body.String()
	for _, want := range []string{"Boards that ask to join", "3 wait for you", "dock-0004 asks to join", "2c26b46b68ffc68f", "dock-0002 asks without the TPM it had", "It is the same board", `action="/requests/4"`} {
		if want == "It is the same board" { // approved already: not offered again
			if strings.Contains(body, want) {
				t.Errorf("the page offers what is decided: %q", want)
			}
			continue
		}
		if !strings.Contains(strings.ReplaceAll(body, "\u00a0", " "), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(body, `value="approve"`); n != 2 {
		t.Errorf("%d can be approved, want 2: one asks with the TPM of another board, one is approved", n)
	}
	for _, c := range []struct {
		path, form string
		code       int
		to, says   string
	}{
		{"/requests/4", "decision=approve&back=/", http.StatusSeeOther, "/", ""},
		{"/requests/5", "decision=refuse&back=/boards/dock-0002", http.StatusSeeOther, "/boards/dock-0002", ""},
		{"/requests/5", "decision=refuse&back=https://evil.example", http.StatusSeeOther, "/", ""},
		{"/requests/4", "", http.StatusBadRequest, "", "Nothing was decided"},
		{"/requests/99", "decision=approve", http.StatusNotFound, "", "not there any more"},
		{"/requests/x", "decision=approve", http.StatusNotFound, "", "not there any more"},
		{"/boards/dock-0001/revoke", "confirm=dock-0001&why=stolen", http.StatusSeeOther, "/boards/dock-0001", ""},
		{"/boards/dock-0001/forget", "confirm=dock-0001", http.StatusSeeOther, "/", ""},
		{"/boards/dock-0001/revoke", "confirm=dock-0002", http.StatusUnprocessableEntity, "", "the name does not match"},
		{"/boards/dock-0001/forget", "", http.StatusUnprocessableEntity, "", "the name does not match"},
		{"/boards/dock-0001/revoke", "confirm=dock-0001&why=" + strings.Repeat("x", 401), http.StatusUnprocessableEntity, "", "fewer words"},
	} {
		w := s.ask(http.MethodPost, c.path, c.form)
		if w.Code != c.code || w.Header().Get("Location") != c.to || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d to %q", c.path, c.form, w.Code, w.Header().Get("Location"))
		}
	}
	want := []string{"approved 4 by admin", "refused 5 by admin", "refused 5 by admin", "approved 99 by admin", "revoke main/dock-0001 by admin: stolen", "forget main/dock-0001 by admin: "}
	if !slices.Equal(k.did, want) {
		t.Errorf("done: %q, want %q", k.did, want)
	}
	if body := s.get("/").Body.String(); !strings.Contains(body, "Approved by admin") || !strings.Contains(body, "Refused by admin") {
		t.Error("the page does not show what was decided")
	}
	k.did = nil
	for err, says := range map[error]string{trust.ErrElsewhere: "Forget the other board first", errors.New("disk on fire"): "cannot be done right now"} {
		k.err = err
		if w := s.ask(http.MethodPost, "/requests/6", "decision=approve"); w.Code < 400 || !strings.Contains(w.Body.String(), says) || strings.Contains(w.Body.String(), "fire") {
			t.Errorf("%v: %d", err, w.Code)
		}
	}
}

// TestNobodyElseDecides: not without a session, not with the one-time password, not
// from another site, not by a link, and not where nothing can be decided.
func TestNobodyElseDecides(t *testing.T) {
	t.Parallel()
	s, k := withKeeper(t)
	forms := map[string]string{"/requests/4": "decision=approve", "/boards/dock-0001/revoke": "confirm=dock-0001", "/boards/dock-0001/forget": "confirm=dock-0001"}
	for path, form := range forms {
		for _, site := range []string{"cross-site", "same-site"} {
			if w := s.ask(http.MethodPost, path, form, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) }); w.Code != http.StatusForbidden {
				t.Errorf("%s from %s: %d", path, site, w.Code)
			}
		}
		if w := s.ask(http.MethodGet, path+"?"+form, ""); w.Code < 400 {
			t.Errorf("%s by a link: %d", path, w.Code)
		}
		s.auth.must = true
		if w := s.ask(http.MethodPost, path, form); w.Code != http.StatusUnauthorized {
			t.Errorf("%s with the one-time password: %d", path, w.Code)
		}
		s.auth.must, s.auth.open = false, false
		if w := s.ask(http.MethodPost, path, form); w.Code != http.StatusUnauthorized {
			t.Errorf("%s without a session: %d", path, w.Code)
		}
		s.auth.open = true
		s.with(views.Config{Source: s.src})
		if w := s.ask(http.MethodPost, path, form); w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s where nothing is decided: %d", path, w.Code)
		}
		s.with(views.Config{Source: s.src, Keeper: k})
	}
	if len(k.did) != 0 {
		t.Errorf("done: %q", k.did)
	}
}

// TestTrustOnBoard: the panel and its causes stand on the board's page, also who asks
// for its name, and a board that was shut out says so.
func TestTrustOnBoard(t *testing.T) {
	t.Parallel()
	s, _ := withKeeper(t)
	has := func(path string, want ...string) {
		t.Helper()
		body := strings.ReplaceAll(s.get(path).Body.String(), "\u00a0", " ")
		for _, w := range want {
			if out, no := strings.CutPrefix(w, "!"); strings.Contains(body, out) == no {
				t.Errorf("%s: %q", path, w)
			}
		}
	}
	has("/boards/dock-0001", "Bound: its TPM signed what it says it runs", "9f86d081884c7d65", "since its first proof", "!Asks to join under this name", "!Private key</dt><dd>in the security chip", "Shut it out", "Forget it")
	has("/boards/dock-0002", "Not protected: its key is a file", "Asks to join under this name", "dock-0002 asks without the TPM it had")
	has("/boards/dock-0003", "Its newest proof was not believed", "The clock of its TPM went back")
	has("/", "2 boards have their keys in TPMs; proved what runs: 2, with a measured boot: 1. 1 board has its key in a file that can be copied.")
	s.src.boards[0].Trust.Revoked = time.Now()
	has("/boards/dock-0001", "<h2>Shut out</h2>", "Lift this", "!Shut it out")
	s.src.boards[0].Trust = nil // of somebody else's broker
	has("/boards/dock-0001", "!<h2>Trust</h2>", "!Shut it out")
}

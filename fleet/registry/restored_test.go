// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"

	"fulmar/fleet/registry/accounts"
)

// words lists what the audit log tells of a board.
func words(t *testing.T, r *Registry, board string) (out []string) {
	t.Helper()
	if err := r.Audit().Each(ctx, 0, func(e audit.Entry) error {
		if e.Board == board {
			out = append(out, e.What)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRecall: a board that renewed after the backup comes in with a certificate that
// the registry does not know; nobody else does.
func TestRecall(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	if err := errors.Join(enrol(r, newToken(t, r, "", 1), "b1", 1), enrol(r, newToken(t, r, "", 1), "b2", 2), enrol(r, newToken(t, r, "", 1), "b3", 3)); err != nil {
		t.Fatal(err)
	}
	if err := r.Revoke(ctx, DefaultTenant, "b3", Console, ""); err != nil {
		t.Fatal(err)
	}
	later := ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{9}, KeyHash: [32]byte{1}, Serial: "9", NotAfter: time.Now().Add(2 * time.Hour)}
	for name, change := range map[string]func(*ca.Identity){
		"an older one":     func(id *ca.Identity) { id.NotAfter = time.Now().Add(30 * time.Minute) },
		"of another key":   func(id *ca.Identity) { id.KeyHash[0] = 7 },
		"of another board": func(id *ca.Identity) { id.Board = "b2" },
		"of no board":      func(id *ca.Identity) { id.Board = "b9" },
		"of a revoked one": func(id *ca.Identity) { id.Board, id.KeyHash[0] = "b3", 3 },
	} {
		id := later
		change(&id)
		if ok, err := r.Admit(ctx, id); ok || err != nil {
			t.Errorf("%s: %v %v", name, ok, err)
		}
		if _, _, err := r.Renew(ctx, id, id.KeyHash, func(string) (*ca.Leaf, error) { return leafOf(50), nil }); err == nil {
			t.Errorf("%s renews", name)
		}
	}
	if ok, err := r.Admit(ctx, later); !ok || err != nil {
		t.Fatal(ok, err)
	}
	first := ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{1}, KeyHash: [32]byte{1}, NotAfter: time.Now().Add(time.Hour)}
	if ok, err := r.Admit(ctx, first); ok || err != nil {
		t.Error("the certificate before it:", ok, err)
	}
	if ok, err := r.Admit(ctx, later); !ok || err != nil {
		t.Error("the second time:", ok, err)
	}
	if w := words(t, r, "b1"); !slices.Equal(w, []string{"enrol", "recall"}) {
		t.Errorf("the audit log tells %v", w)
	}
	if w := words(t, r, "b3"); slices.Contains(w, "recall") {
		t.Errorf("of a revoked board the audit log tells %v", w)
	}
	// One that has never connected since renews with it at once.
	later.Fingerprint[0], later.NotAfter = 10, later.NotAfter.Add(time.Hour)
	if _, _, err := r.Renew(ctx, later, later.KeyHash, func(string) (*ca.Leaf, error) { return leafOf(51), nil }); err != nil {
		t.Error(err)
	}
}

// TestRestored: what may have been used up since the backup is no good.
func TestRestored(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	token := newToken(t, r, "", 5)
	if err := enrol(r, token, "b1", 1); err != nil {
		t.Fatal(err)
	}
	pw, err := r.Accounts().EnsureAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	session, err := r.Accounts().Login(ctx, accounts.FirstUser, pw, "", accounts.From{Addr: here})
	if err != nil {
		t.Fatal(err)
	}
	api, err := r.NewAPIToken(ctx, DefaultTenant, ScopeRead, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Restored(context.Background(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := enrol(r, token, "b2", 2); !errors.Is(err, ErrUnknown) {
		t.Errorf("the join token: %v", err)
	}
	if _, err := r.Accounts().Session(ctx, session.Session); err == nil {
		t.Error("the session goes on")
	}
	if _, err := r.Accounts().Token(ctx, api); err != nil {
		t.Errorf("the API token: %v", err)
	}
	if n, err := r.Known(ctx); n != 1 || err != nil {
		t.Errorf("%d boards known, %v", n, err)
	}
	if w := words(t, r, ""); w[len(w)-1] != "restore" {
		t.Errorf("the audit log tells %v", w)
	}
}

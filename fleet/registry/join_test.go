// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"fulmar/schema/rest"
)

// TestJoinTokenList: what is open is listed without its secret, and a token that was
// revoked, used up or has ended neither is listed nor lets anybody in.
func TestJoinTokenList(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	list := func() (out []rest.JoinToken) {
		t.Helper()
		out, err := r.JoinTokens(ctx, DefaultTenant)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	many, made, err := r.NewJoinTokenBy(ctx, "m.kern", DefaultTenant, "", 5, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own, _, err := r.NewJoinTokenBy(ctx, "m.kern", DefaultTenant, "dock-9", 7, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.NewJoinTokenBy(ctx, "m.kern", DefaultTenant, "", 1, time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	got := list()
	for range 1000 { // the last one ends with its millisecond
		if len(got) == 2 {
			break
		}
		time.Sleep(time.Millisecond)
		got = list()
	}
	if len(got) != 2 || got[0].Board != "dock-9" || got[0].Boards != 1 || got[1] != made || len(made.ID) != 16 || strings.Contains(many, made.ID) {
		t.Fatalf("open: %+v", got)
	}
	if err := enrol(r, many, "b1", 1); err != nil || list()[1].Boards != 4 {
		t.Fatalf("%v: %+v", err, list())
	}
	if err := enrol(r, own, "dock-9", 9); err != nil || len(list()) != 1 {
		t.Fatalf("used up: %v: %+v", err, list())
	}
	for _, id := range []string{"", "x", strings.Repeat("0", 16), made.ID[:14], got[0].ID, strings.Repeat("f", 64)} {
		if err := r.RevokeJoinToken(ctx, DefaultTenant, id, "m.kern"); !errors.Is(err, ErrNoToken) {
			t.Errorf("revoke %q: %v", id, err)
		}
	}
	if err := r.RevokeJoinToken(ctx, "elsewhere", made.ID, "m.kern"); !errors.Is(err, ErrNoToken) {
		t.Errorf("of another tenant: %v", err)
	}
	if err := r.RevokeJoinToken(ctx, DefaultTenant, made.ID, "m.kern"); err != nil || len(list()) != 0 {
		t.Fatalf("%v: %+v", err, list())
	}
	if err := enrol(r, many, "b2", 2); !errors.Is(err, ErrUnknown) {
		t.Errorf("a revoked token: %v", err)
	}
	rows, err := r.Audit().Entries(ctx, DefaultTenant, 0, 1, rest.AuditFilter{Newest: true})
	if err != nil || len(rows) != 1 || rows[0].Who != "m.kern" || rows[0].What != "token-revoke" || rows[0].Why != made.ID {
		t.Errorf("%v: %+v", err, rows)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/ca"
)

func open(t testing.TB) (*Registry, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, dir
}

var (
	ctx  = context.Background()
	here = netip.MustParseAddr("192.0.2.1")
)

// leafOf gives a certificate in name only: the registry does not look inside.
func leafOf(n byte) *ca.Leaf {
	return &ca.Leaf{Serial: fmt.Sprint(n), Fingerprint: [32]byte{n}, KeyHash: [32]byte{n}, NotAfter: time.Now().Add(time.Hour)}
}

func enrol(r *Registry, secret, board string, key byte) error {
	_, _, err := r.Enrol(ctx, Enrolment{Secret: secret, Board: board, KeyMode: "software", KeyHash: [32]byte{key}},
		func(string) (*ca.Leaf, error) { return leafOf(key), nil })
	return err
}

func newToken(t *testing.T, r *Registry, board string, uses int) string {
	t.Helper()
	s, err := r.NewJoinToken(ctx, DefaultTenant, board, uses, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestJoinToken(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	one := newToken(t, r, "", 1)
	if err := enrol(r, "wrongwrongwrongwrongwrongw", "b1", 1); !errors.Is(err, ErrUnknown) {
		t.Fatalf("wrong token: %v", err)
	}
	if err := enrol(r, one, "b1", 1); err != nil {
		t.Fatal(err)
	}
	if err := enrol(r, one, "b1", 1); err != nil {
		t.Fatalf("the same board again, its answer was lost: %v", err)
	}
	if err := enrol(r, one, "b2", 2); !errors.Is(err, ErrUnknown) {
		t.Fatalf("token used twice: %v", err)
	}
	if err := enrol(r, one, "b1", 3); !errors.Is(err, ErrUnknown) {
		t.Fatalf("used token with another key: %v", err)
	}
	two := newToken(t, r, "", 1)
	if err := enrol(r, two, "b1", 4); !errors.Is(err, ErrNameTaken) {
		t.Fatalf("name of an enrolled board: %v", err)
	}
	if err := enrol(r, two, "b2", 4); err != nil {
		t.Fatalf("a refused name must not use the token up: %v", err)
	}
	own := newToken(t, r, "b1", 1)
	if err := enrol(r, own, "b2", 5); !errors.Is(err, ErrUnknown) {
		t.Fatalf("token of another board: %v", err)
	}
	if err := enrol(r, own, "b1", 5); err != nil {
		t.Fatalf("board with a new key: %v", err)
	}
	for key, want := range map[byte]bool{1: false, 5: true} {
		if ok, err := r.Admit(ctx, ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{key}}); err != nil || ok != want {
			t.Errorf("certificate %d admitted: %v %v", key, ok, err)
		}
	}
	// A signer that fails uses nothing up.
	three := newToken(t, r, "", 1)
	_, _, err := r.Enrol(ctx, Enrolment{Secret: three, Board: "b3", KeyHash: [32]byte{9}}, func(string) (*ca.Leaf, error) { return nil, errors.New("no") })
	if err == nil || enrol(r, three, "b3", 9) != nil {
		t.Error("a failed signature used the token up")
	}
	if _, err := r.db.Write.Exec("UPDATE join_token SET expires = 1, uses_left = 5"); err != nil {
		t.Fatal(err)
	}
	if err := enrol(r, three, "b7", 7); !errors.Is(err, ErrUnknown) {
		t.Fatalf("expired token: %v", err)
	}
}

func TestRenewKeepsOldUntilUsed(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	if err := enrol(r, newToken(t, r, "", 1), "b1", 1); err != nil {
		t.Fatal(err)
	}
	id := func(n byte) ca.Identity {
		return ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{n}}
	}
	admitted := func(n byte) bool {
		t.Helper()
		ok, err := r.Admit(ctx, id(n))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if _, _, err := r.Renew(ctx, id(7), [32]byte{2}, func(string) (*ca.Leaf, error) { return leafOf(2), nil }); !errors.Is(err, ErrUnknown) {
		t.Fatalf("stranger renews: %v", err)
	}
	if _, _, err := r.Renew(ctx, id(1), [32]byte{2}, func(string) (*ca.Leaf, error) { return leafOf(2), nil }); err != nil {
		t.Fatal(err)
	}
	if !admitted(1) || !admitted(2) || admitted(1) {
		t.Fatal("the old certificate has to stay good until the new one is used, and no longer")
	}
	if err := r.Revoke(ctx, DefaultTenant, "b1", "admin", "stolen"); err != nil || admitted(2) {
		t.Fatal("revoked board admitted")
	}
}

func TestPasswordAndSessions(t *testing.T) {
	t.Parallel()
	r, dir := open(t)
	once, err := r.EnsureAdmin(ctx)
	if err != nil || len(once) < 20 {
		t.Fatalf("one-time password %d characters, %v", len(once), err)
	}
	if again, err := r.EnsureAdmin(ctx); err != nil || again != "" {
		t.Fatalf("second start makes a password: %v", err)
	}
	if _, err := r.Login(ctx, "not it at all, no", here); !errors.Is(err, ErrWrongPassword) {
		t.Fatal(err)
	}
	first, err := r.Login(ctx, once, here)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := r.Session(ctx, first); err != nil || !s.MustChange || s.Tenant != DefaultTenant {
		t.Fatalf("%+v %v", s, err)
	}
	const fresh = "correct horse battery"
	for _, weak := range []string{"", "short", once, strings.Repeat("x", 300)} {
		if _, err := r.SetPassword(ctx, once, weak, here); !errors.Is(err, ErrWeakPassword) {
			t.Errorf("password of %d characters: %v", len(weak), err)
		}
	}
	second, err := r.SetPassword(ctx, once, fresh, here)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Session(ctx, first); !errors.Is(err, ErrUnknown) {
		t.Error("a session outlives the change of password")
	}
	if s, err := r.Session(ctx, second); err != nil || s.MustChange {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := r.Login(ctx, once, here); !errors.Is(err, ErrWrongPassword) {
		t.Error("the one-time password works twice")
	}
	if err := r.Logout(ctx, second); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Session(ctx, second); !errors.Is(err, ErrUnknown) {
		t.Error("a session outlives the logout")
	}
	third, err := r.Login(ctx, fresh, here)
	if err != nil {
		t.Fatal(err)
	}
	for col, life := range map[string]time.Duration{"used": sessionIdle, "made": sessionLife} {
		if _, err := r.db.Write.Exec("UPDATE session SET "+col+" = ?", time.Now().Add(-life-time.Second).UnixMilli()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Session(ctx, third); !errors.Is(err, ErrUnknown) {
			t.Errorf("session past its %s time is good", col)
		}
		if _, err := r.db.Write.Exec("UPDATE session SET "+col+" = ?", nowMs()); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing secret lies in the file.
	if _, err := r.db.Write.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(dir + "/registry.db")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{once, fresh, first, second, third} {
		if strings.Contains(string(raw), secret) {
			t.Error("a secret is readable in the database")
		}
	}
}

func TestTriesAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(burst, refill)
		other, six, six2 := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		for range burst {
			if !l.Take(here, time.Now()) || !l.Take(six, time.Now()) {
				t.Fatal("refused too early")
			}
		}
		if l.Take(here, time.Now()) || l.Take(six2, time.Now()) || !l.Take(other, time.Now()) {
			t.Fatal("the limit is for each address, IPv6 by /64")
		}
		time.Sleep(refill)
		if !l.Take(here, time.Now()) || l.Take(here, time.Now()) {
			t.Fatal("one try comes back each refill")
		}
		for i := range 2 * maxAddresses {
			l.Take(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), time.Now())
		}
		if len(l.by) > maxAddresses || l.used.Len() != len(l.by) {
			t.Fatalf("%d addresses remembered", len(l.by))
		}
	})
}

func TestAPITokens(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	tok, err := r.NewAPIToken(ctx, DefaultTenant, ScopeRead, time.Hour)
	if err != nil || !strings.HasPrefix(tok, "fk1_") {
		t.Fatal(err)
	}
	if tenant, scope, err := r.APIToken(ctx, tok); err != nil || tenant != DefaultTenant || scope != ScopeRead {
		t.Fatalf("%s %s %v", tenant, scope, err)
	}
	for _, bad := range []string{"", "fk1_", tok + "0", tok[:len(tok)-1], strings.TrimPrefix(tok, "fk1_")} {
		if _, _, err := r.APIToken(ctx, bad); !errors.Is(err, ErrUnknown) {
			t.Errorf("a wrong token: %v", err)
		}
	}
	if _, err := r.db.Write.Exec("UPDATE api_token SET expires = 1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.APIToken(ctx, tok); !errors.Is(err, ErrUnknown) {
		t.Errorf("expired token: %v", err)
	}
	if _, err := r.NewAPIToken(ctx, DefaultTenant, "all", time.Hour); err == nil {
		t.Error("unknown scope is taken")
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
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

// TestOldAccounts: a registry of the release with one administrator and two kinds of
// tokens is opened by this one. All who could come in still can, and may do the same.
func TestOldAccounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := store.OpenFile(filepath.Join(dir, "registry.db"), migrations()[:3])
	if err != nil {
		t.Fatal(err)
	}
	// "correct horse battery" by Argon2id as that release hashed it.
	const password = "$argon2id$v=19$m=65536,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$HASH"
	sum := base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte("correct horse battery"), []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"), 3, 64<<10, 2, 32))
	read, admin := "fk1_"+strings.Repeat("1b", 32), "fk1_"+strings.Repeat("2c", 32)
	until := time.Now().Add(time.Hour).UnixMilli()
	if _, err := db.Write.Exec(`INSERT INTO user VALUES ('admin', 'default', ?, 0)`, strings.Replace(password, "HASH", sum, 1)); err != nil {
		t.Fatal(err)
	}
	for token, scope := range map[string]string{read: "read", admin: "admin"} {
		if _, err := db.Write.Exec(`INSERT INTO api_token (hash, tenant, scope, expires) VALUES (?, 'default', ?, ?)`, hashOf(token), scope, until); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o, err := r.Accounts().Login(ctx, "admin", "correct horse battery", "", accounts.From{Addr: here})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := r.Accounts().Session(ctx, o.Session); err != nil || s.Role != rest.Admin || s.MustChange || s.MustEnrol {
		t.Errorf("%+v, %v", s, err)
	}
	few, _ := rest.RightsOf(rest.BoardsRead, rest.AuditRead)
	// All that there was when it was made: no token gains a right by an update.
	all, _ := rest.RightsOf(rest.BoardsRead, rest.BoardsWrite, rest.CommandsSend, rest.AlertsWrite, rest.AuditRead, rest.RolloutsWrite, rest.RolloutsApprove, rest.BoardsAdmit, rest.UsersWrite)
	for token, want := range map[string]rest.Rights{read: few, admin: all} {
		c, err := r.Accounts().Token(ctx, token)
		if err != nil || c.Rights != want || c.Who != "token "+hex.EncodeToString(hashOf(token)[:4]) || c.Author != Console {
			t.Errorf("%+v, %v", c, err)
		}
	}
	if pw, err := r.Accounts().EnsureAdmin(ctx); pw != "" || err != nil {
		t.Error("a second administrator is made", err)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	tok, err := r.NewAPIToken(ctx, DefaultTenant, ScopeRead, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := r.Accounts().Token(ctx, tok); err != nil || c.Tenant != DefaultTenant || !c.Rights.Has(rest.BoardsRead) || c.Rights.Has(rest.BoardsAdmit) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := r.NewAPIToken(ctx, DefaultTenant, "all", time.Hour); err == nil {
		t.Error("unknown scope is taken")
	}
}

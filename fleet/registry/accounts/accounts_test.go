// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

// before is what the registry has made when it comes to [Schema].
const before = `
CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO tenant VALUES ('default'), ('other');
CREATE TABLE user (name TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name), password TEXT NOT NULL, must_change INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE session (hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user(name) ON DELETE CASCADE, made INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE api_token (hash BLOB PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name), scope TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
`

// house is accounts with a clock of their own and passwords that cost nothing.
type house struct {
	*Accounts
	t      *testing.T
	path   string
	at     time.Time
	checks []string // what passwords were compared with
}

func open(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), "r.db"), at: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	db, err := store.OpenFile(h.path, []string{before + audit.Schema, Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	h.Accounts = New(db)
	h.now = func() time.Time { return h.at }
	h.mint = func(pw string) string { return fmt.Sprintf("%x", secret.Hash(pw)) }
	h.check = func(stored, pw string) bool {
		h.checks = append(h.checks, stored)
		return stored == fmt.Sprintf("%x", secret.Hash(pw))
	}
	return h
}

func where(addr string) From { return From{Addr: netip.MustParseAddr(addr), Agent: "Firefox"} }

const (
	here = "192.0.2.1"
	good = "correct horse battery"
)

var console = OnConsole("root")

// user makes a user with a settled password.
func (h *house) user(name string, role rest.Role) access.Caller {
	h.t.Helper()
	once, err := h.AddUser(h.t.Context(), console, name, role)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.SetPassword(h.t.Context(), name, once, good, where(here)); err != nil {
		h.t.Fatal(err)
	}
	return access.Caller{Tenant: DefaultTenant, Who: name, Author: name, Rights: role.Rights()}
}

func (h *house) login(name, pw, code string) (Opened, error) {
	return h.Login(h.t.Context(), name, pw, code, where(here))
}

// later lets time pass, so that no limit is in the way.
func (h *house) later(d time.Duration) { h.at = h.at.Add(d) }

func (h *house) session(o Opened) (Session, error) { return h.Session(h.t.Context(), o.Session) }

// log gives the words of the audit log with its sentences.
func (h *house) log() (out []string) {
	h.t.Helper()
	err := audit.New(h.db).Each(h.t.Context(), 0, func(e audit.Entry) error {
		out = append(out, e.Who+": "+e.What+": "+e.Why)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, wants %v", what, err, want)
	}
}

func TestPasswordAndSessions(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	once, err := h.EnsureAdmin(ctx)
	if err != nil || len(once) < 20 {
		t.Fatalf("one-time password of %d characters, %v", len(once), err)
	}
	if again, err := h.EnsureAdmin(ctx); err != nil || again != "" {
		t.Fatalf("the second start makes a password: %v", err)
	}
	_, err = h.login(FirstUser, "not it at all, no", "")
	is(t, "a wrong password", err, ErrWrongPassword)
	first, err := h.login(FirstUser, once, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.session(first)
	if err != nil || !s.MustChange || s.Tenant != DefaultTenant || s.Role != rest.Admin || s.Caller().Rights != 0 {
		t.Fatalf("%+v %v", s, err)
	}
	for _, weak := range []string{"", "short", once, strings.Repeat("x", 300)} {
		_, err := h.SetPassword(ctx, FirstUser, once, weak, where(here))
		is(t, fmt.Sprintf("a password of %d characters", len(weak)), err, ErrWeakPassword)
	}
	second, err := h.SetPassword(ctx, FirstUser, once, good, where(here))
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.session(first)
	is(t, "a session after the change of password", err, ErrUnknown)
	if s, err := h.session(second); err != nil || s.MustChange || s.Caller().Rights != rest.Admin.Rights() {
		t.Errorf("%+v %v", s, err)
	}
	_, err = h.login(FirstUser, once, "")
	is(t, "the one-time password again", err, ErrWrongPassword)
	if err := h.Logout(ctx, second.Session); err != nil {
		t.Fatal(err)
	}
	_, err = h.session(second)
	is(t, "a session after the log-out", err, ErrUnknown)
	for name, pass := range map[string]time.Duration{"idle": sessionIdle, "old": sessionLife} {
		h.later(time.Hour)
		o, err := h.login(FirstUser, good, "")
		if err != nil {
			t.Fatal(err)
		}
		for left := pass; name == "old" && left > time.Hour; left -= time.Hour { // used all the time
			h.later(time.Hour)
			if _, err := h.session(o); err != nil {
				t.Fatal("a session in use ended: ", err)
			}
		}
		h.later(map[bool]time.Duration{true: time.Hour + time.Second, false: pass + time.Second}[name == "old"])
		_, err = h.session(o)
		is(t, "a session that is "+name, err, ErrUnknown)
	}
}

// TestNothingSecretInTheFile: with real hashes, none of the secrets lies in the database.
func TestNothingSecretInTheFile(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.mint, h.check = secret.HashPassword, secret.CheckPassword
	once, err := h.EnsureAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o, err := h.SetPassword(t.Context(), FirstUser, once, good, where(here))
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := h.MakeToken(t.Context(), console, rest.TokenSpec{Name: "t", Rights: rest.Viewer.Rights()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.db.Write.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []string{once, good, o.Session, o.Known, token} {
		if bytes.Contains(raw, []byte(s)) {
			t.Error("a secret is readable in the database:", i)
		}
	}
	if !bytes.Contains(raw, []byte("$argon2id$v=19$m=65536,t=3,p=2$")) {
		t.Error("this test looks at the wrong file")
	}
}

// TestUnknownUser: who asks for a user that is not there, is disabled or has another
// password hears the same, and one hash of the same cost is made for each.
func TestUnknownUser(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.user("admin", rest.Admin)
	h.user("kern", rest.Viewer)
	h.user("gone", rest.Viewer)
	if err := h.Disable(t.Context(), console, "gone", true); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ user, pw string }{{"kern", "wrong wrong wrong"}, {"nobody", "wrong wrong wrong"}, {"gone", "wrong wrong wrong"}, {"gone", good}} {
		h.later(time.Minute)
		h.checks = nil
		o, err := h.Login(t.Context(), c.user, c.pw, "", where(fmt.Sprint("198.51.100.", i+1)))
		if err == nil || err.Error() != ErrWrongPassword.Error() || o != (Opened{}) {
			t.Errorf("%s: %v %+v", c.user, err, o)
		}
		if len(h.checks) != 1 {
			t.Errorf("%s: %d hashes were made", c.user, len(h.checks))
		}
	}
}

// TestStrangersLockNobodyOut: many addresses that guess at one user are held up, and the
// user's own browser is not.
func TestStrangersLockNobodyOut(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.user("admin", rest.Admin)
	own, err := h.login("admin", good, "")
	if err != nil {
		t.Fatal(err)
	}
	held := false
	for i := range 100 {
		_, err := h.Login(t.Context(), "admin", "guess guess guess", "", where(fmt.Sprintf("10.0.%d.1", i)))
		if held = held || errors.Is(err, ErrTooManyTries); held != (i >= nameBurst) && i != nameBurst {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	_, err = h.Login(t.Context(), "admin", good, "", where("203.0.113.9"))
	is(t, "the user from a strange browser while they guess", err, ErrTooManyTries)
	at := where("203.0.113.9")
	at.Known = own.Known
	next, err := h.Login(t.Context(), "admin", good, "", at)
	if err != nil {
		t.Fatal("the user's own browser is held up: ", err)
	}
	// What the browser showed is good once, and for that user alone.
	_, err = h.Login(t.Context(), "admin", good, "", at)
	is(t, "the old mark", err, ErrTooManyTries)
	at.Known = next.Known
	tries := 0
	for i := range 2 * nameBurst {
		tries = i
		if _, err = h.Login(t.Context(), "kern", "guess guess guess", "", From{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i), 1}), Known: next.Known}); errors.Is(err, ErrTooManyTries) {
			break
		}
	}
	is(t, "another user with this mark", err, ErrTooManyTries)
	if tries != nameBurst {
		t.Errorf("%d tries at another user with this mark, wants %d", tries, nameBurst)
	}
	h.later(nameRefill)
	if _, err := h.Login(t.Context(), "admin", good, "", where("203.0.113.77")); err != nil {
		t.Error("a strange browser later: ", err)
	}
}

// TestOneAddress: guesses from one address end soon, and its own account gives it no more.
func TestOneAddress(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.user("admin", rest.Admin)
	h.user("eve", rest.Viewer)
	h.later(time.Hour)
	tries := 0
	for range 100 {
		if _, err := h.login("admin", "guess guess guess", ""); errors.Is(err, ErrTooManyTries) {
			break
		}
		tries++
		_, _ = h.login("eve", good, "")
	}
	if tries != addrBurst {
		t.Errorf("%d guesses from one address, wants %d", tries, addrBurst)
	}
}

// TestMeanwhile: who gets another password, or is disabled, while their old one is being
// looked at stays out.
func TestMeanwhile(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.user("admin", rest.Admin)
	for name, act := range map[string]func() error{
		"reset":   func() error { _, err := h.Reset(t.Context(), console, "u"); return err },
		"disable": func() error { return h.Disable(t.Context(), console, "u", true) },
	} {
		h.later(time.Hour)
		h.user("u", rest.Viewer)
		check := h.check
		h.check = func(stored, pw string) bool { return errors.Join(act()) == nil && check(stored, pw) }
		o, err := h.login("u", good, "")
		h.check = check
		is(t, name, err, ErrWrongPassword)
		if o.Session != "" {
			if _, err := h.session(o); err == nil {
				t.Error("a session after", name)
			}
		}
		if err := h.Remove(t.Context(), console, "u"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusedInSum(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.user("admin", rest.Admin)
	n := len(h.log())
	for i := range 30 {
		_, _ = h.Login(t.Context(), "admin", "guess guess guess", "", where(fmt.Sprintf("10.0.%d.1", i)))
	}
	_, _ = h.login("my secret passphrase", "x", "")
	_, _ = h.login("hunter2hunter2hunter2", "x", "")
	if len(h.log()) != n {
		t.Fatal("strangers write rows of the audit log")
	}
	for range 2 {
		if err := h.writeRefused(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	log := h.log()
	last := log[len(log)-1]
	if len(log) != n+1 || last != "fleet: log-in-refused: 32 since 2026-11-26T12:00:00Z from 31 addresses, 20 of admin, 12 of nobody here or too fast" {
		t.Errorf("%d rows, %s", len(log)-n, last)
	}
	if strings.Contains(strings.Join(log, "\n"), "hunter2") || strings.Contains(strings.Join(log, "\n"), "passphrase") {
		t.Error("what was typed as a user is in the log: it may have been the password")
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	admin := h.user("admin", rest.Admin)
	kern := h.user("kern", rest.Operator)
	for _, bad := range []string{"", "Kern", "-x", "a b", "server", "fleet", "a\nb", "é", strings.Repeat("x", 65), "token a;b"} {
		_, err := h.AddUser(ctx, admin, bad, rest.Viewer)
		is(t, fmt.Sprintf("the name %q", bad), err, ErrBadName)
	}
	_, err := h.AddUser(ctx, admin, "kern", rest.Viewer)
	is(t, "a name twice", err, ErrNameTaken)
	if _, err = h.AddUser(ctx, admin, "x", "root"); err == nil {
		t.Error("an unknown role")
	}
	// Nobody but who keeps users, and nobody above themselves.
	part := access.Caller{Tenant: DefaultTenant, Who: "token t", Author: "admin"}
	part.Rights, _ = rest.RightsOf(rest.BoardsRead, rest.UsersWrite)
	for what, by := range map[string]access.Caller{"an operator": kern, "a token without all rights": part} {
		_, err1 := h.AddUser(ctx, by, "x", rest.Admin)
		_, err2 := h.Reset(ctx, by, "admin")
		for i, err := range []error{
			err1, err2, h.SetRole(ctx, by, "kern", rest.Admin), h.SetRole(ctx, by, "admin", rest.Viewer),
			h.Remove(ctx, by, "admin"), h.Disable(ctx, by, "admin", true), h.DropTOTP(ctx, by, "admin"),
		} {
			is(t, fmt.Sprint(what, ", act ", i), err, access.ErrNotAllowed)
		}
	}
	if _, err := h.AddUser(ctx, part, "guest", rest.Viewer); err != nil {
		t.Error("what is within the token's rights: ", err)
	}
	// The last administrator stays.
	is(t, "remove the last", h.Remove(ctx, admin, "admin"), ErrLastAdmin)
	is(t, "demote the last", h.SetRole(ctx, console, "admin", rest.Releaser), ErrLastAdmin)
	is(t, "disable the last", h.Disable(ctx, console, "admin", true), ErrLastAdmin)
	h.user("second", rest.Admin)
	if err := h.Disable(ctx, admin, "second", true); err != nil {
		t.Fatal(err)
	}
	is(t, "a disabled one counts", h.Remove(ctx, admin, "admin"), ErrLastAdmin)
	if err := errors.Join(h.Disable(ctx, admin, "second", false), h.Remove(ctx, admin, "admin")); err != nil {
		t.Fatal(err)
	}
	is(t, "a user who is not there", h.SetRole(ctx, console, "admin", rest.Viewer), ErrUnknown)
	list, err := h.Users(ctx, DefaultTenant)
	var names []string
	for _, u := range list {
		names = append(names, u.Name+" "+string(u.Role))
	}
	if want := []string{"guest viewer", "kern operator", "second admin"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
}

// TestTenants: an administrator of one tenant has no hold on the people of another.
func TestTenants(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	h.user("admin", rest.Admin)
	far := access.Caller{Tenant: "other", Who: "boss", Author: "boss", Rights: rest.Admin.Rights()}
	_, err := h.Reset(ctx, far, "admin")
	for i, err := range []error{err, h.SetRole(ctx, far, "admin", rest.Viewer), h.Remove(ctx, far, "admin"), h.Disable(ctx, far, "admin", true), h.DropTOTP(ctx, far, "admin")} {
		is(t, fmt.Sprint("act ", i), err, ErrUnknown)
	}
	_, tok, err := h.MakeToken(ctx, console, rest.TokenSpec{Name: "t", Rights: rest.Viewer.Rights()})
	if err != nil {
		t.Fatal(err)
	}
	is(t, "revoke", h.RevokeToken(ctx, far, tok.ID), ErrUnknown)
	u, err1 := h.Users(ctx, "other")
	k, err2 := h.Tokens(ctx, "other")
	if len(u) != 0 || len(k) != 0 || err1 != nil || err2 != nil {
		t.Error(u, k, err1, err2)
	}
}

// TestEndsAtOnce: sessions end with a reset, with being disabled and removed; a role is
// felt by the session that is open.
func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	h.user("admin", rest.Admin)
	for name, act := range map[string]func() error{
		"reset": func() error { _, err := h.Reset(ctx, console, "u"); return err },
		"disable": func() error {
			return errors.Join(h.Disable(ctx, console, "u", true), h.Disable(ctx, console, "u", false))
		},
		"remove": func() error { return h.Remove(ctx, console, "u") },
		"factor": func() error { return h.DropTOTP(ctx, console, "u") },
	} {
		h.later(time.Hour)
		h.user("u", rest.Admin)
		o, err := h.login("u", good, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.SetRole(ctx, console, "u", rest.Viewer); err != nil {
			t.Fatal(err)
		}
		if s, err := h.session(o); err != nil || s.Role != rest.Viewer || s.Caller().Rights != rest.Viewer.Rights() {
			t.Errorf("a lesser role is not felt: %+v %v", s, err)
		}
		if err := act(); err != nil {
			t.Fatal(err)
		}
		_, err = h.session(o)
		is(t, "a session after "+name, err, ErrUnknown)
		if n := h.knows(ctx, "u", o.Known); n {
			t.Error("the browser is still known after", name)
		}
		if name != "remove" {
			if err := h.Remove(ctx, console, "u"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLogins(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	h.user("admin", rest.Admin)
	h.user("kern", rest.Viewer)
	var open []Opened
	for i := range maxSessions + 3 {
		h.later(time.Minute)
		o, err := h.Login(ctx, "kern", good, "", From{Addr: netip.MustParseAddr("::ffff:192.0.2.7"), Agent: fmt.Sprint("Fire\nfox ", i) + strings.Repeat("x", 500)})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, o)
	}
	s, err := h.session(open[len(open)-1])
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.Logins(ctx, "kern", s.ID)
	if err != nil || len(list) != maxSessions || !list[0].Here || list[1].Here || list[0].From != "192.0.2.7" ||
		!strings.HasPrefix(list[0].With, "Fire fox 22x") || len(list[0].With) > maxAgent {
		t.Fatalf("%d, %+v, %v", len(list), list[0], err)
	}
	is(t, "end somebody else's", h.EndLogin(ctx, "admin", list[1].ID), ErrUnknown)
	if err := h.EndLogin(ctx, "kern", list[1].ID); err != nil {
		t.Fatal(err)
	}
	if err := h.EndOthers(ctx, "kern", s.ID); err != nil {
		t.Fatal(err)
	}
	if list, err = h.Logins(ctx, "kern", s.ID); err != nil || len(list) != 1 || !list[0].Here {
		t.Errorf("%+v %v", list, err)
	}
	if list, err := h.Logins(ctx, "admin", ""); err != nil || len(list) != 1 {
		t.Errorf("another's sessions ended: %+v %v", list, err)
	}
	if err := h.EndOthers(ctx, "kern", s.ID); err != nil {
		t.Error(err)
	}
}

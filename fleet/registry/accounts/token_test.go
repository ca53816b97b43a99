// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"strings"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

func rights(list ...rest.Right) rest.Rights {
	s, _ := rest.RightsOf(list...)
	return s
}

func TestTokens(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	admin, op := h.user("admin", rest.Admin), h.user("op", rest.Operator)
	secret, tok, err := h.MakeToken(ctx, op, rest.TokenSpec{Name: "line-4", Rights: rights(rest.BoardsRead, rest.CommandsSend), Boards: "site = hall-4"})
	if err != nil || tok.By != "op" || tok.Expires.Sub(h.at) != TokenLife {
		t.Fatalf("%+v %v", tok, err)
	}
	c, err := h.Token(ctx, secret)
	want := access.Caller{Tenant: DefaultTenant, Who: "token line-4", Author: "op", Rights: rights(rest.BoardsRead, rest.CommandsSend), Boards: "site = hall-4"}
	if err != nil || c != want {
		t.Fatalf("%+v %v", c, err)
	}
	_, _, err = h.MakeToken(ctx, op, rest.TokenSpec{Name: "x", Rights: rights(rest.UsersWrite)})
	is(t, "more than its maker has", err, access.ErrNotAllowed)
	_, _, err = h.MakeToken(ctx, op, rest.TokenSpec{Name: "line-4", Rights: rights(rest.BoardsRead)})
	is(t, "a name twice", err, ErrNameTaken)
	_, _, err = h.MakeToken(ctx, c, rest.TokenSpec{Name: "child", Rights: rights(rest.BoardsRead)})
	is(t, "a token's child", err, access.ErrNotAllowed)
	for what, bad := range map[string]rest.TokenSpec{
		"no rights": {Name: "x"}, "too long": {Name: "x", Rights: 1, Days: 400}, "before now": {Name: "x", Rights: 1, Days: -1},
		"two lines": {Name: "a\nb", Rights: 1}, "a long name": {Name: strings.Repeat("x", 65), Rights: 1}, "a long query": {Name: "x", Rights: 1, Boards: strings.Repeat("x", 1001)},
	} {
		if _, _, err := h.MakeToken(ctx, admin, bad); err == nil {
			t.Error(what, "is taken")
		}
	}
	// Who sees some boards gives no more than those away.
	some := admin
	some.Boards = "site = a or site = b"
	if _, child, err := h.MakeToken(ctx, some, rest.TokenSpec{Name: "some", Rights: 1, Boards: "site = c or x"}); err != nil || child.Boards != "(site = a or site = b) and (site = c or x)" {
		t.Errorf("%+v %v", child, err)
	}
	if _, child, err := h.MakeToken(ctx, some, rest.TokenSpec{Name: "all", Rights: 1}); err != nil || child.Boards != some.Boards {
		t.Errorf("%+v %v", child, err)
	}
	// Last used, at most once a minute.
	used := func() time.Time {
		list, err := h.Tokens(ctx, DefaultTenant)
		if err != nil || len(list) != 3 || list[1].Name != "line-4" {
			t.Fatalf("%+v %v", list, err)
		}
		return list[1].Used
	}
	first := used()
	h.later(30 * time.Second)
	_, _ = h.Token(ctx, secret)
	if !used().Equal(first) {
		t.Error("written twice in a minute")
	}
	h.later(time.Minute)
	_, _ = h.Token(ctx, secret)
	if !used().Equal(h.at) {
		t.Error("the last use is not kept")
	}
	is(t, "somebody else's", h.RevokeToken(ctx, access.Caller{Tenant: DefaultTenant, Who: "x", Author: "x", Rights: rest.Operator.Rights()}, tok.ID), access.ErrNotAllowed)
	if err := h.RevokeToken(ctx, op, tok.ID); err != nil {
		t.Fatal(err)
	}
	_, err = h.Token(ctx, secret)
	is(t, "revoked", err, ErrUnknown)
	if strings.Contains(strings.Join(h.log(), "\n"), secret) {
		t.Error("the secret is in the audit log")
	}
}

// TestTokenFollowsItsAuthor: what a token may do shrinks with its author's role, comes
// back with it, and ends with its author.
func TestTokenFollowsItsAuthor(t *testing.T) {
	t.Parallel()
	h := open(t)
	ctx := t.Context()
	h.user("admin", rest.Admin)
	rel := h.user("rel", rest.Releaser)
	secret, _, err := h.MakeToken(ctx, rel, rest.TokenSpec{Name: "ci", Rights: rights(rest.BoardsRead, rest.RolloutsWrite)})
	if err != nil {
		t.Fatal(err)
	}
	may := func(want rest.Rights) {
		t.Helper()
		if c, err := h.Token(ctx, secret); err != nil || c.Rights != want {
			t.Errorf("%v %v, wants %v", c.Rights, err, want)
		}
	}
	may(rights(rest.BoardsRead, rest.RolloutsWrite))
	if err := h.SetRole(ctx, console, "rel", rest.Operator); err != nil {
		t.Fatal(err)
	}
	may(rights(rest.BoardsRead))
	if list, err := h.Tokens(ctx, DefaultTenant); err != nil || list[0].Lost != rights(rest.RolloutsWrite) {
		t.Errorf("%+v %v", list, err)
	}
	if err := h.SetRole(ctx, console, "rel", rest.Admin); err != nil {
		t.Fatal(err)
	}
	may(rights(rest.BoardsRead, rest.RolloutsWrite)) // and no more
	if err := h.Disable(ctx, console, "rel", true); err != nil {
		t.Fatal(err)
	}
	_, err = h.Token(ctx, secret)
	is(t, "of a disabled author", err, ErrUnknown)
	if err := h.Disable(ctx, console, "rel", false); err != nil {
		t.Fatal(err)
	}
	may(rights(rest.BoardsRead, rest.RolloutsWrite))
	if err := h.Remove(ctx, console, "rel"); err != nil {
		t.Fatal(err)
	}
	_, err = h.Token(ctx, secret)
	is(t, "of a removed author", err, ErrUnknown)
	h.user("rel", rest.Releaser) // another person of the same name
	_, err = h.Token(ctx, secret)
	is(t, "of another one of that name", err, ErrUnknown)
}

func TestTokenEnds(t *testing.T) {
	t.Parallel()
	h := open(t)
	secret, _, err := h.MakeTokenFor(t.Context(), console, rest.TokenSpec{Rights: 1}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	h.later(time.Hour - time.Second)
	if _, err := h.Token(t.Context(), secret); err != nil {
		t.Error(err)
	}
	h.later(2 * time.Second)
	_, err = h.Token(t.Context(), secret)
	is(t, "past its end", err, ErrUnknown)
	if err := h.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := h.db.Read.QueryRow(`SELECT count(*) FROM api_token`).Scan(&n); n != 0 || err != nil {
		t.Error(n, err)
	}
}

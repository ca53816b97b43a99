// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/schema/rest"
)

// Bounds of what is said of a token.
const (
	maxTokenName = 64   // bytes
	maxLimit     = 1000 // bytes of a query
)

// MakeToken makes a token for a program, with at most the rights and the boards of who
// makes it. The secret is shown this once. A program makes tokens only if it may keep
// users: else a stolen one would have children.
func (a *Accounts) MakeToken(ctx context.Context, by access.Caller, spec rest.TokenSpec) (text string, t rest.Token, err error) {
	life := time.Duration(spec.Days) * 24 * time.Hour
	if spec.Days == 0 {
		life = TokenLife
	}
	return a.MakeTokenFor(ctx, by, spec, life)
}

// MakeTokenFor is MakeToken for any time; spec.Days is not looked at.
func (a *Accounts) MakeTokenFor(ctx context.Context, by access.Caller, spec rest.TokenSpec, life time.Duration) (text string, t rest.Token, err error) {
	if by.Who != by.Author && by.Author != Console {
		if err := by.May(rest.UsersWrite); err != nil {
			return "", t, err
		}
	}
	if !spec.Rights.Within(by.Rights) {
		return "", t, access.ErrNotAllowed
	}
	text = secret.NewToken()
	h := secret.Hash(text)
	if spec.Name == "" {
		spec.Name = secret.ID(h)[:8]
	}
	boards := spec.Boards
	if by.Boards != "" && boards != "" {
		boards = "(" + by.Boards + ") and (" + boards + ")"
	} else if by.Boards != "" {
		boards = by.Boards
	}
	switch {
	case spec.Rights == 0:
		return "", t, errors.New("a token without rights lets nobody in: give it at least one")
	case life <= 0 || life > maxTokenLife:
		return "", t, fmt.Errorf("token for %v: wants at most %v", life, maxTokenLife)
	case len(spec.Name) > maxTokenName || !utf8.ValidString(spec.Name) || strings.ContainsFunc(spec.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", t, fmt.Errorf("name of the token: wants at most %d bytes of one line", maxTokenName)
	case len(boards) > maxLimit || !utf8.ValidString(boards):
		return "", t, fmt.Errorf("boards of the token: wants a query of at most %d bytes", maxLimit)
	}
	now := a.now()
	t = rest.Token{ID: secret.ID(h), Name: spec.Name, By: by.Author, Rights: spec.Rights, Boards: boards, Made: now, Expires: now.Add(life)}
	return text, t, a.within(ctx, func(tx *sql.Tx) error { return a.keepToken(ctx, tx, by, h, &t) })
}

func (a *Accounts) keepToken(ctx context.Context, tx *sql.Tx, by access.Caller, hash []byte, t *rest.Token) error {
	now := t.Made.UnixMilli()
	if _, err := tx.ExecContext(ctx, `DELETE FROM api_token WHERE expires < ?`, now); err != nil {
		return fmt.Errorf("prune API tokens: %w", err)
	}
	var all, own, same int
	err := tx.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN author = ? THEN 1 END), count(CASE WHEN tenant = ? AND name = ? THEN 1 END) FROM api_token`,
		t.By, by.Tenant, t.Name).Scan(&all, &own, &same)
	switch {
	case err != nil:
		return fmt.Errorf("count API tokens: %w", err)
	case same > 0:
		return ErrNameTaken
	case all >= maxTokens || t.By != Console && own >= maxByOne:
		return fmt.Errorf("%w: there are %d API tokens, %d of them made by %s: revoke some", ErrTooMany, all, own, t.By)
	}
	rights, err := json.Marshal(t.Rights)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO api_token (hash, tenant, scope, expires, name, author, rights, boards, made) VALUES (?, ?, '', ?, ?, ?, ?, ?, ?)`,
		hash, by.Tenant, t.Expires.UnixMilli(), t.Name, t.By, string(rights), t.Boards, now)
	if err != nil {
		return fmt.Errorf("keep API token: %w", err)
	}
	why := fmt.Sprintf("token %s, good until %s, may %s", t.Name, t.Expires.UTC().Format(time.RFC3339), t.Rights)
	if t.Boards != "" {
		why += ", only for " + t.Boards
	}
	return note(ctx, tx, by, "api-token", why)
}

// RevokeToken ends a token by its ID: one's own, or anybody's for who keeps users.
func (a *Accounts) RevokeToken(ctx context.Context, by access.Caller, id string) error {
	return a.within(ctx, func(tx *sql.Tx) error {
		var name, author string
		err := tx.QueryRowContext(ctx, `SELECT name, author FROM api_token WHERE tenant = ? AND lower(hex(substr(hash, 1, 8))) = ?`, by.Tenant, id).Scan(&name, &author)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrUnknown
		}
		if err != nil {
			return fmt.Errorf("look up API token: %w", err)
		}
		if author != by.Author && !by.Rights.Has(rest.UsersWrite) {
			return access.ErrNotAllowed
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM api_token WHERE tenant = ? AND name = ?`, by.Tenant, name)
		if err != nil {
			return fmt.Errorf("revoke API token: %w", err)
		}
		return note(ctx, tx, by, "token-revoke", "token "+name+" of "+author)
	})
}

const tokenColumns = `k.hash, k.tenant, k.name, k.author, k.rights, k.boards, k.made, k.expires, k.used, u.role, coalesce(u.disabled, 0)
FROM api_token k LEFT JOIN user u ON u.name = k.author AND u.tenant = k.tenant`

// kept is a token as it is kept, with its author as they are now.
type kept struct {
	rest.Token
	hash   []byte
	tenant string
	used   int64
	dead   bool // its author is gone or disabled
}

func scanToken(row func(...any) error) (k kept, err error) {
	var rights string
	var made, expires int64
	var role sql.NullString
	var disabled bool
	if err := row(&k.hash, &k.tenant, &k.Name, &k.By, &rights, &k.Boards, &made, &expires, &k.used, &role, &disabled); err != nil {
		return k, err
	}
	k.ID, k.Made, k.Expires, k.Used = secret.ID(k.hash), fromMs(made), fromMs(expires), fromMs(k.used)
	var given rest.Rights
	if err := json.Unmarshal([]byte(rights), &given); err != nil {
		return k, fmt.Errorf("rights of token %s: %w", k.Name, err)
	}
	now := given
	if k.By != Console {
		k.dead = !role.Valid || disabled
		now &= rest.Role(role.String).Rights() // as far as its author's go today
	}
	if k.dead {
		now = 0
	}
	k.Rights, k.Lost = now, given&^now
	return k, nil
}

// Tokens lists the tokens of a tenant that have not ended, by name. Rights are those
// that they have now.
func (a *Accounts) Tokens(ctx context.Context, tenant string) ([]rest.Token, error) {
	rows, err := a.db.Read.QueryContext(ctx, `SELECT `+tokenColumns+` WHERE k.tenant = ? AND k.expires > ? ORDER BY k.name`, tenant, a.now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("list API tokens: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.Token{}
	for rows.Next() {
		k, err := scanToken(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("list API tokens: %w", err)
		}
		out = append(out, k.Token)
	}
	return out, rows.Err()
}

// Token tells who a token lets in, and what they may do now.
func (a *Accounts) Token(ctx context.Context, text string) (access.Caller, error) {
	if !secret.WellFormed(text) {
		return access.Caller{}, ErrUnknown
	}
	now := a.now().UnixMilli()
	k, err := scanToken(a.db.Read.QueryRowContext(ctx, `SELECT `+tokenColumns+` WHERE k.hash = ? AND k.expires > ?`, secret.Hash(text), now).Scan)
	if errors.Is(err, sql.ErrNoRows) || err == nil && k.dead {
		return access.Caller{}, ErrUnknown
	}
	if err != nil {
		return access.Caller{}, fmt.Errorf("look up API token: %w", err)
	}
	if now-k.used > touch.Milliseconds() {
		if _, err := a.db.Write.ExecContext(ctx, `UPDATE api_token SET used = ? WHERE hash = ?`, now, k.hash); err != nil {
			return access.Caller{}, fmt.Errorf("touch API token: %w", err)
		}
	}
	return access.Caller{Tenant: k.tenant, Who: "token " + k.Name, Author: k.By, Rights: k.Rights, Boards: k.Boards}, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"database/sql"
	"fmt"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/query"
	"fulmar/schema/rest"
)

// Queries lists a tenant's saved queries, by name.
func (t *Metas) Queries(ctx context.Context, tenant string) ([]rest.SavedQuery, error) {
	rows, err := t.db.Read.QueryContext(ctx, `SELECT name, query FROM saved_query WHERE tenant = ? ORDER BY name`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list saved queries: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.SavedQuery{}
	for rows.Next() {
		var q rest.SavedQuery
		if err := rows.Scan(&q.Name, &q.Query); err != nil {
			return nil, fmt.Errorf("list saved queries: %w", err)
		}
		out = append(out, q)
	}
	return out, rows.Err()
}

// SaveQuery keeps a query under a name, in its canonical form. The error of a wrong one
// is a [*query.Error] inside an ErrInvalid.
func (t *Metas) SaveQuery(ctx context.Context, by access.Caller, q rest.SavedQuery) (rest.SavedQuery, error) {
	parsed, err := query.Parse(q.Query)
	if err != nil {
		return q, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := words("name", q.Name, maxSite); err != nil {
		return q, err
	}
	if q.Name == "" {
		return q, invalid("name", "is wanted")
	}
	q.Query = parsed.String()
	return q, t.queries(ctx, by, "save-query", q.Name+": "+q.Query, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM saved_query WHERE tenant = ? AND name != ?`, by.Tenant, q.Name).Scan(&n); err != nil {
			return err
		}
		if n >= maxQueries {
			return fmt.Errorf("%w: %d queries are saved", ErrTooMany, n)
		}
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO saved_query (tenant, name, query) VALUES (?, ?, ?)`, by.Tenant, q.Name, q.Query)
		return err
	})
}

// RemoveQuery forgets a saved query.
func (t *Metas) RemoveQuery(ctx context.Context, by access.Caller, name string) error {
	return t.queries(ctx, by, "remove-query", name, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM saved_query WHERE tenant = ? AND name = ?`, by.Tenant, name)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return ErrUnknown
		}
		return nil
	})
}

func (t *Metas) queries(ctx context.Context, by access.Caller, what, why string, fn func(*sql.Tx) error) error {
	if err := by.May(rest.BoardsWrite); err != nil {
		return fmt.Errorf("%s: %w: wants the right %s", what, err, rest.BoardsWrite)
	}
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: what, Why: why}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

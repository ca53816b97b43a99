// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// CopyFile writes a copy of a database file, as of one moment, to a path where nothing
// is. The file may be in use by a server: its writers do not wait. The log grows by what
// they write meanwhile.
func CopyFile(ctx context.Context, from, to string) error {
	db, err := sql.Open("sqlite", dsn(from, "ro", false))
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	db.SetMaxOpenConns(1)
	// SQLite counts the copy as writing, though the file itself is opened read-only.
	_, err = db.ExecContext(ctx, "PRAGMA query_only = 0")
	if err == nil {
		_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

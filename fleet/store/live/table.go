// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"database/sql"
	"errors"
	"fmt"
)

// DB is one transaction of the ledger.
type DB interface {
	Exec(q string, args ...any) error
	Row(q string, args []any, dst ...any) error
}

// Read gives what is written of a board's values. Newest values that cannot be read are
// left out: they come again by themselves.
func Read(db DB, board int64) (v Values, err error) {
	var latest []byte
	err = db.Row(`SELECT last_seen, period, latest FROM board_live WHERE board = ?`, []any{board}, &v.LastSeen, &v.Period, &latest)
	if errors.Is(err, sql.ErrNoRows) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("read newest values: %w", err)
	}
	_ = v.Parse(latest)
	return v, nil
}

// Write writes a board's values.
func Write(db DB, board int64, v *Values) error {
	latest, err := v.Encode()
	if err == nil {
		err = db.Exec(`INSERT INTO board_live (board, last_seen, period, latest) VALUES (?, ?, ?, ?)
ON CONFLICT (board) DO UPDATE SET last_seen = excluded.last_seen, period = excluded.period, latest = excluded.latest`, board, v.LastSeen, v.Period, latest)
	}
	if err != nil {
		return fmt.Errorf("write newest values: %w", err)
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rolls counts the changes of what the registry knows of boards, so that a reader
// of all of it (10,000 boards take a tenth of a second) reads again only when there is
// something new. The database counts, so changes by the command line count too; sessions,
// tokens and the like do not.
package rolls

import (
	"context"
	"database/sql"
	"fmt"
)

// Schema is the registry's step for it; [On] has a table counted.
const Schema = `
CREATE TABLE roll (one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER NOT NULL);
INSERT INTO roll VALUES (1, 1);
`

// On gives the statements that have each change of a table counted; they belong to the step
// that makes the table, or to a later one.
func On(table string) string {
	s := ""
	for _, what := range []string{"INSERT", "UPDATE", "DELETE"} {
		s += fmt.Sprintf("CREATE TRIGGER roll_%s_%s AFTER %s ON %s BEGIN UPDATE roll SET n = n + 1; END;\n", table, what, what, table)
	}
	return s
}

// Count gives a number that changes with each change.
func Count(ctx context.Context, read *sql.DB) (n int64, err error) {
	if err := read.QueryRowContext(ctx, `SELECT n FROM roll`).Scan(&n); err != nil {
		return 0, fmt.Errorf("look for changes of the registry: %w", err)
	}
	return n, nil
}

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

// Schema is the registry's step for it: boards, their proofs, their
// requests and what people say of them count.
const Schema = `
CREATE TABLE roll (one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER NOT NULL);
INSERT INTO roll VALUES (1, 1);
CREATE TRIGGER roll_board_insert AFTER INSERT ON board BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_board_update AFTER UPDATE ON board BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_board_delete AFTER DELETE ON board BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_proof_insert AFTER INSERT ON proof BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_proof_update AFTER UPDATE ON proof BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_proof_delete AFTER DELETE ON proof BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_request_insert AFTER INSERT ON request BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_request_update AFTER UPDATE ON request BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_request_delete AFTER DELETE ON request BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_meta_insert AFTER INSERT ON meta BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_meta_update AFTER UPDATE ON meta BEGIN UPDATE roll SET n = n + 1; END;
CREATE TRIGGER roll_meta_delete AFTER DELETE ON meta BEGIN UPDATE roll SET n = n + 1; END;
`

// Count gives a number that changes with each change.
func Count(ctx context.Context, read *sql.DB) (n int64, err error) {
	if err := read.QueryRowContext(ctx, `SELECT n FROM roll`).Scan(&n); err != nil {
		return 0, fmt.Errorf("look for changes of the registry: %w", err)
	}
	return n, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

// ledgerMigrations are the steps of the ledger's schema, oldest first. A step
// that has been released is never changed.
//
// Times are milliseconds since 1970. Epochs and boots are uint64 kept as the
// int64 of the same bits.
func ledgerMigrations() []string { return []string{ledgerFirst, ledgerSecond, ledgerThird} }

const ledgerFirst = `
CREATE TABLE board (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL,
  last_seen INTEGER NOT NULL DEFAULT 0, online INTEGER NOT NULL DEFAULT 0,
  boot INTEGER NOT NULL DEFAULT 0, conn INTEGER NOT NULL DEFAULT 0,
  online_since INTEGER NOT NULL DEFAULT 0,
  release TEXT NOT NULL DEFAULT '', facts TEXT NOT NULL DEFAULT '{}',
  latest BLOB, -- CBOR map of series name to Reading
  period INTEGER NOT NULL DEFAULT 0, -- smoothed time between messages, ms
  picture_bytes INTEGER NOT NULL DEFAULT 0,
  UNIQUE (tenant, name)
);
-- One row for each (board, class, epoch): the deduplicator's memory. floor is the
-- high-water mark; spans are arrived, gaps lost ranges above it (varint pairs).
CREATE TABLE stream (
  board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE,
  class INTEGER NOT NULL, epoch INTEGER NOT NULL,
  heard INTEGER NOT NULL, floor INTEGER NOT NULL, spans BLOB NOT NULL, gaps BLOB NOT NULL,
  arrived INTEGER NOT NULL, lost INTEGER NOT NULL, closed INTEGER NOT NULL,
  dups INTEGER NOT NULL, touched INTEGER NOT NULL,
  PRIMARY KEY (board, class, epoch)
) WITHOUT ROWID;
-- Sums of epochs too old to be kept one by one.
CREATE TABLE stream_past (
  board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE, class INTEGER NOT NULL,
  epochs INTEGER NOT NULL, heard INTEGER NOT NULL, arrived INTEGER NOT NULL, lost INTEGER NOT NULL, dups INTEGER NOT NULL,
  PRIMARY KEY (board, class)
) WITHOUT ROWID;
CREATE TABLE gap (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE,
  class INTEGER NOT NULL, epoch INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  reason INTEGER NOT NULL, from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL, at INTEGER NOT NULL,
  count INTEGER NOT NULL -- numbers lost by it: neither arrived nor in an older gap
);
CREATE INDEX gap_board ON gap(board, id);
CREATE TABLE telemetry (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL, at INTEGER NOT NULL, arrived INTEGER NOT NULL,
  payload BLOB NOT NULL -- CBOR schema.Samples
);
CREATE INDEX telemetry_board ON telemetry(board, at);
CREATE TABLE event (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL, class INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
  at INTEGER NOT NULL, arrived INTEGER NOT NULL, replayed INTEGER NOT NULL,
  source TEXT NOT NULL, model TEXT NOT NULL, engine TEXT NOT NULL, snapshot TEXT NOT NULL,
  boxes INTEGER NOT NULL, known INTEGER NOT NULL, n_true INTEGER NOT NULL, n_false INTEGER NOT NULL, n_missed INTEGER NOT NULL,
  payload BLOB NOT NULL -- CBOR schema.Event
);
CREATE INDEX event_board ON event(board, at, id);
CREATE INDEX event_at ON event(at, id);
CREATE INDEX event_seq ON event(board, class, epoch, seq);
CREATE TABLE snapshot (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL,
  media TEXT NOT NULL, source TEXT NOT NULL, frame INTEGER NOT NULL, at INTEGER NOT NULL, arrived INTEGER NOT NULL,
  has INTEGER NOT NULL,
  UNIQUE (board, name)
);
CREATE TABLE report (
  board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE, subject TEXT NOT NULL,
  state TEXT NOT NULL, severity INTEGER NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL, arrived INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (board, subject)
) WITHOUT ROWID;
CREATE TABLE camera (
  board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE, name TEXT NOT NULL,
  model TEXT NOT NULL, engine TEXT NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (board, name)
) WITHOUT ROWID;
-- Messages of enrolled boards that can never be understood.
CREATE TABLE refused (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, board TEXT NOT NULL, topic TEXT NOT NULL,
  reason TEXT NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL
);
-- What the pruned tables hold, kept in step with them.
CREATE TABLE usage (kind TEXT PRIMARY KEY, bytes INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
`

// ledgerSecond: how well a moment is known and what of it may be placed anew,
// rollups of telemetry, and epochs that are summed up but not forgotten.
//
// boot and mono (ms) are the board's own time of a row; timed is a clocks.Grade;
// open rows wait for a better anchor and are not in the rollups yet.
const ledgerSecond = `
ALTER TABLE telemetry ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE telemetry ADD COLUMN mono INTEGER NOT NULL DEFAULT 0;
ALTER TABLE telemetry ADD COLUMN timed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE telemetry ADD COLUMN open INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN mono INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN timed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN open INTEGER NOT NULL DEFAULT 0;
CREATE INDEX telemetry_open ON telemetry(board, boot, id) WHERE open = 1;
CREATE INDEX event_open ON event(board, boot, id) WHERE open = 1;
-- What is known of each board's boots: CBOR clocks.Board.
CREATE TABLE clocks (board INTEGER PRIMARY KEY REFERENCES board(id) ON DELETE CASCADE, state BLOB NOT NULL);
-- Boots with open rows. moved: their rows are to be placed anew, from the rows
-- after t_after and e_after on; heard is when the last one came.
CREATE TABLE retime (
  board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE, boot INTEGER NOT NULL,
  heard INTEGER NOT NULL, moved INTEGER NOT NULL, t_after INTEGER NOT NULL, e_after INTEGER NOT NULL,
  PRIMARY KEY (board, boot)
) WITHOUT ROWID;
CREATE TABLE anchor (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE,
  boot INTEGER NOT NULL, mono INTEGER NOT NULL, old INTEGER NOT NULL, new INTEGER NOT NULL,
  synced INTEGER NOT NULL, start INTEGER NOT NULL, at INTEGER NOT NULL, arrived INTEGER NOT NULL
);
CREATE INDEX anchor_board ON anchor(board, id);
-- When the last number below which all are settled arrived was made, 0 unknown:
-- what is waited for is not older.
ALTER TABLE stream ADD COLUMN floor_at INTEGER NOT NULL DEFAULT 0;
-- What was lost by reason, as long as its gaps can be told; a number that returns
-- is taken out.
CREATE TABLE loss (
  board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE, class INTEGER NOT NULL, reason INTEGER NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (board, class, reason)
) WITHOUT ROWID;
INSERT INTO loss SELECT board, class, reason, sum(count) FROM gap GROUP BY board, class, reason;
-- The newest of the epochs in stream_past one by one, to be taken out of the sums
-- again should a word of them come. Where their ranges are long they are left out:
-- all numbers are settled then, floor is heard.
CREATE TABLE stream_folded (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE,
  class INTEGER NOT NULL, epoch INTEGER NOT NULL,
  heard INTEGER NOT NULL, floor INTEGER NOT NULL, spans BLOB NOT NULL, gaps BLOB NOT NULL,
  arrived INTEGER NOT NULL, closed INTEGER NOT NULL, dups INTEGER NOT NULL,
  UNIQUE (board, class, epoch)
);
-- The series that have rollups.
CREATE TABLE series (
  id INTEGER PRIMARY KEY, board INTEGER NOT NULL REFERENCES board(id) ON DELETE CASCADE, name TEXT NOT NULL,
  UNIQUE (board, name)
);
-- What happened to a series in a minute (level 0) or an hour (level 1) that begins
-- at t: count and sum of readings, and apart from them of summaries that boards
-- made (sn, ssum); lowest and highest of both. An hour's are all in n and sum.
CREATE TABLE rollup (
  board INTEGER NOT NULL, level INTEGER NOT NULL, series INTEGER NOT NULL, t INTEGER NOT NULL,
  n INTEGER NOT NULL, sum REAL NOT NULL, lo REAL NOT NULL, hi REAL NOT NULL, sn INTEGER NOT NULL, ssum REAL NOT NULL,
  touched INTEGER NOT NULL,
  PRIMARY KEY (board, level, series, t)
) WITHOUT ROWID;
-- How far background work has come: 'rollup' is the last row of telemetry in it.
CREATE TABLE progress (what TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO progress VALUES ('rollup', 0);
`

// ledgerThird: what changes with nearly each message apart from what hardly does. These
// rows are written at a pace of their own, not with the messages; see package live.
const ledgerThird = `
CREATE TABLE board_live (
  board INTEGER PRIMARY KEY REFERENCES board(id) ON DELETE CASCADE,
  last_seen INTEGER NOT NULL, period INTEGER NOT NULL, -- smoothed time between messages, ms
  latest BLOB NOT NULL -- CBOR map of series name to live.Reading
);
INSERT INTO board_live SELECT id, last_seen, period, coalesce(latest, x'a0') FROM board;
ALTER TABLE board DROP COLUMN last_seen;
ALTER TABLE board DROP COLUMN period;
ALTER TABLE board DROP COLUMN latest;
`

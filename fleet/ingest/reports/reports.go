// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package reports keeps the newest word about each subject of a board: the board's
// own, and the fleet's about what it cannot read of it; and the proof of that.
package reports

import (
	"fmt"

	"fulmar/fleet/store"
	"fulmar/schema"
)

const (
	maxReports = 256  // subjects of one board
	maxRefused = 1000 // rows kept of what was refused
	maxTopic   = 256  // bytes kept of a topic
)

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
}

// Put keeps a report made at a moment. The newest word of a subject stands; since is
// when its state began.
func Put(db DB, board int64, r *schema.Report, at, now int64) error {
	err := db.Exec(`INSERT INTO report (board, subject, state, severity, text, at, arrived, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6)
ON CONFLICT (board, subject) DO UPDATE SET
  since = CASE WHEN state = excluded.state AND severity = excluded.severity THEN since ELSE excluded.at END,
  state = excluded.state, severity = excluded.severity, text = excluded.text, at = excluded.at, arrived = excluded.arrived
WHERE excluded.at >= at`, board, r.Subject, r.State, min(r.Severity, schema.SeverityAlarm), r.Text, at, now)
	if err != nil {
		return err
	}
	return db.Exec(`DELETE FROM report WHERE board = ?1 AND subject NOT IN (SELECT subject FROM report WHERE board = ?1 ORDER BY at DESC LIMIT ?2)`,
		board, maxReports)
}

// Newer says that a board speaks a wire version above this program's.
func Newer(db DB, board int64, name string, version uint8, now int64) error {
	return word(db, board, now, schema.Report{Subject: store.SubjectVersion, State: "newer", Severity: schema.SeverityAlarm, Text: fmt.Sprintf(
		"board %s speaks wire version %d and this fleet reads up to %d: nothing of it is taken and its records stay on the board; update fulmar-fleet, then they come by themselves",
		name, version, schema.Version)})
}

// Unreadable says that records of a board came and are lost, as they cannot be read.
func Unreadable(db DB, board int64, name string, c schema.Class, first, last uint64, why error, now int64) error {
	return word(db, board, now, schema.Report{Subject: store.SubjectUnreadable, State: "lost", Severity: schema.SeverityWarn, Text: fmt.Sprintf(
		"records %d to %d of class %s of board %s came and could not be read, they are lost; if the board is the newer one, update fulmar-fleet: %s",
		first, last, c, name, why)})
}

// Unknown says that a message came of which not even the numbers can be read.
func Unknown(db DB, board int64, name string, size int, why error, now int64) error {
	return word(db, board, now, schema.Report{Subject: store.SubjectUnreadable, State: "unknown", Severity: schema.SeverityWarn, Text: fmt.Sprintf(
		"a message of %d bytes of board %s could not be read, nor which records were in it; if the board is the newer one, update fulmar-fleet: %s",
		size, name, why)})
}

func word(db DB, board, now int64, r schema.Report) error {
	r.Text = clip(r.Text, schema.MaxText)
	return Put(db, board, &r, now, now)
}

// Understood takes the fleet's own words about a board back: a new connection that can
// be read begins without them.
func Understood(db DB, board, now int64) error {
	return db.Exec(`UPDATE report SET state = 'ok', severity = 0, text = 'the fleet reads what the board says', since = ?1, at = ?1, arrived = ?1
WHERE board = ?2 AND subject IN (?3, ?4) AND severity > 0`, now, board, store.SubjectVersion, store.SubjectUnreadable)
}

// Refused keeps the proof that something could not be understood.
func Refused(db DB, tenant, board, topic string, size int, why error, now int64) error {
	err := db.Exec(`INSERT INTO refused (tenant, board, topic, reason, size, at) VALUES (?, ?, ?, ?, ?, ?)`,
		tenant, board, clip(topic, maxTopic), clip(why.Error(), schema.MaxText), size, now)
	if err != nil {
		return fmt.Errorf("note what was refused: %w", err)
	}
	return db.Exec(`DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?`, maxRefused)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

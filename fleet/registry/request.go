// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
)

// Reason is why a board waits for a person.
type Reason string

// The reasons: of a new board, of an enrolled one that is not as it was, and of a TPM
// or key that is enrolled under another name.
const (
	ReasonNew        Reason = "new"
	ReasonAK         Reason = "ak"          // same EK, other AK
	ReasonEK         Reason = "ek"          // other EK
	ReasonKey        Reason = "key"         // other key, no TPM
	ReasonToSoftware Reason = "to-software" // had a TPM
	ReasonToTPM      Reason = "to-tpm"      // had none
	ReasonElsewhere  Reason = "elsewhere"
)

// say is the reason as a sentence; other is the board of ReasonElsewhere.
func (r Reason) say(other string) string {
	switch r {
	case ReasonNew:
		return "A new board asks to join."
	case ReasonAK:
		return "The same TPM with new keys: its TPM was cleared or its disk is new."
	case ReasonEK:
		return "Another TPM: the board or its TPM was swapped, or another board uses this name."
	case ReasonKey:
		return "Another key: its disk is new, or another board uses this name. It has no TPM, so nothing tells which."
	case ReasonToSoftware:
		return "It was enrolled with a TPM and now has a key in a file: the TPM is off or gone, or another board uses this name."
	case ReasonToTPM:
		return "It was enrolled with a key in a file and now has a TPM, or another board uses this name."
	case ReasonElsewhere:
		return "Its TPM or key is that of board " + other + ": one of the two names is wrong, or a disk was copied. Forget " + other + " first if this is to be its new name."
	}
	return "It asks to join."
}

// A person's decisions.
const (
	decisionApproved = "approved"
	decisionRefused  = "refused"
)

// Request is a board that asks to join and waits for a person.
type Request struct {
	ID      int64
	Tenant  string
	Board   string // the name it wants
	KeyMode string
	KeyHash []byte
	EKHash  []byte // empty without a TPM
	Trust   string // what it would have: a schema.Trust constant
	// The board's own words, as in Board.
	TPMKind, TPMMaker, TPMFirmware string
	EKNote                         string // what the fleet found of its maker's certificate, a sentence
	Facts                          map[string]string
	Why                            Reason
	Other                          string // the board that has its TPM or key already
	Say                            string // Why as a sentence
	From                           string // address it asks from
	First, Last                    time.Time
	Asked                          int // times
	// Decision is "", "approved" (it has not come back yet) or "refused".
	Decision  string
	DecidedBy string
	DecidedAt time.Time
}

// Fingerprint is what a person compares with the board's own word; see [Board.Fingerprint].
func (q *Request) Fingerprint() string { return fingerprint(q.EKHash, q.KeyHash) }

// keepRequest notes that a board asks, in the place of what it asked before.
func keepRequest(ctx context.Context, tx *sql.Tx, tenant string, e *Enrolment, s standing) (*Waiting, error) {
	why := ReasonNew
	switch {
	case s.other != "":
		why = ReasonElsewhere
	case s.known:
		why = s.change
	}
	facts, err := json.Marshal(e.Facts)
	if err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	now := nowMs()
	if _, err := tx.ExecContext(ctx, `DELETE FROM request WHERE max(last, decided_at) < ?`, now-requestLife.Milliseconds()); err != nil {
		return nil, fmt.Errorf("prune requests: %w", err)
	}
	w := &Waiting{Say: why.say(s.other)}
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM request`).Scan(&w.Among); err != nil {
		return nil, fmt.Errorf("count requests: %w", err)
	}
	var tpm TPM
	if e.TPM != nil {
		tpm = *e.TPM
	}
	ek, ak := e.ids()
	err = tx.QueryRowContext(ctx, `UPDATE request SET last = ?, asked = asked + 1, remote = ?, why = ?, other = ?, facts = ?, trust = ?, ek_note = ?
WHERE tenant = ? AND board = ? AND key_hash = ? AND ek_hash = ? AND ak = ? RETURNING id`,
		now, e.From, string(why), s.other, string(facts), e.Trust, tpm.Note, tenant, e.Board, e.KeyHash[:], ek, ak).Scan(&w.ID)
	if err == nil {
		return w, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("keep request: %w", err)
	}
	if w.Among >= maxRequests {
		return nil, fmt.Errorf("%w: %d boards wait for a person", ErrTooMany, w.Among)
	}
	var here int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM request WHERE remote = ?`, e.From).Scan(&here); err != nil {
		return nil, fmt.Errorf("count requests: %w", err)
	}
	if here >= maxFrom {
		return nil, fmt.Errorf("%w: %d boards of one address wait for a person", ErrTooMany, here)
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO request (tenant, board, key_mode, key_hash, ek_hash, ak, trust, tpm_kind, tpm_maker, tpm_firmware, ek_note, facts, why, other, remote, first, last, asked)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1) RETURNING id`,
		tenant, e.Board, e.KeyMode, e.KeyHash[:], ek, ak, e.Trust, tpm.Kind, tpm.Maker, tpm.Firmware, tpm.Note, string(facts), string(why), s.other, e.From, now, now).Scan(&w.ID)
	if err != nil {
		return nil, fmt.Errorf("keep request: %w", err)
	}
	return w, audit.Append(ctx, tx, audit.Entry{
		Who: "board " + e.Board, Tenant: tenant, Board: e.Board, What: "ask",
		Why: fmt.Sprintf("%s From %s, trust %s, fingerprint %s", w.Say, e.From, e.Trust, fingerprint(ek, e.KeyHash[:])),
	})
}

// Pending lists the boards that wait for a person, those decided and not back yet too,
// oldest first.
func (r *Registry) Pending(ctx context.Context, tenant string) ([]Request, error) {
	rows, err := r.db.Read.QueryContext(ctx, `SELECT id, board, key_mode, key_hash, ek_hash, trust, tpm_kind, tpm_maker, tpm_firmware, ek_note, facts, why, other, remote, first, last, asked, decision, decided_by, decided_at
FROM request WHERE tenant = ? AND max(last, decided_at) >= ? ORDER BY first, id`, tenant, nowMs()-requestLife.Milliseconds())
	if err != nil {
		return nil, fmt.Errorf("list requests: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []Request
	for rows.Next() {
		q := Request{Tenant: tenant}
		var facts string
		var first, last, decided int64
		err := rows.Scan(&q.ID, &q.Board, &q.KeyMode, &q.KeyHash, &q.EKHash, &q.Trust, &q.TPMKind, &q.TPMMaker, &q.TPMFirmware, &q.EKNote, &facts,
			&q.Why, &q.Other, &q.From, &first, &last, &q.Asked, &q.Decision, &q.DecidedBy, &decided)
		if err != nil {
			return nil, fmt.Errorf("list requests: %w", err)
		}
		if err := json.Unmarshal([]byte(facts), &q.Facts); err != nil {
			return nil, fmt.Errorf("list requests: facts of %s: %w", q.Board, err)
		}
		q.Say, q.First, q.Last = q.Why.say(q.Other), time.UnixMilli(first), time.UnixMilli(last)
		if decided != 0 {
			q.DecidedAt = time.UnixMilli(decided)
		}
		out = append(out, q)
	}
	return out, rows.Err()
}

// Approve lets the board of a request in, with exactly the TPM and keys that it asked
// with, when it asks again within a day. ErrElsewhere where its TPM or key is another
// board's: that one has to be forgotten first.
func (r *Registry) Approve(ctx context.Context, tenant string, id int64, who string) error {
	return r.settle(ctx, tenant, id, who, decisionApproved, "approve")
}

// Refuse turns a request down; the board is told so whenever it asks again.
func (r *Registry) Refuse(ctx context.Context, tenant string, id int64, who string) error {
	return r.settle(ctx, tenant, id, who, decisionRefused, "refuse")
}

func (r *Registry) settle(ctx context.Context, tenant string, id int64, who, decision, what string) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		var q Request
		err := tx.QueryRowContext(ctx, `SELECT board, key_hash, ek_hash, trust, why, other FROM request WHERE tenant = ? AND id = ?`, tenant, id).
			Scan(&q.Board, &q.KeyHash, &q.EKHash, &q.Trust, &q.Why, &q.Other)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrUnknown
		}
		if err != nil {
			return fmt.Errorf("look up request: %w", err)
		}
		if q.Why == ReasonElsewhere && decision == decisionApproved {
			return fmt.Errorf("%w: forget %s first, then the board may ask again", ErrElsewhere, q.Other)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE request SET decision = ?, decided_by = ?, decided_at = ? WHERE id = ?`, decision, who, nowMs(), id); err != nil {
			return fmt.Errorf("%s request: %w", what, err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Who: who, Tenant: tenant, Board: q.Board, What: what,
			Why: fmt.Sprintf("%s Trust %s, fingerprint %s", q.Why.say(q.Other), q.Trust, q.Fingerprint()),
		})
	})
}

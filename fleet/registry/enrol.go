// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry/proofs"
	"fulmar/schema"
)

// TPM is what a board has proven of its TPM.
type TPM struct {
	EKHash [32]byte // SHA-256 of the endorsement key's public area
	AK     []byte   // public area of the attestation key that lives beside it
	// The board's own words.
	Kind, Maker, Firmware string
	Note                  string // what was found of its maker's certificate, a sentence
}

// Enrolment is what a board asks for, and what may let it in beside a token.
type Enrolment struct {
	Secret  string // of the join token; "" for none
	Board   string
	KeyMode string
	Facts   map[string]string
	KeyHash [32]byte // of the key in its request, which it has proven to hold
	TPM     *TPM     // nil in mode software
	Trust   string   // a schema.Trust constant; "" is software
	From    string   // where it asks from, for the person who decides
	// Listed: its EK is on the fleet's list for this name. Chained: a maker the fleet
	// trusts signed it. Each only where the fleet lets boards in by it.
	Listed, Chained bool
	// Ask: a person may be asked.
	Ask bool
}

// Waiting is the error of an enrolment that a person has to decide.
type Waiting struct {
	ID    int64 // of the Request
	Say   string
	Among int // how many wait
}

func (w *Waiting) Error() string { return "waits for a person: " + w.Say }

// token is what is known of the join token a board came with.
type token int

const (
	tokenNone token = iota
	tokenBad        // unknown, expired, used up, or of another board
	tokenGood       // for any new board
	tokenOwn        // for this very board
)

// standing is what the registry knows of a board that asks.
type standing struct {
	token    token
	known    bool // its name is enrolled
	revoked  bool // as that, or as the board in other
	same     bool // with this TPM (EK and AK), or this key where there is none
	change   Reason
	other    string // another board with this TPM or key
	decision string // a person's, of exactly this request
}

// What lets a board in, as the audit log has it.
const (
	byOwnToken = "a token for this board"
	bySame     = "its TPM or key, which are the enrolled ones"
	byToken    = "a token"
	byList     = "the list of endorsement keys"
	byMaker    = "its maker's certificate"
	byPerson   = "a person's approval"
)

// decide tells what lets a board in, or why it is not. The order is that of ADR 0024.
func decide(e *Enrolment, s standing) (by string, err error) {
	switch {
	case s.revoked && (s.other != "" || s.token != tokenOwn):
		return "", ErrRevoked
	case s.other != "":
		return "", ask(e, s, ErrElsewhere)
	case s.token == tokenOwn:
		return byOwnToken, nil
	case s.known && s.same:
		return bySame, nil
	case s.token == tokenGood && !s.known:
		return byToken, nil
	case s.decision == decisionRefused:
		return "", ErrRefused
	case e.Listed && !s.known:
		return byList, nil
	case e.Chained && !s.known:
		return byMaker, nil
	case s.decision == decisionApproved && e.Ask:
		return byPerson, nil
	case s.known && s.token == tokenBad: // its old token, in a board that has changed
		return "", ask(e, s, ErrUnknown)
	case s.known:
		return "", ask(e, s, ErrNameTaken)
	case s.token == tokenBad:
		return "", ErrUnknown // who was given a token gets told that it is none, or no longer
	}
	return "", ask(e, s, ErrUnknown)
}

// errAsk: the request is to be kept for a person.
var errAsk = errors.New("ask a person")

func ask(e *Enrolment, s standing, otherwise error) error {
	switch {
	case !e.Ask:
		return otherwise
	case s.decision == decisionRefused:
		return ErrRefused
	}
	return errAsk
}

// Enrol lets a board in, if its token, its TPM or a person says so: sign is called
// then, and its certificate is kept in the same transaction that uses a token up. A
// board that never got the answer may ask again with the same key: that costs no
// further use. The error is a [*Waiting] where a person has to decide.
func (r *Registry) Enrol(ctx context.Context, e Enrolment, sign func(tenant string) (*ca.Leaf, error)) (tenant string, leaf *ca.Leaf, err error) {
	if e.Trust == "" {
		e.Trust = schema.TrustSoftware
	}
	var waiting *Waiting
	err = r.within(ctx, func(tx *sql.Tx) error {
		s, t, err := look(ctx, tx, &e)
		if err != nil {
			return err
		}
		tenant = t
		by, err := decide(&e, s)
		if errors.Is(err, errAsk) {
			waiting, err = keepRequest(ctx, tx, tenant, &e, s)
			return err
		}
		if err != nil {
			return err
		}
		if leaf, err = sign(tenant); err != nil {
			return err
		}
		return keepBoard(ctx, tx, tenant, &e, s, by, leaf)
	})
	switch {
	case err != nil:
		return "", nil, err
	case waiting != nil:
		return tenant, nil, waiting
	}
	return tenant, leaf, nil
}

// look finds what is known of a board that asks, and for which tenant it asks.
func look(ctx context.Context, tx *sql.Tx, e *Enrolment) (s standing, tenant string, err error) {
	tenant = DefaultTenant
	if e.Secret != "" {
		if s.token, tenant, err = lookToken(ctx, tx, e); err != nil {
			return s, "", err
		}
	}
	var mode string
	var key, ek, ak []byte
	err = tx.QueryRowContext(ctx, `SELECT key_mode, key_hash, ek_hash, ak, revoked_at IS NOT NULL FROM board WHERE tenant = ? AND name = ?`, tenant, e.Board).
		Scan(&mode, &key, &ek, &ak, &s.revoked)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s, "", fmt.Errorf("look up board: %w", err)
	}
	if s.known = err == nil; s.known {
		s.change = change(e, key, ek, ak)
		s.same = s.change == ""
	}
	var revoked bool
	col, arg := "key_hash", e.KeyHash[:]
	if e.TPM != nil {
		col, arg = "ek_hash", e.TPM.EKHash[:]
	}
	err = tx.QueryRowContext(ctx, `SELECT iif(tenant = ?1, name, 'of another tenant'), revoked_at IS NOT NULL FROM board
WHERE `+col+` = ?3 AND NOT (tenant = ?1 AND name = ?2) ORDER BY revoked_at IS NULL LIMIT 1`, tenant, e.Board, arg).Scan(&s.other, &revoked)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s, "", fmt.Errorf("look up board by its key: %w", err)
	}
	s.revoked = s.revoked || revoked
	ek, ak = e.ids()
	err = tx.QueryRowContext(ctx, `SELECT decision FROM request WHERE tenant = ? AND board = ? AND key_hash = ? AND ek_hash = ? AND ak = ? AND decided_at > ?`,
		tenant, e.Board, e.KeyHash[:], ek, ak, nowMs()-requestLife.Milliseconds()).Scan(&s.decision)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s, "", fmt.Errorf("look up request: %w", err)
	}
	return s, tenant, nil
}

// ids gives the TPM's part of what a request is known by; empty without a TPM.
func (e *Enrolment) ids() (ek, ak []byte) {
	if e.TPM == nil {
		return []byte{}, []byte{}
	}
	return e.TPM.EKHash[:], e.TPM.AK
}

func lookToken(ctx context.Context, tx *sql.Tx, e *Enrolment) (token, string, error) {
	var tenant, only string
	var uses int
	var expires int64
	err := tx.QueryRowContext(ctx, `SELECT tenant, board, uses_left, expires FROM join_token WHERE hash = ?`, hashOf(e.Secret)).Scan(&tenant, &only, &uses, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return tokenBad, DefaultTenant, nil
	case err != nil:
		return tokenBad, "", fmt.Errorf("look up join token: %w", err)
	case expires < nowMs() || uses < 1 || only != "" && only != e.Board:
		return tokenBad, tenant, nil
	case only != "":
		return tokenOwn, tenant, nil
	}
	return tokenGood, tenant, nil
}

// change tells what of an enrolled board is not as it was; "" where all is. A new key
// under the same attestation key is no change: the TPM itself says that it holds both.
func change(e *Enrolment, key, ek, ak []byte) Reason {
	switch {
	case e.TPM == nil && len(ek) > 0:
		return ReasonToSoftware
	case e.TPM == nil && subtle.ConstantTimeCompare(key, e.KeyHash[:]) == 1:
		return ""
	case e.TPM == nil:
		return ReasonKey
	case len(ek) == 0:
		return ReasonToTPM
	case !bytes.Equal(ek, e.TPM.EKHash[:]):
		return ReasonEK
	case !bytes.Equal(ak, e.TPM.AK):
		return ReasonAK
	}
	return ""
}

// keepBoard keeps a board that was let in.
func keepBoard(ctx context.Context, tx *sql.Tx, tenant string, e *Enrolment, s standing, by string, leaf *ca.Leaf) error {
	if !s.known {
		if err := count(ctx, tx, "board", maxBoards); err != nil {
			return err
		}
	}
	used := []byte{}
	if by == byToken || by == byOwnToken {
		used = hashOf(e.Secret)
		if _, err := tx.ExecContext(ctx, `UPDATE join_token SET uses_left = uses_left - 1 WHERE hash = ?`, used); err != nil {
			return fmt.Errorf("use join token: %w", err)
		}
	}
	facts, err := json.Marshal(e.Facts)
	if err != nil {
		return fmt.Errorf("encode facts: %w", err)
	}
	var tpm TPM
	var ek, ak []byte
	if e.TPM != nil {
		tpm, ek, ak = *e.TPM, e.TPM.EKHash[:], e.TPM.AK
	}
	// The certificate in use stays good until the new one is used, for the answer may
	// get lost; but not that of another key.
	_, err = tx.ExecContext(ctx, `INSERT INTO board (tenant, name, key_mode, facts, key_hash, token_hash, serial, fingerprint, not_after, enrolled_at, trust, ek_hash, ak, tpm_kind, tpm_maker, tpm_firmware, ek_note)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, name) DO UPDATE SET key_mode = excluded.key_mode, facts = excluded.facts, key_hash = excluded.key_hash,
  token_hash = CASE WHEN ? THEN token_hash ELSE excluded.token_hash END,
  previous = CASE WHEN ? THEN coalesce(previous, fingerprint) END,
  serial = excluded.serial, fingerprint = excluded.fingerprint, not_after = excluded.not_after,
  enrolled_at = CASE WHEN ? THEN enrolled_at ELSE excluded.enrolled_at END,
  revoked_at = NULL, trust = excluded.trust, ek_hash = excluded.ek_hash, ak = excluded.ak, tpm_kind = excluded.tpm_kind,
  tpm_maker = excluded.tpm_maker, tpm_firmware = excluded.tpm_firmware, ek_note = excluded.ek_note`,
		tenant, e.Board, e.KeyMode, string(facts), e.KeyHash[:], used, leaf.Serial, leaf.Fingerprint[:], leaf.NotAfter.UnixMilli(), nowMs(),
		e.Trust, ek, ak, tpm.Kind, tpm.Maker, tpm.Firmware, tpm.Note, s.same, s.same, s.same)
	if err != nil {
		return fmt.Errorf("keep board: %w", err)
	}
	// What it asked for, and what others asked for with this TPM or key, is settled.
	rek, rak := e.ids()
	if _, err := tx.ExecContext(ctx, `DELETE FROM request WHERE tenant = ? AND board = ? AND key_hash = ? AND ek_hash = ? AND ak = ?`,
		tenant, e.Board, e.KeyHash[:], rek, rak); err != nil {
		return fmt.Errorf("settle request: %w", err)
	}
	if s.known && !s.same {
		if err := proofs.Drop(ctx, tx, tenant, e.Board); err != nil {
			return err
		}
		if err := shut(ctx, tx, tenant, e.Board); err != nil {
			return err
		}
	}
	if by == bySame {
		return nil // it changes nothing, and a board may do it as often as it likes
	}
	what, why := "enrol", "Let in by "+by
	if s.known {
		what = "re-enrol"
	}
	if s.change != "" {
		why += ". " + strings.TrimSuffix(s.change.say(""), ".")
	}
	return audit.Append(ctx, tx, audit.Entry{
		Who: "board " + e.Board, Tenant: tenant, Board: e.Board, What: what,
		Why: fmt.Sprintf("%s; trust %s, fingerprint %s, serial %s", why, e.Trust, fingerprint(ek, e.KeyHash[:]), leaf.Serial),
	})
}

// Renew gives a known board its next certificate. The one it has stays good until
// the new one is first used: the answer may get lost. sign is told how the fleet knows
// the board's key; a key in a TPM must be the one that was proven to be there.
func (r *Registry) Renew(ctx context.Context, id ca.Identity, keyHash [32]byte, sign func(trust string) (*ca.Leaf, error)) (leaf *ca.Leaf, trust string, err error) {
	if _, err := r.recall(ctx, id); err != nil {
		return nil, "", err
	}
	err = r.within(ctx, func(tx *sql.Tx) error {
		var current, previous, key []byte
		var revoked bool
		err := tx.QueryRowContext(ctx, `SELECT fingerprint, previous, key_hash, trust, revoked_at IS NOT NULL FROM board WHERE tenant = ? AND name = ?`, id.Tenant, id.Board).
			Scan(&current, &previous, &key, &trust, &revoked)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrUnknown
		case err != nil:
			return fmt.Errorf("look up board: %w", err)
		case revoked:
			return ErrRevoked
		case !bytes.Equal(current, id.Fingerprint[:]) && !bytes.Equal(previous, id.Fingerprint[:]):
			return ErrUnknown
		case trust != schema.TrustSoftware && !bytes.Equal(key, keyHash[:]):
			return ErrOtherKey
		}
		if leaf, err = sign(trust); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE board SET previous = ?, fingerprint = ?, serial = ?, key_hash = ?, not_after = ? WHERE tenant = ? AND name = ?`,
			id.Fingerprint[:], leaf.Fingerprint[:], leaf.Serial, leaf.KeyHash[:], leaf.NotAfter.UnixMilli(), id.Tenant, id.Board)
		if err != nil {
			return fmt.Errorf("keep certificate: %w", err)
		}
		return nil
	})
	return leaf, trust, err
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/registry/alertrows"
	"fulmar/fleet/registry/commandrows"
	"fulmar/fleet/registry/idem"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/registry/proofs"
	"fulmar/fleet/registry/releaserows"
	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/registry/rolls"
	"fulmar/fleet/registry/twinrows"
)

// migrations are the steps of the registry's schema, oldest first. A step that has
// been released is never changed. Times are milliseconds since 1970.
func migrations() []string {
	return []string{first, second + audit.Schema, proofs.Schema, meta.Schema, accounts.Schema + audit.Heads, rollouts.Schema, rolls.Schema + rolls.On("board") + rolls.On("proof") + rolls.On("request") + rolls.On("meta"), idem.Schema, alertrows.Schema, twinrows.Schema, commandrows.Schema, releaserows.Schema}
}

const first = `
CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO tenant VALUES ('default');
CREATE TABLE board (
  tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL,
  key_mode TEXT NOT NULL, facts TEXT NOT NULL, key_hash BLOB NOT NULL, token_hash BLOB NOT NULL,
  serial TEXT NOT NULL, fingerprint BLOB NOT NULL, previous BLOB, -- previous: replaced certificate, good until the new one is used
  not_after INTEGER NOT NULL, enrolled_at INTEGER NOT NULL, revoked_at INTEGER,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE join_token (
  hash BLOB PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name),
  board TEXT NOT NULL DEFAULT '', -- not empty: only for this name, which it may replace
  uses_left INTEGER NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE user (
  name TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name),
  password TEXT NOT NULL, must_change INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE session (
  hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user(name) ON DELETE CASCADE,
  made INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE api_token (
  hash BLOB PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name),
  scope TEXT NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
`

// second: what is known of a board's TPM, boards that wait for a person, what live
// sessions have to be looked at, and the audit log.
const second = `
ALTER TABLE board ADD COLUMN trust TEXT NOT NULL DEFAULT 'software'; -- a schema.Trust constant
ALTER TABLE board ADD COLUMN ek_hash BLOB; -- SHA-256 of the public area of its endorsement key
ALTER TABLE board ADD COLUMN ak BLOB; -- public area of its attestation key
ALTER TABLE board ADD COLUMN tpm_kind TEXT NOT NULL DEFAULT '';
ALTER TABLE board ADD COLUMN tpm_maker TEXT NOT NULL DEFAULT '';
ALTER TABLE board ADD COLUMN tpm_firmware TEXT NOT NULL DEFAULT '';
ALTER TABLE board ADD COLUMN ek_note TEXT NOT NULL DEFAULT ''; -- what was found of its maker's certificate, a sentence
-- One TPM is one board, of all tenants.
CREATE UNIQUE INDEX board_ek ON board(ek_hash) WHERE ek_hash IS NOT NULL;
CREATE INDEX board_key ON board(key_hash);
-- Boards that wait for a person. ek_hash and ak are empty where there is no TPM.
CREATE TABLE request (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL REFERENCES tenant(name), board TEXT NOT NULL,
  key_mode TEXT NOT NULL, key_hash BLOB NOT NULL, ek_hash BLOB NOT NULL, ak BLOB NOT NULL,
  trust TEXT NOT NULL, tpm_kind TEXT NOT NULL, tpm_maker TEXT NOT NULL, tpm_firmware TEXT NOT NULL,
  ek_note TEXT NOT NULL, facts TEXT NOT NULL, why TEXT NOT NULL, other TEXT NOT NULL, -- other: the board that has the TPM or key already
  remote TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, asked INTEGER NOT NULL,
  decision TEXT NOT NULL DEFAULT '', decided_by TEXT NOT NULL DEFAULT '', decided_at INTEGER NOT NULL DEFAULT 0,
  UNIQUE (tenant, board, key_hash, ek_hash, ak)
);
-- Boards of which a certificate stopped being good: their sessions are looked at again.
CREATE TABLE shut (seq INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, board TEXT NOT NULL, at INTEGER NOT NULL);
`

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package alertrows holds the schema of webhooks, alert rules and alerts, so that the
// registry can make their tables without knowing who fills them.
package alertrows

// Schema is a step of the registry's migrations.
const Schema = `
CREATE TABLE webhook (
  tenant TEXT NOT NULL REFERENCES tenant(name), id TEXT NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, kind TEXT NOT NULL,
  events TEXT NOT NULL, internal INTEGER NOT NULL, off INTEGER NOT NULL,
  secret BLOB NOT NULL, -- signs, so it is kept as it is; the file is its owner's alone
  author TEXT NOT NULL, made INTEGER NOT NULL, version INTEGER NOT NULL, error TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, hook TEXT NOT NULL, message TEXT NOT NULL, type TEXT NOT NULL,
  subject TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
  made INTEGER NOT NULL, last INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL, status INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
  FOREIGN KEY (tenant, hook) REFERENCES webhook(tenant, id) ON DELETE CASCADE
);
CREATE INDEX delivery_waiting ON delivery(tenant, hook, subject, id) WHERE state = 'waiting';
CREATE INDEX delivery_due ON delivery(next) WHERE state = 'waiting';
CREATE INDEX delivery_hook ON delivery(tenant, hook, id);
-- seq of the newest event.
CREATE TABLE hook_event (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
INSERT INTO hook_event VALUES (1, 0);
-- JSON of rest.AlertRule; of a built-in rule only what was changed.
CREATE TABLE alert_rule (
  tenant TEXT NOT NULL REFERENCES tenant(name), id TEXT NOT NULL, body TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
-- Since when a board or sample is what a rule asks for.
CREATE TABLE alert_member (
  tenant TEXT NOT NULL, rule TEXT NOT NULL, member TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (tenant, rule, member)
) WITHOUT ROWID;
-- JSON of rest.Alert.
CREATE TABLE alert (tenant TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, id)) WITHOUT ROWID;
`

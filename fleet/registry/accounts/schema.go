// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

// Schema makes the tables: a step of the registry's migrations, after the one that made
// user, session and api_token. The one user that was there was the administrator; tokens
// of scope read get what they could read, those of scope admin all there was.
const Schema = `
ALTER TABLE user ADD COLUMN role TEXT NOT NULL DEFAULT 'admin'; -- a rest.Role
ALTER TABLE user ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN last_login INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user ADD COLUMN totp BLOB; -- the secret of the second factor; NULL: none
ALTER TABLE user ADD COLUMN totp_step INTEGER NOT NULL DEFAULT 0; -- the step of the newest code used: no older one is good
ALTER TABLE user ADD COLUMN totp_next BLOB; -- a secret that was shown and not yet confirmed
-- From which role on a second factor is wanted; '': of nobody.
ALTER TABLE tenant ADD COLUMN totp_from TEXT NOT NULL DEFAULT '';
CREATE TABLE recovery (
  user TEXT NOT NULL REFERENCES user(name) ON DELETE CASCADE, hash BLOB NOT NULL, PRIMARY KEY (user, hash)
) WITHOUT ROWID;
-- Browsers that a user has logged in with: they are asked first when many guess.
CREATE TABLE known (
  hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user(name) ON DELETE CASCADE, used INTEGER NOT NULL
) WITHOUT ROWID;
ALTER TABLE session ADD COLUMN addr TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN agent TEXT NOT NULL DEFAULT '';
ALTER TABLE api_token ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE api_token ADD COLUMN author TEXT NOT NULL DEFAULT 'server'; -- a user, or the console
ALTER TABLE api_token ADD COLUMN rights TEXT NOT NULL DEFAULT '[]'; -- rest.Rights as JSON
ALTER TABLE api_token ADD COLUMN boards TEXT NOT NULL DEFAULT '';
ALTER TABLE api_token ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_token ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
UPDATE api_token SET name = lower(hex(substr(hash, 1, 4))), rights = CASE scope
  WHEN 'admin' THEN '["boards:read","boards:write","commands:send","alerts:write","audit:read","rollouts:write","rollouts:approve","boards:admit","users:write"]'
  ELSE '["boards:read","audit:read"]' END;
CREATE UNIQUE INDEX api_token_name ON api_token(tenant, name);
`

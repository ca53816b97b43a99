// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"database/sql"

	"fulmar/fleet/alerts/hooks"
	"fulmar/fleet/rollout/book"
)

// TellRollouts queues what happens to rollouts for the webhooks. page is where people
// find the fleet's page, "" where that is not known.
func TellRollouts(page string) book.Tell {
	return func(ctx context.Context, tx *sql.Tx, e book.Event) error {
		if page != "" {
			e.Data.URL = page + "/rollouts/" + e.Data.Rollout
		}
		return hooks.Enqueue(ctx, tx, hooks.Event{Tenant: e.Tenant, Type: e.Type, Subject: "rollout/" + e.Data.Rollout, At: e.At, Data: e.Data})
	}
}

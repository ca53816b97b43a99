// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commandrows

import (
	"context"
	"time"
)

// PruneTo is Prune with other bounds.
func PruneTo(t *Table, ctx context.Context, now time.Time, commands, boards, local int) (int64, error) {
	return t.prune(ctx, now, commands, boards, local)
}

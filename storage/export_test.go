// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"

	"fulmar/internal/run"
)

// RetryDisk does now what Run does each minute while there is no disk. The classes
// of a spool that had none then run until ctx ends.
func RetryDisk(ctx context.Context, s *Spool) { s.retryDisk(run.New(ctx)) }

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"fmt"

	"fulmar/schema"
	"fulmar/storage/internal/ranges"
)

// Refuse writes one durable record down as lost for a reason that only its
// sender can know, and then settles it.
func (c *Class) Refuse(epoch, seq uint64, why schema.Reason) error {
	c.io.Lock()
	defer c.io.Unlock()
	c.mu.Lock()
	known, closed := epoch == c.epoch && seq > 0 && seq <= c.durable, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case !known:
		return fmt.Errorf("%w: number %d of epoch %016x", ErrUnknown, seq, epoch)
	}
	return c.lose(ranges.Range{First: seq, Last: seq}, why, c.isAlarm())
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"

	"fulmar/schema"
)

// Refuse settles a record that can never be delivered: its picture is gone, it
// is larger than a message may be. The gap with the reason is durable first. A
// number never given out is refused with [ErrUnknown].
func (s *Spool) Refuse(c schema.Class, epoch, seq uint64, why schema.Reason) error {
	if c >= schema.NumClasses || seq == 0 {
		return fmt.Errorf("give up a record: %w: number %d of class %d", ErrUnknown, seq, c)
	}
	return s.giveUp(schema.Gap{Class: c, Epoch: epoch, First: seq, Last: seq, Reason: why})
}

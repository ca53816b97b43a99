// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"

	"fulmar/schema"
	"fulmar/storage/internal/chain"
)

// Refuse settles a record that can never be delivered: its picture is gone, it
// is larger than a message may be. The gap with the reason is durable first. A
// number never given out is refused with [ErrUnknown].
func (s *Spool) Refuse(c schema.Class, epoch, seq uint64, why schema.Reason) error {
	if c >= schema.NumClasses {
		return fmt.Errorf("give up a record: %w: class %d", ErrUnknown, c)
	}
	err := s.settle(c, epoch, func(cl *chain.Class) error { return cl.Refuse(epoch, seq, why) },
		func() error { return s.ram.Refuse(c, epoch, seq, why) })
	if err != nil {
		return fmt.Errorf("give up record %d of spool class %s: %w", seq, c, err)
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/chain"
	"fulmar/storage/vault"
)

// ClassStats tells of one class.
type ClassStats = chain.Stats

// Stats tells of the spool, for metrics and status.
type Stats struct {
	Classes [schema.NumClasses]ClassStats
	Foreign int  // files in the folder that are not the spool's
	Balloon bool // the reserve for a full disk is there
	// Keys tells how the spool is encrypted; nil: it is not.
	Keys *vault.State
	// Memory says why records stay in memory; "": they go to disk.
	Memory string
	Held   [schema.NumClasses]int // records only in memory, in that mode or since
}

// Stats tells where the spool stands. It never waits for the disk.
func (s *Spool) Stats() Stats {
	st := Stats{Foreign: s.shared.Foreign(), Balloon: s.shared.Balloon.Held()}
	st.Keys = s.keys.Load()
	s.memory.mu.Lock()
	if s.memory.why != nil {
		st.Memory = s.memory.why.Error()
	}
	s.memory.mu.Unlock()
	now := time.Now()
	if cl := s.classes.Load(); cl != nil {
		for i, c := range cl {
			st.Classes[i] = c.Stats(now)
		}
	}
	for i := range st.Classes {
		held, c := s.ram.Stats(schema.Class(i)), &st.Classes[i]
		c.Class = schema.Class(i)
		st.Held[i] = held.Records
		c.Outstanding += uint64(held.Records)
		c.Lost[schema.ReasonUnsavable] += held.Dropped
		if !held.Oldest.IsZero() {
			age := now.Sub(held.Oldest)
			c.OldestAge, c.LossWindow = max(c.OldestAge, age), max(c.LossWindow, age)
		}
	}
	return st
}

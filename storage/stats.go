// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/chain"
)

// ClassStats tells of one class.
type ClassStats = chain.Stats

// Stats tells of the spool, for metrics and status.
type Stats struct {
	Classes [schema.NumClasses]ClassStats
	Foreign int  // files in the folder that are not the spool's
	Balloon bool // the reserve for a full disk is there
}

// Stats tells where the spool stands. It never waits for the disk.
func (s *Spool) Stats() Stats {
	st := Stats{Foreign: s.shared.Foreign(), Balloon: s.shared.Balloon.Held()}
	now := time.Now()
	for i, c := range s.classes {
		st.Classes[i] = c.Stats(now)
	}
	return st
}

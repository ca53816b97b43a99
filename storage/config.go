// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/chain"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/meta"
	"fulmar/storage/vault"
)

// What a caller may want to tell apart.
var (
	// ErrLocked: another process has the spool open.
	ErrLocked = disk.ErrLocked
	// ErrNewer: a newer fulmar wrote the spool; this one must not touch it.
	ErrNewer = meta.ErrNewer
	// ErrOwner: the spool holds the records of another board.
	ErrOwner = errors.New("spool of another board")
	// ErrFull: the class has reached its quota and may not evict (alarms), or the
	// queue of metrics is full because the disk takes nothing.
	ErrFull = chain.ErrFull
	// ErrUnknown: an acknowledgement of numbers or an epoch never given out.
	ErrUnknown = chain.ErrUnknown
	// ErrClosed: the spool is closed.
	ErrClosed = chain.ErrClosed
)

// stopGrace is how long Run waits for a disk that hangs when it is stopped.
const stopGrace = 5 * time.Second

// ClassConfig sets up one class; zero values take the defaults.
type ClassConfig = chain.Config

// Config sets up a spool.
type Config struct {
	Dir     string       // made if it is not there
	Owner   string       // the board's name, "" where it is not known yet: then see [Spool.Claim]
	Clock   schema.Clock // stamps the gap records
	Log     *slog.Logger // nil: nothing is logged
	Classes [schema.NumClasses]ClassConfig
	// Holder seals the keys with which the spool is encrypted; nil: records lie on
	// the disk in the clear. Former are holders that may have sealed older keys.
	Holder vault.Holder
	Former []vault.Holder
	// Recovery is the fleet's offline recovery key: who has its private half can
	// read the disk of a dead board. nil: nobody can.
	Recovery *vault.RecoveryPublic
	// OnMemory is told when the spool begins to work from memory, with the reason,
	// and with nil when it has its disk again. It is called from Run.
	OnMemory func(why error)
	// Probe looks at a segment's file in another process, with [ProbeFile], after a
	// start that ended badly; an error says that it did not survive. nil: no look.
	Probe func(ctx context.Context, path string) error
	// NoSync leaves out every fsync: for simulations, where a power loss is not.
	NoSync bool
}

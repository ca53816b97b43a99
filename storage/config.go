// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"log/slog"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/chain"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/meta"
)

// What a caller may want to tell apart.
var (
	// ErrLocked: another process has the spool open.
	ErrLocked = disk.ErrLocked
	// ErrNewer: a newer fulmar wrote the spool; this one must not touch it.
	ErrNewer = meta.ErrNewer
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
	Clock   schema.Clock // stamps the gap records
	Log     *slog.Logger // nil: nothing is logged
	Classes [schema.NumClasses]ClassConfig
	// NoSync leaves out every fsync: for simulations, where a power loss is not.
	NoSync bool
}

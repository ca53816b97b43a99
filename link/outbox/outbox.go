// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package outbox is what a link needs of a spool and a folder of pictures. Package link
// has other names for all of it.
package outbox

import (
	"errors"
	"io"

	"fulmar/schema"
)

// ErrBlobGone is wrapped by a [BlobOpener] for a blob that is not there any more.
var ErrBlobGone = errors.New("blob is gone")

// Outbox is what the link needs of a spool.
type Outbox interface {
	// Read gives durable records with a number of at least from, rising, that are
	// not acknowledged; none when there are none.
	Read(c schema.Class, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error)
	// Ack frees the records first to last.
	Ack(c schema.Class, epoch, first, last uint64) error
	// Cursors tells where each class stands.
	Cursors() []schema.Cursor
	// Wake is signalled when a record became durable.
	Wake() <-chan struct{}
}

// EpochReader is an [Outbox] whose classes may hold records of several epochs, each
// numbered by itself. Without it Read is asked for each epoch in turn, and what
// stands before the wanted one is passed over.
type EpochReader interface {
	// ReadEpoch is Read for one epoch.
	ReadEpoch(c schema.Class, epoch, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error)
}

// OnlineTeller is an [Outbox] that wants to know when records begin and cease to
// flow.
type OnlineTeller interface{ Online(up bool) }

// Refuser is an [Outbox] that can settle a record which can never be sent, by
// writing it into the loss ledger. Without it such a record is passed over in each
// connection anew.
type Refuser interface {
	Refuse(c schema.Class, epoch, seq uint64, reason schema.Reason) error
}

// Blob is an open picture.
type Blob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// BlobOpener opens pictures by name. RemoveBlob is told when one has arrived.
type BlobOpener interface {
	OpenBlob(name string) (Blob, error)
	RemoveBlob(name string) error
}

// ReadEpoch reads records of one epoch from an outbox of whatever kind, see
// [EpochReader]; from an [Outbox] alone those of others come too.
func ReadEpoch(o Outbox, c schema.Class, epoch, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	if r, ok := o.(EpochReader); ok {
		return r.ReadEpoch(c, epoch, from, maxRecords, maxBytes)
	}
	return o.Read(c, from, maxRecords, maxBytes)
}

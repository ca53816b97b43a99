// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/losses"
	"fulmar/fleet/ingest/reading"
	"fulmar/fleet/ingest/reports"
	"fulmar/schema"
)

// wordEvery is how often one board's newer version is written down, ms: a board that
// sends a whole window of it costs one row.
const wordEvery = 60_000

// ErrNewer is wrapped where a board speaks a wire version above this program's: it
// must keep what it has until the fleet is updated.
var ErrNewer = errors.New("newer wire version")

// errRefused marks what will never be understood; the text is stored with it.
type errRefused struct {
	why error
	of  *schema.Message // what is known of it; nil where not even its numbers are
}

func (e errRefused) Error() string { return e.why.Error() }

func refuse(format string, args ...any) error { return errRefused{why: fmt.Errorf(format, args...)} }

// unread keeps the proof that a message could not be understood, and books as lost
// what is known to have been in it.
func (in *Ingest) unread(ctx context.Context, key BoardKey, topic string, payload []byte, bad errRefused) error {
	return in.submit(ctx, key, func(x *txn) error {
		if err := x.refuse(key, topic, len(payload), bad.why); err != nil {
			return err
		}
		b, err := x.board(key)
		if err != nil {
			return err
		}
		if bad.of == nil {
			x.n.unknown++
			return reports.Unknown(x, b.id, key.Board, len(payload), bad.why, x.now)
		}
		for _, r := range reading.Runs(bad.of) {
			if err := x.lose(b, key, bad.of, r, bad.why); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *txn) refuse(key BoardKey, topic string, size int, why error) error {
	x.n.refused++
	return reports.Refused(x, key.Tenant, key.Board, topic, size, why, x.now)
}

// lose books records of a message that came and cannot be read.
func (x *txn) lose(b *boardState, key BoardKey, m *schema.Message, run [2]uint64, why error) error {
	e, err := x.cache.shelf.Book(x, b.id, m.Class, m.Epoch, x.now)
	if err != nil {
		return err
	}
	n, err := losses.Found(x, e, b.id, schema.Gap{Class: m.Class, Epoch: m.Epoch, First: run[0], Last: run[1], Reason: schema.ReasonUnreadable}, x.now)
	if err != nil || n == 0 {
		return err
	}
	return reports.Unreadable(x, b.id, key.Board, m.Class, run[0], run[1], why, x.now)
}

// freed books what the newest hello tells of losses, as soon as that is known.
func (x *txn) freed(b *boardState) error {
	if b.cursors == nil {
		return nil
	}
	done, err := losses.Freed(x, x.cache.shelf, b.id, b.cursors, x.now)
	if done {
		b.cursors = nil
	}
	return err
}

// Newer notes that a board speaks a newer wire version, for a person to see. Its error
// is [ErrNewer], or why that could not be noted.
func (in *Ingest) Newer(ctx context.Context, key BoardKey, version uint8) error {
	err := in.submit(ctx, key, func(x *txn) error {
		x.n.newer++
		b, err := x.board(key)
		if err != nil {
			return err
		}
		b.seen(x.now)
		if x.now-b.worded < wordEvery {
			return nil
		}
		b.worded = x.now
		return reports.Newer(x, b.id, key.Board, version, x.now)
	})
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: board %s speaks %d, this fleet reads up to %d", ErrNewer, key.Board, version, schema.Version)
}

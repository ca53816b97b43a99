// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"time"
)

const (
	// queueLen bounds what waits to be written: the boards that may speak at one time
	// wait in their connections, which hold one message each.
	queueLen = 1024
	// batchMax bounds one commit: 256 twins of 5 KB are 40 ms of writing, which others
	// who write to the registry wait for.
	batchMax = 256
	// writeTimeout bounds one commit; longer than any healthy disk needs.
	writeTimeout = 30 * time.Second
)

// job is something to write and who waits for it.
type job struct {
	apply func(ctx context.Context, tx *sql.Tx) error
	done  chan error // 1-buffered
}

// commit writes, with what others write at the same time, and waits until it stands or
// does not. It does not end with the context: whoever holds a twin has to know.
func (x *Twins) commit(ctx context.Context, apply func(context.Context, *sql.Tx) error) error {
	j := &job{apply, make(chan error, 1)}
	select {
	case x.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-x.stopped:
		return ErrStopped
	}
	select {
	case err := <-j.done:
		return err
	case <-x.stopped:
	}
	select { // Run answered, then ended
	case err := <-j.done:
		return err
	default:
		return ErrStopped
	}
}

// Run writes until the context ends, and brings to the boards what they have not; then
// it writes what has queued and returns. It may be called once.
func (x *Twins) Run(ctx context.Context) error {
	defer close(x.stopped)
	n, err := x.cfg.Rows.Count(context.WithoutCancel(ctx)) // also of a server that ends at once
	if err != nil {
		return err
	}
	x.rows.Store(int64(n))
	pushing := make(chan struct{})
	go func() { // it waits for commits, which are made here
		defer close(pushing)
		x.keepPushing(ctx)
	}()
	seen := time.NewTicker(seenEvery)
	defer seen.Stop()
	for {
		select {
		case j := <-x.queue:
			x.write(j)
		case <-seen.C:
			x.writeSeen()
		case <-ctx.Done():
			for {
				select {
				case j := <-x.queue:
					x.write(j)
				case <-pushing:
					x.drain()
					x.writeSeen()
					return nil
				}
			}
		}
	}
}

// drain writes what has queued.
func (x *Twins) drain() {
	for {
		select {
		case j := <-x.queue:
			x.write(j)
		default:
			return
		}
	}
}

// write commits a job with all that have queued behind it. Should that fail, each is
// tried alone, so that one that cannot be written does not hold up the others.
func (x *Twins) write(first *job) {
	batch := []*job{first}
fill:
	for len(batch) < batchMax {
		select {
		case j := <-x.queue:
			batch = append(batch, j)
		default:
			break fill
		}
	}
	err := x.transact(batch)
	if err == nil || len(batch) == 1 {
		for _, j := range batch {
			j.done <- err
		}
		return
	}
	x.cfg.Log.Error("twins not written", "twins", len(batch), "error", err.Error())
	for _, j := range batch {
		j.done <- x.transact([]*job{j})
	}
}

// transact takes no context on purpose: a commit under way is finished.
func (x *Twins) transact(batch []*job) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	tx, err := x.cfg.Rows.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	for _, j := range batch {
		if err := j.apply(ctx, tx); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("keep twins: %w", err)
	}
	x.n.commits.Add(1)
	return nil
}

// writeSeen writes when boards have spoken of their twins. What is lost with a crash is
// known again when they speak.
func (x *Twins) writeSeen() {
	x.mu.Lock()
	spoke := maps.Clone(x.spoke)
	x.mu.Unlock()
	if len(spoke) == 0 {
		return
	}
	err := x.transact([]*job{{apply: func(ctx context.Context, tx *sql.Tx) error {
		for k, at := range spoke {
			if err := x.cfg.Rows.Saw(ctx, tx, k, at); err != nil {
				return err
			}
		}
		return nil
	}}})
	if err != nil {
		x.cfg.Log.Warn("not written when boards spoke of their twins", "boards", len(spoke), "error", err.Error())
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, at := range spoke {
		if x.spoke[k].Equal(at) {
			delete(x.spoke, k)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package feed reads what boards delivered out of the ledger, in the order in which it
// arrived, and gives it to a sink as samples: each sink has a feed and a cursor of its
// own, so that one that lags or fails holds up nothing, ingest least of all.
//
// Rows that are open may still be placed anew in time. The feed passes them, keeps their
// numbers, and takes them when they are settled. The cursor is kept after the sink has
// made durable what it was given; after a crash rows are given again, and a sink must
// take the same sample twice.
package feed

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"fulmar/fleet/telemetry/points"
	"fulmar/internal/atomicfile"
)

const (
	// step is how many rows one read takes: a few milliseconds, half a megabyte.
	step = 500
	// poll is how long the feed rests when it has read everything.
	poll = time.Second
	// keepEvery is how often the cursor is kept: each time costs two fsyncs, and what is
	// read in that time is read again after a crash.
	keepEvery = 5 * time.Second
	// recheck is how many open rows are looked at again in one turn, recheckEvery how
	// often: they close ten minutes after the last word of their boot.
	recheck      = 2000
	recheckEvery = 5 * time.Second
	// maxOpen bounds the open rows that are waited for. Over it the feed waits until
	// some close, which ingest does by itself.
	maxOpen = 100_000
	// sitesFor is how long sites are believed.
	sitesFor = 30 * time.Second
	// back is how many rows are read again where the ledger gave numbers out anew.
	back = 100_000
	// sweepEvery is how often series that nothing comes of are let go.
	sweepEvery = time.Hour

	retryFirst, retryLast = time.Second, time.Minute
)

// Sink takes samples.
type Sink interface {
	// Append takes all points or fails; what failed is given again.
	Append(ctx context.Context, ps []points.Point) error
	// Sync makes durable what Append took.
	Sync() error
}

// Config is what a feed is told.
type Config struct {
	Ledger *sql.DB // read only
	State  string  // file of the cursor
	Sites  func(ctx context.Context, tenant string) (map[string]string, error)
	Limits points.Limits
	Log    *slog.Logger
}

// Stats counts since the start.
type Stats struct {
	Rows, Damaged, Missed, Refused uint64
	RefusedSeries                  []points.Refused
	Live, Open                     int
	Behind                         int64
}

// table is one table that is read, and how far.
type table struct {
	ID      int64   `cbor:"1,keyasint"` // last row read
	Board   int64   `cbor:"2,keyasint"` // its board, and when it arrived, to know it again
	Arrived int64   `cbor:"3,keyasint"`
	Open    []int64 `cbor:"4,keyasint,omitempty"` // rows passed that were open, ascending
}

type state struct {
	V         int   `cbor:"1,keyasint"`
	Telemetry table `cbor:"2,keyasint"`
	Event     table `cbor:"3,keyasint"`
}

// maxState bounds the file: two tables of open rows at nine bytes each.
const maxState = 2*9*(maxOpen+step) + 1024

// Feed reads for one sink.
type Feed struct {
	cfg  Config
	sink Sink
	st   state
	book *points.Book

	boards  map[int64]points.Board
	sites   map[string]map[string]string
	sitesAt time.Time
	dirty   bool
	check   [2]int // where in Open the next look begins

	mu    sync.Mutex
	stats Stats
}

// New opens a feed. A cursor that cannot be read is an error only where it is of a newer
// program; a broken one begins anew.
func New(cfg Config, sink Sink) (*Feed, error) {
	f := &Feed{cfg: cfg, sink: sink, book: points.NewBook(cfg.Limits), boards: map[int64]points.Board{}}
	b, err := os.ReadFile(cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cursor of telemetry: %w", err)
	}
	if len(b) > maxState || cbor.Unmarshal(b, &f.st) != nil {
		cfg.Log.Warn("the cursor of telemetry cannot be read; the ledger is read from its beginning", "file", cfg.State)
		f.st = state{}
	}
	if f.st.V > 1 {
		return nil, fmt.Errorf("cursor of telemetry %s is of version %d, this program knows 1; use the newer program", cfg.State, f.st.V)
	}
	return f, nil
}

// Stats tells what was counted.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Run reads until the context ends. Failures are told once and tried again.
func (f *Feed) Run(ctx context.Context) error {
	wait := retryFirst
	var kept, checked, swept time.Time
	for {
		more, err := f.turn(ctx, time.Since(checked) >= recheckEvery)
		now := time.Now()
		if time.Since(checked) >= recheckEvery {
			checked = now
		}
		if err == nil && f.dirty && now.Sub(kept) >= keepEvery {
			err, kept = f.Keep(), now
		}
		if now.Sub(swept) >= sweepEvery {
			f.book.Sweep(now.UnixMilli())
			swept = now
		}
		f.tell(ctx)
		rest := poll
		switch {
		case ctx.Err() != nil:
			return f.Keep()
		case err != nil:
			if wait == retryFirst {
				f.cfg.Log.Error("telemetry not fed; tried again", "err", err)
			}
			rest, wait = wait, min(2*wait, retryLast)
		case more:
			rest, wait = 0, retryFirst
		default:
			wait = retryFirst
		}
		if rest > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(rest):
			}
		}
	}
}

// Drain reads until nothing is left, for tests and tools; open rows are left.
func (f *Feed) Drain(ctx context.Context) error {
	for {
		more, err := f.turn(ctx, true)
		if err != nil || !more {
			f.tell(ctx)
			return errors.Join(err, f.Keep())
		}
	}
}

// Keep makes durable what was read, and then the cursor.
func (f *Feed) Keep() error {
	if !f.dirty {
		return nil
	}
	if err := f.sink.Sync(); err != nil {
		return err
	}
	f.st.V = 1
	b, err := cbor.Marshal(f.st)
	if err != nil {
		return fmt.Errorf("keep the cursor of telemetry: %w", err)
	}
	if err := atomicfile.WriteFile(f.cfg.State, b, 0o600); err != nil {
		return fmt.Errorf("keep the cursor of telemetry: %w", err)
	}
	f.dirty = false
	return nil
}

// turn reads one step of each table, and of the rows that were open.
func (f *Feed) turn(ctx context.Context, again bool) (more bool, err error) {
	f.refreshSites()
	for i, t := range []*source{f.telemetry(), f.events()} {
		if err := f.verify(ctx, t); err != nil {
			return false, err
		}
		if len(t.at.Open) < maxOpen {
			n, err := f.forward(ctx, t)
			if err != nil {
				return false, err
			}
			more = more || n == step
		}
		if again && len(t.at.Open) > 0 {
			if err := f.settle(ctx, t, &f.check[i]); err != nil {
				return false, err
			}
		}
	}
	return more, nil
}

// tell brings the counts up to date.
func (f *Feed) tell(ctx context.Context) {
	var behind int64
	// An answer that fails leaves the old count; the next turn tells the cause.
	err := f.cfg.Ledger.QueryRowContext(ctx, `SELECT coalesce((SELECT max(id) FROM telemetry), 0) - ?1 + coalesce((SELECT max(id) FROM event), 0) - ?2`,
		f.st.Telemetry.ID, f.st.Event.ID).Scan(&behind)
	refused, names := f.book.Refused()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.stats.Behind = max(behind, 0)
	}
	f.stats.Refused, f.stats.RefusedSeries, f.stats.Live = refused, names, f.book.Live()
	f.stats.Open = len(f.st.Telemetry.Open) + len(f.st.Event.Open)
}

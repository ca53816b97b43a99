// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/ingest/shelf"

	"fulmar/fleet/store"
)

const (
	// queueLen bounds the messages that wait for a commit. Each waiting board has
	// at most one, so a fuller queue means more boards than one server should have;
	// they then wait in their own goroutines.
	queueLen = 1024
	// batchMax bounds one transaction, so that a commit stays in the tens of
	// milliseconds.
	batchMax = 512
	// tick is how often is looked for coalesced values (last seen, newest readings) that
	// are due to be written, and for old rows.
	tick = time.Second
	// maxCached bounds the books and boards kept in memory; beyond it the cache is
	// emptied and read again as needed. 20,000 boards have 80,000 books.
	maxCached = 100_000
)

// ErrStopped is returned to callers that wait when ingest ends.
var ErrStopped = errors.New("ingest has stopped")

// Config bounds what is kept. Zero fields take the default.
type Config struct {
	TelemetryFor   time.Duration // 30 days
	TelemetryBytes int64         // 4 GiB
	EventsFor      time.Duration // 90 days
	EventsBytes    int64         // 2 GiB
	PicturesBytes  int64         // 8 GiB for all boards together
	BoardPictures  int64         // 1 GiB for one board

	// Changed is called after a commit with the boards whose data changed. It must
	// not block. Nil: nobody is told.
	Changed func([]BoardKey)
}

// BoardKey names a board across tenants.
type BoardKey struct{ Tenant, Board string }

func (c *Config) defaults() {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def((*int64)(&c.TelemetryFor), int64(30*24*time.Hour))
	def(&c.TelemetryBytes, 4<<30)
	def((*int64)(&c.EventsFor), int64(90*24*time.Hour))
	def(&c.EventsBytes, 2<<30)
	def(&c.PicturesBytes, 8<<30)
	def(&c.BoardPictures, 1<<30)
	if c.Changed == nil {
		c.Changed = func([]BoardKey) {}
	}
}

// Stats are counters since the start.
type Stats struct {
	Messages   uint64 // taken and committed
	Records    uint64 // fresh records
	Duplicates uint64 // records turned away because they had arrived
	Refused    uint64 // messages and records that can never be understood
	Unknown    uint64 // messages refused of which not even the numbers are known
	Newer      uint64 // messages of a newer wire version: not taken
	Commits    uint64
	Failures   uint64 // transactions that failed
	Chunks     uint64
	NoPicture  uint64 // picture records whose blob was not whole
}

type counters struct {
	messages, records, duplicates, refused, unknown, newer, commits, failures, chunks, noPicture atomic.Uint64
}

// job is one thing to write and who waits for it.
type job struct {
	ctx     context.Context // of who waits
	key     BoardKey
	apply   func(*txn) error
	samples bool       // changes nothing of the board but its values and books
	done    chan error // 1-buffered
}

// Ingest makes messages durable. See the package comment.
type Ingest struct {
	cfg     Config
	db      *store.DB
	blobs   *pictures.Folder
	log     *slog.Logger
	queue   chan *job
	ready   chan struct{} // closed when messages may be taken
	stopped chan struct{} // closed when no more will be
	n       counters

	// Owned by Run:
	epochs int       // maxEpochs, less in tests
	folded time.Time // when telemetry was last added to rollups
	conn   *sql.Conn
	stmts  map[string]*sql.Stmt
	cache  *cache
}

// New makes an ingest that writes to db and keeps pictures in blobs.
func New(cfg Config, db *store.DB, blobs *pictures.Folder, log *slog.Logger) *Ingest {
	cfg.defaults()
	return &Ingest{
		cfg: cfg, db: db, blobs: blobs, log: log,
		queue: make(chan *job, queueLen), ready: make(chan struct{}), stopped: make(chan struct{}),
		stmts: map[string]*sql.Stmt{}, cache: newCache(shelf.MaxEpochs), epochs: shelf.MaxEpochs,
	}
}

// Stats tells the counters.
func (in *Ingest) Stats() Stats {
	return Stats{
		Messages: in.n.messages.Load(), Records: in.n.records.Load(), Duplicates: in.n.duplicates.Load(),
		Refused: in.n.refused.Load(), Unknown: in.n.unknown.Load(), Newer: in.n.newer.Load(), Commits: in.n.commits.Load(), Failures: in.n.failures.Load(),
		Chunks: in.n.chunks.Load(), NoPicture: in.n.noPicture.Load(),
	}
}

// Run writes until the context ends; then it commits what has queued and returns.
// It may be called once, and holds the ledger's write connection meanwhile.
func (in *Ingest) Run(ctx context.Context) (err error) {
	defer in.drain()
	if in.conn, err = in.db.Write.Conn(ctx); err != nil {
		return fmt.Errorf("open ledger for writing: %w", err)
	}
	if _, err := in.conn.ExecContext(ctx, "UPDATE board SET online = 0 WHERE online = 1"); err != nil {
		return fmt.Errorf("open ledger for writing: %w", err)
	}
	// This program may be the one that was asked for. Who is still newer says so again.
	if _, err := in.conn.ExecContext(ctx, "DELETE FROM report WHERE subject = ?", store.SubjectVersion); err != nil {
		return fmt.Errorf("open ledger for writing: %w", err)
	}
	if err := in.sweep(ctx); err != nil {
		return err
	}
	in.db.Live.Begin()
	close(in.ready)
	t := time.NewTicker(tick)
	defer t.Stop()
	batch := make([]*job, 0, batchMax)
	for {
		batch = batch[:0]
		select {
		case j := <-in.queue:
			batch = append(batch, j)
		case <-t.C:
			in.maintain(false)
			continue
		case <-ctx.Done():
			for batch = in.fill(batch); len(batch) > 0; batch = in.fill(batch[:0]) {
				in.commit(batch)
			}
			in.maintain(true)
			return nil
		}
		in.commit(in.fill(batch))
	}
}

// fill takes what has queued up, without waiting.
func (in *Ingest) fill(batch []*job) []*job {
	for len(batch) < batchMax {
		select {
		case j := <-in.queue:
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

// drain answers whoever still waits.
func (in *Ingest) drain() {
	close(in.stopped)
	for _, s := range in.stmts {
		_ = s.Close()
	}
	if in.conn != nil {
		_ = in.conn.Close()
	}
}

// commit writes a batch in one transaction. Should it fail, each job is tried
// alone, so that one job that can not be written does not hold up the others.
func (in *Ingest) commit(batch []*job) {
	// Where more comes than can be written, what nobody waits for any more would take the
	// time of what somebody does. Its board has no PUBACK and sends it again.
	batch = slices.DeleteFunc(batch, func(j *job) bool { return j.ctx.Err() != nil })
	if len(batch) == 0 {
		return
	}
	err := in.transact(batch)
	if err != nil {
		in.log.Error("ledger not written", "messages", len(batch), "error", err.Error())
	}
	if err == nil || len(batch) == 1 {
		for _, j := range batch {
			j.done <- err
		}
	} else {
		for _, j := range batch {
			j.done <- in.transact([]*job{j})
		}
	}
}

// transact runs jobs and what has been coalesced in one transaction. It takes no
// context on purpose: a commit under way is finished, and its duration is bounded
// by the batch.
func (in *Ingest) transact(batch []*job) error {
	return in.within(func(x *txn) error { return x.run(batch) })
}

// within runs fn in a transaction.
func (in *Ingest) within(fn func(*txn) error) error {
	ctx := context.Background()
	_, err := in.conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	if err == nil {
		x := &txn{
			in: in, now: time.Now().UnixMilli(), cache: in.cache, changed: map[BoardKey]bool{},
			boards: map[BoardKey]*boardState{}, opened: map[openBoot]bool{},
		}
		if err = fn(x); err == nil {
			_, err = in.conn.ExecContext(ctx, "COMMIT")
		}
		if err == nil {
			x.committed()
			return nil
		}
		_, _ = in.conn.ExecContext(ctx, "ROLLBACK") // where the commit failed it may be gone already
		// Books and sums in memory are ahead of the disk now.
		in.cache = newCache(in.epochs)
	}
	in.n.failures.Add(1)
	return fmt.Errorf("write ledger: %w", err)
}

// submit queues a job and waits until it is committed.
func (in *Ingest) submit(ctx context.Context, key BoardKey, apply func(*txn) error) error {
	return in.await(&job{ctx: ctx, key: key, apply: apply, done: make(chan error, 1)})
}

func (in *Ingest) await(j *job) error {
	ctx := j.ctx
	select {
	case in.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-in.stopped:
		return ErrStopped
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-in.stopped:
	}
	select { // Run answered, then ended
	case err := <-j.done:
		return err
	default:
		return ErrStopped
	}
}

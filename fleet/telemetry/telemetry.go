// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"fulmar/fleet/telemetry/feed"
	"fulmar/fleet/telemetry/points"
	"fulmar/fleet/telemetry/promapi"
	"fulmar/fleet/telemetry/remote"
	"fulmar/fleet/telemetry/scope"
	"fulmar/fleet/telemetry/traces"
	"fulmar/internal/run"
)

const (
	// backlog is how far behind the newest sample an old one is still taken: boards keep
	// their records for 30 days by default.
	backlog = 30 * 24 * time.Hour
	// lookback is how old a sample may be and still be the present value: as in
	// Prometheus, longer than any period of a sensor.
	lookback = 5 * time.Minute
	// headSpan is how much time the head may hold before it is made into blocks at once:
	// a database made anew from the ledger runs through months in minutes.
	headSpan = 8 * time.Hour
	grace    = 3 * time.Second
)

// Sources is where the telemetry reads.
type Sources struct {
	// Ledger is the ledger, read only.
	Ledger *sql.DB
	// Boards gives the fleet's word on the boards of a tenant; nil: none is sampled.
	Boards func(ctx context.Context, tenant string) ([]BoardState, error)
	// Sites gives the site of each board of a tenant that has one; nil: none has.
	Sites func(ctx context.Context, tenant string) (map[string]string, error)
}

// DB is the database and what feeds it.
type DB struct {
	cfg    Config
	src    Sources
	log    *slog.Logger
	reg    *prometheus.Registry
	tsdb   *tsdb.DB
	engine *promql.Engine
	feed   *feed.Feed
	boards *points.Book // of the fleet's own series; only by the watcher
	states map[string]map[string]string
	api    http.Handler
	remote []*remote.Writer
	traces *traces.Exporter // nil: none

	mu     sync.Mutex
	counts Stats
}

// Stats counts since the start.
type Stats struct {
	Appended   uint64 // samples
	Duplicates uint64 // samples of a moment that has another value already: left out
	TooOld     uint64 // samples over 30 days behind the newest: left out
	Refused    uint64 // samples of series that found no place
	Live       int    // series that are live
	Missed     uint64 // rows of the ledger that were pruned before they were read
	Behind     int64  // rows of the ledger that wait
}

// Open opens or makes the database in the folder.
func Open(dir string, cfg Config, src Sources, log *slog.Logger) (_ *DB, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	cfg = cfg.WithDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	d := &DB{cfg: cfg, src: src, log: log, reg: prometheus.NewRegistry(), boards: points.NewBook(cfg.limits()), states: map[string]map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	o := tsdb.DefaultOptions()
	o.RetentionDuration, o.MaxBytes = cfg.Retention.Milliseconds(), cfg.MiB<<20
	o.OutOfOrderTimeWindow = backlog.Milliseconds()
	o.NoLockfile = true // the data folder is locked as a whole
	o.WALCompression = compression.Snappy
	// A database that is gone takes its cursor with it: both lie in one folder.
	if d.tsdb, err = tsdb.Open(filepath.Join(dir, "tsdb"), quiet(log), d.reg, o, nil); err != nil {
		return nil, fmt.Errorf("open telemetry: %w; the folder may be removed, it is made anew from the ledger", err)
	}
	d.engine = promql.NewEngine(promql.EngineOpts{
		Logger: quiet(log), Reg: d.reg, MaxSamples: cfg.QuerySamples, Timeout: cfg.QueryTimeout, LookbackDelta: lookback,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: scope.Parser(),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
	})
	if d.feed, err = feed.New(d.feedConfig(filepath.Join(dir, "tsdb", "cursor")), (*sink)(d)); err != nil {
		return nil, err
	}
	d.api = promapi.New(promapi.Config{Queries: cfg.Queries, Timeout: cfg.QueryTimeout}, d.engine, d.tsdb)
	for _, r := range cfg.RemoteWrite {
		w, err := remote.New(r, filepath.Join(dir, "remote-"+r.Name), remote.Sources{Feed: d.feedConfig(""), TSDB: d.tsdb, Tenants: d.tenants}, log)
		if err != nil {
			return nil, fmt.Errorf("telemetry: remote_write %s: %w", r.Name, err)
		}
		d.remote = append(d.remote, w)
	}
	if cfg.Traces.URL != "" {
		d.traces = traces.New(cfg.Traces, src.Ledger, log)
	}
	d.register()
	return d, nil
}

func (d *DB) feedConfig(state string) feed.Config {
	return feed.Config{Ledger: d.src.Ledger, State: state, Sites: d.src.Sites, Limits: d.cfg.limits(), Log: d.log}
}

// quiet lets only warnings and errors of the database through: it tells of each block.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(atLeastWarn{log.Handler()}) }

type atLeastWarn struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (h atLeastWarn) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// Run feeds the database until the context ends.
func (d *DB) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("feed", d.feed.Run)
	if d.src.Boards != nil {
		g.Go("watch", d.watch)
	}
	for _, w := range d.remote {
		g.Go("remote write", w.Run)
	}
	if d.traces != nil {
		g.Go("traces", d.traces.Run)
	}
	return g.Wait(grace)
}

// Close closes the database; nothing of it may run any more.
func (d *DB) Close() error {
	var errs []error
	if d.tsdb != nil {
		errs = append(errs, d.tsdb.Close())
	}
	if d.engine != nil {
		errs = append(errs, d.engine.Close())
	}
	return errors.Join(errs...)
}

// Handler serves Prometheus' query API; its paths begin with /api/v1/, the caller strips
// what is before. The request's context must carry a [scope.Scope].
func (d *DB) Handler() http.Handler { return d.api }

// Sample is one element of an instant vector.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// maxInstant bounds the elements that Instant gives: one for each board of a large
// tenant and each of a few series.
const maxInstant = 100_000

// Instant evaluates an expression of a tenant at one moment. A number gives one sample
// without labels; a range or a string is an error.
func (d *DB) Instant(ctx context.Context, tenant, expr string, at time.Time) ([]Sample, error) {
	s := scope.Scope{Tenant: tenant}
	if tenant == "" {
		return nil, errors.New("expression without a tenant")
	}
	safe, err := s.Rewrite(expr)
	if err != nil {
		return nil, fmt.Errorf("expression %.100q: %w", expr, err)
	}
	q, err := d.engine.NewInstantQuery(ctx, s.Queryable(d.tsdb), nil, safe, at)
	if err != nil {
		return nil, fmt.Errorf("expression %.100q: %w", expr, err)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, fmt.Errorf("expression %.100q: %w", expr, res.Err)
	}
	switch v := res.Value.(type) {
	case promql.Scalar:
		return []Sample{{Labels: map[string]string{}, Value: v.V}}, nil
	case promql.Vector:
		if len(v) > maxInstant {
			return nil, fmt.Errorf("expression %.100q gives %d samples, at most %d; aggregate them", expr, len(v), maxInstant)
		}
		out := make([]Sample, 0, len(v))
		for _, x := range v {
			if x.H == nil {
				out = append(out, Sample{x.Metric.Map(), x.F})
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("expression %.100q gives a %s; a guard or a rule wants one value for each series: put it into avg_over_time or the like", expr, res.Value.Type())
}

// sink takes the points of the feeder.
type sink DB

// Append implements [feed.Sink].
func (s *sink) Append(ctx context.Context, ps []points.Point) error {
	d := (*DB)(s)
	if err := d.append(ctx, ps); err != nil {
		return err
	}
	if h := d.tsdb.Head(); h.MaxTime() != math.MinInt64 && h.MaxTime()-h.MinTime() > headSpan.Milliseconds() {
		if err := d.tsdb.Compact(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("compact telemetry: %w", err)
		}
	}
	return nil
}

// append adds the points in one commit. A sample that the database has already is no
// error: the feeder gives what it is not sure of again.
func (d *DB) append(ctx context.Context, ps []points.Point) error {
	app := d.tsdb.Appender(ctx)
	var n Stats
	for i := range ps {
		p := &ps[i]
		ref, err := app.Append(storage.SeriesRef(p.Series.Ref), p.Series.Labels, p.T, p.V)
		switch {
		case err == nil:
			p.Series.Ref = uint64(ref)
			n.Appended++
		case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
			n.Duplicates++
		case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample):
			n.TooOld++
		default:
			return errors.Join(fmt.Errorf("append to telemetry: %w", err), app.Rollback())
		}
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("append to telemetry: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.Appended += n.Appended
	d.counts.Duplicates += n.Duplicates
	d.counts.TooOld += n.TooOld
	return nil
}

// Sync implements [feed.Sink]: what was appended survives a power loss. The database
// itself writes its log to the kernel at each commit and leaves the rest to it.
func (s *sink) Sync() error {
	for _, log := range []string{"wal", "wbl"} {
		dir := filepath.Join((*DB)(s).tsdb.Dir(), log)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sync telemetry: %w", err)
		}
		// Segments are synced when the next one begins: the newest is left, and the one
		// before it in case it has just begun.
		for _, e := range entries[max(0, len(entries)-2):] {
			if err := syncFile(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("sync telemetry: %w", err)
			}
		}
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a checkpoint took it
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

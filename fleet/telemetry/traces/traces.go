// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package traces tells a collector the way of sampled detection events, from the picture
// to the ledger, as OpenTelemetry traces over HTTP (OTLP 1.x, protobuf, written by hand:
// neither the board nor the fleet carries a tracing SDK).
//
// An event's trace id is made of its identity, see [ID], so that page, API and collector
// agree on it without anything more on the wire or in the ledger. Its spans are what the
// ledger knows of its time: from capture to arrival, in it the inference that the worker
// measured, and the rest, which is the board's queue, the network and the commit.
package traces

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fulmar/schema"
)

const (
	poll = time.Second
	// step is how many events one reading looks at, queue how many spans wait for the
	// collector: half a megabyte. What is over it is dropped and counted: traces are a
	// sample, the ledger has everything.
	step, queue = 1000, 4096
	batch       = 512
	timeout     = 10 * time.Second
	maxSecret   = 4 << 10
)

// Config names the collector.
type Config struct {
	// URL of the collector, https://host:4318/v1/traces; "": none. http only to this machine.
	URL string `yaml:"url"`
	// TokenFile holds a bearer token; "" = none.
	TokenFile string `yaml:"token_file"`
	// Share is how many events are told, 0 to 1. Default 0.01.
	Share float64 `yaml:"share"`
}

// Validate checks the config; each error names the key.
func (c Config) Validate() error {
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return fmt.Errorf("url: %.100q is not https://host:4318/v1/traces without a password in it", c.URL)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("url: only a collector on this machine may be written to without TLS")
	}
	if !(c.Share >= 0 && c.Share <= 1) {
		return errors.New("share: wants 0 to 1")
	}
	return nil
}

// ID gives the trace id of a record of a tenant: the first 16 bytes of SHA-256 over
// tenant, board, class, epoch and number. Its last eight bytes are as good as random, as
// W3C Trace Context wants for sampling.
func ID(tenant string, id schema.ID) [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "fulmar trace\x00%s\x00%s", tenant, id))
	return [16]byte(sum[:16])
}

// span is the way of one event.
type span struct {
	trace          [16]byte
	tenant         string
	id             schema.ID
	at, arrived    int64 // ms
	latency        int64 // µs
	source, model  string
	engine         string
	boxes          int
	replayed, good bool // good: the moment is exact
}

// Exporter reads events from the ledger and tells a share of them.
type Exporter struct {
	cfg    Config
	ledger *sql.DB
	log    *slog.Logger
	client *http.Client
	wait   []span
	down   bool
	n      struct{ sent, dropped atomic.Uint64 }
}

// New makes an exporter.
func New(cfg Config, ledger *sql.DB, log *slog.Logger) *Exporter {
	if cfg.Share == 0 {
		cfg.Share = 0.01
	}
	return &Exporter{cfg: cfg, ledger: ledger, log: log, client: &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Register puts what is counted into the registry.
func (x *Exporter) Register(reg *prometheus.Registry) {
	count := func(name, help string, n *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "fulmar_traces_" + name, Help: help}, func() float64 { return float64(n.Load()) }))
	}
	count("sent_total", "Events whose way was told to the collector.", &x.n.sent)
	count("dropped_total", "Events whose way was not told: the collector did not take them in time.", &x.n.dropped)
}

// Run tells of what arrives from now on.
func (x *Exporter) Run(ctx context.Context) error {
	defer x.client.CloseIdleConnections()
	last := int64(-1)
	for {
		var err error
		if last < 0 {
			err = x.ledger.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM event`).Scan(&last)
		} else {
			last, err = x.read(ctx, last)
		}
		if err == nil {
			err = x.send(ctx)
		}
		if err != nil && ctx.Err() == nil && !x.down {
			x.log.Warn("traces are not taken; events that come are dropped from them when the queue is full", "err", err)
		}
		x.down = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(poll):
		}
	}
}

// read takes the events after the row into the queue, those that the lot falls on.
func (x *Exporter) read(ctx context.Context, after int64) (int64, error) {
	var hi int64
	if err := x.ledger.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM event`).Scan(&hi); err != nil || hi < after {
		return hi, err // hi < after: rows were removed, their numbers come again
	}
	rows, err := x.ledger.QueryContext(ctx, `SELECT e.id, b.tenant, b.name, e.class, e.epoch, e.seq, e.at, e.arrived, e.replayed, e.timed, e.open, e.source, e.model, e.engine, e.boxes, e.payload
FROM event e JOIN board b ON b.id = e.board WHERE e.id > ? ORDER BY e.id LIMIT ?`, after, step)
	if err != nil {
		return after, fmt.Errorf("read events: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var s span
		var epoch, seq int64
		var timed int
		var open bool
		var payload []byte
		if err := rows.Scan(&after, &s.tenant, &s.id.Board, &s.id.Class, &epoch, &seq, &s.at, &s.arrived, &s.replayed, &timed, &open, &s.source, &s.model, &s.engine, &s.boxes, &payload); err != nil {
			return after, fmt.Errorf("read events: %w", err)
		}
		s.id.Epoch, s.id.Seq = uint64(epoch), uint64(seq)
		s.trace = ID(s.tenant, s.id)
		if !chosen(s.trace, x.cfg.Share) {
			continue
		}
		var e schema.Event
		if schema.Decode(payload, &e) == nil {
			s.latency = int64(e.LatencyUs)
		}
		s.good = !open
		if len(x.wait) >= queue {
			x.n.dropped.Add(1)
			continue
		}
		x.wait = append(x.wait, s)
	}
	return after, rows.Err()
}

// chosen draws by the trace id itself, so that all who sample by it agree.
func chosen(id [16]byte, share float64) bool {
	return float64(binary.BigEndian.Uint64(id[8:])>>11)/(1<<53) < share
}

// send empties the queue; what the collector refuses for good is dropped.
func (x *Exporter) send(ctx context.Context) error {
	for len(x.wait) > 0 {
		n := min(len(x.wait), batch)
		again, err := x.post(ctx, encode(x.wait[:n]))
		switch {
		case err == nil:
			x.n.sent.Add(uint64(n))
		case again:
			return err
		default:
			x.n.dropped.Add(uint64(n))
			x.log.Warn("traces refused by the collector", "err", err)
		}
		x.wait = append(x.wait[:0], x.wait[n:]...)
	}
	return nil
}

func (x *Exporter) post(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if x.cfg.TokenFile != "" {
		b, err := os.ReadFile(x.cfg.TokenFile)
		if err != nil || len(b) > maxSecret {
			return true, errors.Join(fmt.Errorf("token_file: %s cannot be used", x.cfg.TokenFile), err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
	}
	res, err := x.client.Do(req)
	if err != nil {
		return true, err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4096))
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	// https://opentelemetry.io/docs/specs/otlp/#otlphttp-response: these may be sent
	// again; a wrong token or address is for a person to see to.
	switch res.StatusCode {
	case 401, 403, 404, 429, 502, 503, 504:
		again = true
	}
	return again, fmt.Errorf("collector: %s", res.Status)
}

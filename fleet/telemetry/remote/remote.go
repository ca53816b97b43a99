// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package remote writes all samples to other databases by Prometheus' remote write 1.0
// (https://prometheus.io/docs/specs/prw/remote_write_spec/): to Prometheus itself,
// VictoriaMetrics, Mimir, Thanos.
//
// What boards delivered is read from the ledger behind a cursor of the receiver's own,
// so that a receiver that was away for days gets everything the ledger still has. The
// cursor moves when the receiver has said 2xx. After a crash some samples are sent
// again; receivers take the same sample twice.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"

	"fulmar/fleet/telemetry/feed"
	"fulmar/fleet/telemetry/points"
	"fulmar/internal/run"
)

const (
	// batch is how many samples one request has, as Prometheus sends by default.
	batch = 2000
	// timeout bounds one request.
	timeout = 30 * time.Second
	// retryFirst and retryLast bound the wait between tries; half of it is drawn by lot.
	retryFirst, retryLast = 500 * time.Millisecond, time.Minute
	// maxSecret bounds the files of secrets, maxSaid what is kept of an answer.
	maxSecret, maxSaid = 4 << 10, 300
	grace              = 2 * time.Second
)

// Sources is where the samples come from.
type Sources struct {
	Feed    feed.Config // without State
	TSDB    storage.Queryable
	Tenants func(context.Context) ([]string, error)
}

// Writer writes to one receiver.
type Writer struct {
	cfg    Config
	src    Sources
	client *http.Client
	feed   *feed.Feed
	own    string // file of the moment up to which the fleet's own series were sent
	from   int64  // that moment at the start, ms
	log    *slog.Logger
	down   atomic.Bool
	n      struct{ sent, retries, refused atomic.Uint64 }
}

// New makes a writer whose cursors are kept beside the given path.
func New(cfg Config, path string, src Sources, log *slog.Logger) (*Writer, error) {
	if cfg.Shards == 0 {
		cfg.Shards = defaultShards
	}
	w := &Writer{cfg: cfg, src: src, own: path + ".own", log: log.With("receiver", cfg.Name)}
	t := &http.Transport{MaxIdleConnsPerHost: cfg.Shards, MaxConnsPerHost: 2 * cfg.Shards, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: timeout, IdleConnTimeout: time.Minute}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate", cfg.CAFile)
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	// A redirect would take the samples, and maybe the token, elsewhere.
	w.client = &http.Client{Transport: t, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	src.Feed.State, src.Feed.Log = path, w.log
	var err error
	if w.feed, err = feed.New(src.Feed, w); err != nil {
		return nil, err
	}
	if w.from, err = w.ownFrom(); err != nil {
		return nil, err
	}
	return w, nil
}

// Run writes until the context ends.
func (w *Writer) Run(ctx context.Context) error {
	defer w.client.CloseIdleConnections()
	g := run.New(ctx)
	g.Go("records", w.feed.Run)
	g.Go("own series", w.runOwn)
	return g.Wait(grace)
}

// Sync implements [feed.Sink]: the receiver has said that it has them.
func (w *Writer) Sync() error { return nil }

// Append implements [feed.Sink]: it returns when the receiver has answered for all
// points. Those of one series go through one shard, in order.
func (w *Writer) Append(ctx context.Context, ps []points.Point) error {
	shards := make([][]points.Point, w.cfg.Shards)
	for _, p := range ps {
		i := p.Series.Labels.Hash() % uint64(len(shards))
		shards[i] = append(shards[i], p)
	}
	errs := make([]error, len(shards))
	var wg sync.WaitGroup
	for i, s := range shards {
		wg.Go(func() {
			for len(s) > 0 && errs[i] == nil {
				n := min(len(s), batch)
				errs[i] = w.deliver(ctx, s[:n])
				s = s[n:]
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// deliver sends one request until the receiver has taken it or refused it for good.
func (w *Writer) deliver(ctx context.Context, ps []points.Point) error {
	body := snappy.Encode(nil, encode(ps))
	wait := retryFirst
	for {
		again, err := w.post(ctx, body)
		if err == nil {
			w.n.sent.Add(uint64(len(ps)))
			if w.down.Swap(false) {
				w.log.Info("remote write goes on")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var no refusal
		if errors.As(err, &no) { // it would say the same again, and hold up what is behind
			w.n.refused.Add(uint64(len(ps)))
			w.log.Warn("samples refused by the receiver are left out", "samples", len(ps), "err", err)
			return nil
		}
		if !w.down.Swap(true) {
			w.log.Warn("remote write fails; tried again, nothing is lost while the ledger has it", "err", err)
		}
		w.n.retries.Add(1)
		pause := max(wait/2+rand.N(wait/2), again)
		wait = min(2*wait, retryLast)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// refusal is an answer that will not change.
type refusal struct{ said string }

func (r refusal) Error() string { return r.said }

func (w *Writer) post(ctx context.Context, body []byte) (again time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	h := req.Header
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("Content-Encoding", "snappy")
	h.Set("User-Agent", "fulmar-fleet")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if w.cfg.OrgID != "" {
		h.Set("X-Scope-OrgID", w.cfg.OrgID)
	}
	// Secrets are read anew each time: they are replaced without a restart.
	if w.cfg.TokenFile != "" {
		token, err := secret(w.cfg.TokenFile)
		if err != nil {
			return 0, err
		}
		h.Set("Authorization", "Bearer "+token)
	}
	if w.cfg.Username != "" {
		pw, err := secret(w.cfg.PasswordFile)
		if err != nil {
			return 0, err
		}
		req.SetBasicAuth(w.cfg.Username, pw)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	said, _ := io.ReadAll(io.LimitReader(res.Body, maxSaid))
	switch {
	case res.StatusCode/100 == 2:
		return 0, nil
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode/100 == 5:
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
			again = min(time.Duration(min(s, 3600))*time.Second, retryLast)
		}
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden, res.StatusCode == http.StatusNotFound, res.StatusCode/100 == 3:
		// A wrong token or address: a person has to see to it, the samples are good.
	default:
		return 0, refusal{fmt.Sprintf("%s: %s", res.Status, strings.TrimSpace(string(said)))}
	}
	return again, fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(said)))
}

func secret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	return strings.TrimSpace(string(b)), err
}

// Register puts what is counted into the registry.
func (w *Writer) Register(reg *prometheus.Registry) {
	label := prometheus.Labels{"receiver": w.cfg.Name}
	count := func(name, help string, n *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "fulmar_remote_write_" + name, Help: help, ConstLabels: label}, func() float64 { return float64(n.Load()) }))
	}
	count("samples_total", "Samples that the receiver took.", &w.n.sent)
	count("retries_total", "Requests that failed and were sent again.", &w.n.retries)
	count("refused_total", "Samples that the receiver refused for good.", &w.n.refused)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fulmar_remote_write_rows_behind", Help: "Rows of the ledger that the receiver has not got.", ConstLabels: label},
		func() float64 { return float64(w.feed.Stats().Behind) }))
}

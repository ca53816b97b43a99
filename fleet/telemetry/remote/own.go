// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"fulmar/fleet/telemetry/points"
	"fulmar/fleet/telemetry/scope"
	"fulmar/internal/atomicfile"
)

const (
	// ownEvery is how often the fleet's own series are sent, ownLag how far behind: they
	// are sampled with the moment at which their round began.
	ownEvery, ownLag = 15 * time.Second, 30 * time.Second
	// ownSpan is how much time one reading takes: 10,000 boards have 0.8 million samples
	// in a minute.
	ownSpan = time.Minute
	// ownBack is from when on a new receiver gets them.
	ownBack = time.Hour
	// ownName matches the fleet's own series; the ledger does not have them.
	ownName = "fulmar_board_.+"
)

// runOwn sends the fleet's own series out of the database, by time: nothing of them ever
// comes late.
func (w *Writer) runOwn(ctx context.Context) error {
	from := w.from
	tick := time.NewTicker(ownEvery)
	defer tick.Stop()
	for {
		for to := from + ownSpan.Milliseconds(); to <= time.Now().Add(-ownLag).UnixMilli(); to = from + ownSpan.Milliseconds() {
			if err := w.sendOwn(ctx, from+1, to); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				w.log.Warn("the fleet's own series are not sent; tried again", "err", err)
				break
			}
			if err := atomicfile.WriteFile(w.own, strconv.AppendInt(nil, to, 10), 0o600); err != nil {
				w.log.Error("cursor of remote write not kept", "err", err)
				break
			}
			from = to
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Writer) ownFrom() (int64, error) {
	b, err := os.ReadFile(w.own)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Now().Add(-ownBack).UnixMilli(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("cursor of remote write: %w", err)
	}
	from, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		w.log.Warn("the cursor of remote write cannot be read; the last hour of the fleet's own series is sent again", "file", w.own)
		return time.Now().Add(-ownBack).UnixMilli(), nil
	}
	return from, nil
}

// sendOwn sends what lies between the moments, both included, ms.
func (w *Writer) sendOwn(ctx context.Context, from, to int64) error {
	tenants, err := w.src.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		q, err := scope.Scope{Tenant: t}.Queryable(w.src.TSDB).Querier(from, to)
		if err != nil {
			return err
		}
		set := q.Select(ctx, false, nil, labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ownName))
		var ps []points.Point
		for err == nil && set.Next() {
			s := &points.Series{Labels: set.At().Labels()}
			it := set.At().Iterator(nil)
			for it.Next() == chunkenc.ValFloat {
				at, v := it.At()
				ps = append(ps, points.Point{Series: s, T: at, V: v})
			}
			if err = it.Err(); err == nil && len(ps) >= batch*w.cfg.Shards {
				err = w.Append(ctx, ps)
				ps = ps[:0]
			}
		}
		if err == nil {
			err = set.Err()
		}
		if err == nil && len(ps) > 0 {
			err = w.Append(ctx, ps)
		}
		if err = errors.Join(err, q.Close()); err != nil {
			return err
		}
	}
	return nil
}

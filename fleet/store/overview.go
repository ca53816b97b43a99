// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"fulmar/fleet/web"
	"fulmar/schema"
)

// newestGaps is how many gaps an Overview shows of each board.
const newestGaps = 50

// Reading is the newest value of a series, as column latest keeps it.
type Reading struct {
	_       struct{} `cbor:",toarray"`
	Value   float64
	Quality schema.Quality
	At      int64 // ms since 1970
}

// Enrolled is a board as the registry knows it.
type Enrolled struct {
	Name    string
	KeyMode string
	Facts   map[string]string // told at enrolment; newer ones come with each hello
	At      time.Time
	Revoked bool
	Trust   *web.Trust // how it proves who it is; nil: nothing is known
}

// Store answers questions about what boards have said.
type Store struct {
	ledger   *DB
	enrolled func(ctx context.Context, tenant string) ([]Enrolled, error)
	picture  func(tenant, board, name string) (*os.File, error)
}

var _ web.Source = (*Store)(nil)

// New makes a store over the ledger; enrolled lists the boards of a tenant,
// picture opens a whole picture (fs.ErrNotExist where there is none).
func New(ledger *DB, enrolled func(context.Context, string) ([]Enrolled, error), picture func(tenant, board, name string) (*os.File, error)) *Store {
	return &Store{ledger: ledger, enrolled: enrolled, picture: picture}
}

// view is one read transaction: everything in it is of one moment.
type view struct {
	tx     *sql.Tx
	tenant string
	now    time.Time
	boards map[int64]*row
}

// row is a board under construction.
type row struct {
	web.Board
	onlineSince int64
	period      int64
	reportSince map[string]int64
}

// Overview implements [web.Source].
func (s *Store) Overview(ctx context.Context, tenant string) (*web.Overview, error) {
	known, err := s.enrolled(ctx, tenant)
	if err != nil {
		return nil, err
	}
	tx, err := s.ledger.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	v := &view{tx: tx, tenant: tenant, now: time.Now(), boards: map[int64]*row{}}
	for _, read := range []func(context.Context) error{v.readBoards, v.readStreams, v.readReasons, v.readReports, v.readCameras, v.readGaps} {
		if err := read(ctx); err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
	}
	heard := map[string]*row{}
	for _, r := range v.boards {
		heard[r.Name] = r
	}
	out := &web.Overview{At: v.now, Boards: []web.Board{}}
	for _, e := range known {
		r := heard[e.Name]
		if r == nil {
			r = &row{Board: web.Board{Name: e.Name}}
		}
		delete(heard, e.Name)
		r.KeyMode, r.Trust = e.KeyMode, e.Trust
		if len(r.Facts) == 0 {
			r.Facts = e.Facts
		}
		r.judge(v.now, e)
		out.Boards = append(out.Boards, r.Board)
	}
	// Boards of a foreign broker are heard of without being enrolled.
	for _, r := range heard {
		r.judge(v.now, Enrolled{})
		out.Boards = append(out.Boards, r.Board)
	}
	slices.SortFunc(out.Boards, func(a, b web.Board) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// each runs a query and scans each row with fn.
func (v *view) each(ctx context.Context, q string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := v.tx.QueryContext(ctx, q, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (v *view) readBoards(ctx context.Context) error {
	return v.each(ctx, `SELECT id, name, last_seen, online, online_since, period, release, facts, latest FROM board WHERE tenant = ?`, []any{v.tenant},
		func(scan func(...any) error) error {
			r := &row{reportSince: map[string]int64{}}
			var id, seen int64
			var facts string
			var latest []byte
			if err := scan(&id, &r.Name, &seen, &r.Online, &r.onlineSince, &r.period, &r.Release, &facts, &latest); err != nil {
				return err
			}
			r.LastSeen = at(seen)
			if err := json.Unmarshal([]byte(facts), &r.Facts); err != nil {
				return fmt.Errorf("facts of %s: %w", r.Name, err)
			}
			values := map[string]Reading{}
			if len(latest) > 0 {
				if err := cbor.Unmarshal(latest, &values); err != nil {
					return fmt.Errorf("newest values of %s: %w", r.Name, err)
				}
			}
			for name, x := range values {
				r.Latest = append(r.Latest, web.Reading{Series: name, Value: x.Value, Quality: x.Quality, At: at(x.At)})
			}
			slices.SortFunc(r.Latest, func(a, b web.Reading) int { return strings.Compare(a.Series, b.Series) })
			v.boards[id] = r
			return nil
		})
}

func (v *view) readStreams(ctx context.Context) error {
	return v.each(ctx, `SELECT board, class, sum(n), sum(heard), sum(arrived), sum(lost), sum(dups),
  coalesce(min(CASE WHEN heard > arrived + lost AND floor_at > 0 THEN floor_at END), 0) FROM (
  SELECT board, class, 1 AS n, heard, arrived, lost, dups, floor_at FROM stream
  UNION ALL SELECT board, class, epochs, heard, arrived, lost, dups, 0 FROM stream_past WHERE epochs > 0)
WHERE board IN (SELECT id FROM board WHERE tenant = ?) GROUP BY board, class ORDER BY board, class`, []any{v.tenant},
		func(scan func(...any) error) error {
			var id int64
			var c schema.Class
			var l web.Ledger
			var oldest int64
			if err := scan(&id, &c, &l.Epochs, &l.Made, &l.Arrived, &l.Lost, &l.Duplicates, &oldest); err != nil {
				return err
			}
			l.Oldest = at(oldest)
			l.Class = c.String()
			l.Waiting = l.Made - l.Arrived - l.Lost
			v.boards[id].Ledger = append(v.boards[id].Ledger, l)
			return nil
		})
}

// readReasons splits what was lost by reason.
func (v *view) readReasons(ctx context.Context) error {
	return v.each(ctx, `SELECT board, class, reason, count FROM loss WHERE count > 0 AND board IN (SELECT id FROM board WHERE tenant = ?)`, []any{v.tenant},
		func(scan func(...any) error) error {
			var id int64
			var c schema.Class
			var reason schema.Reason
			var n uint64
			if err := scan(&id, &c, &reason, &n); err != nil {
				return err
			}
			rows := v.boards[id].Ledger
			if i := slices.IndexFunc(rows, func(l web.Ledger) bool { return l.Class == c.String() }); i >= 0 {
				if rows[i].Reasons == nil {
					rows[i].Reasons = map[string]uint64{}
				}
				rows[i].Reasons[reason.String()] = n
			}
			return nil
		})
}

func (v *view) readReports(ctx context.Context) error {
	return v.each(ctx, `SELECT board, subject, state, severity, text, at, since FROM report
WHERE board IN (SELECT id FROM board WHERE tenant = ?) ORDER BY board, subject`, []any{v.tenant},
		func(scan func(...any) error) error {
			var id, when, since int64
			var r web.Report
			if err := scan(&id, &r.Subject, &r.State, &r.Severity, &r.Text, &when, &since); err != nil {
				return err
			}
			r.At = at(when)
			b := v.boards[id]
			b.Reports = append(b.Reports, r)
			b.reportSince[r.Subject] = since
			return nil
		})
}

func (v *view) readCameras(ctx context.Context) error {
	hour := v.now.Add(-time.Hour).UnixMilli()
	return v.each(ctx, `SELECT c.board, c.name, c.model, c.engine, c.last, count(e.id), coalesce(sum(e.boxes), 0), coalesce(max(e.known), 0),
  coalesce(sum(e.n_true), 0), coalesce(sum(e.n_false), 0), coalesce(sum(e.n_missed), 0)
FROM camera c JOIN board b ON b.id = c.board AND b.tenant = ?
LEFT JOIN event e ON e.board = c.board AND e.at > ? AND e.source = c.name
GROUP BY c.board, c.name ORDER BY c.board, c.name`, []any{v.tenant, hour},
		func(scan func(...any) error) error {
			var id, last int64
			var c web.Camera
			if err := scan(&id, &c.Name, &c.Model, &c.Engine, &last, &c.Events, &c.Boxes, &c.Known, &c.True, &c.False, &c.Missed); err != nil {
				return err
			}
			c.Last = at(last)
			v.boards[id].Cameras = append(v.boards[id].Cameras, c)
			return nil
		})
}

func (v *view) readGaps(ctx context.Context) error {
	return v.each(ctx, `SELECT board, class, first, last, count, reason, from_ms, to_ms, at FROM (
  SELECT *, row_number() OVER (PARTITION BY board ORDER BY id DESC) AS n FROM gap
  WHERE board IN (SELECT id FROM board WHERE tenant = ?)) WHERE n <= ? ORDER BY board, n`, []any{v.tenant, newestGaps},
		func(scan func(...any) error) error {
			var id, from, to, when int64
			var c schema.Class
			var reason schema.Reason
			var g web.Gap
			if err := scan(&id, &c, &g.First, &g.Last, &g.Count, &reason, &from, &to, &when); err != nil {
				return err
			}
			g.Class, g.Reason, g.From, g.To, g.At = c.String(), reason.String(), at(from), at(to), at(when)
			v.boards[id].Gaps = append(v.boards[id].Gaps, g)
			return nil
		})
}

// at turns ms since 1970 into a time; 0 is the zero time.
func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Picture implements [web.Source].
func (s *Store) Picture(ctx context.Context, tenant, board, blob string) (io.ReadSeekCloser, error) {
	var n int
	err := s.ledger.Read.QueryRowContext(ctx, `SELECT count(*) FROM snapshot s JOIN board b ON b.id = s.board
WHERE b.tenant = ? AND b.name = ? AND s.name = ? AND s.has = 1`, tenant, board, blob).Scan(&n)
	if err != nil {
		return nil, fmt.Errorf("look up picture: %w", err)
	}
	if n == 0 {
		return nil, web.ErrNotFound
	}
	f, err := s.picture(tenant, board, blob)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, web.ErrNotFound // evicted between the two
	}
	if err != nil {
		return nil, fmt.Errorf("open picture: %w", err)
	}
	return f, nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"fulmar/fleet/store/live"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// newestGaps is how many gaps an Overview shows of each board.
const newestGaps = 50

// row is what is remembered of a board: all of web.Board but what the registry knows and
// what is judged. Its slices and maps are in snapshots too: they are replaced, never
// changed.
type row struct {
	web.Board
	id          int64
	onlineSince int64
	period      int64
	reportSince map[string]int64
	hours       map[string]*hour // of cameras
	listed      uint64           // in which snapshot
}

// view is one read transaction: everything in it is of one moment.
type view struct {
	tx  *sql.Tx
	t   *tenant
	now time.Time
}

// scope is which rows a query is about: of all boards of the tenant, or of some.
type scope struct {
	where string
	args  []any
}

func (v *view) everything() scope {
	return scope{`board IN (SELECT id FROM board WHERE tenant = ?)`, []any{v.t.name}}
}

// only is about some boards, by their ids.
func only(ids []int64) (scope, error) {
	list, err := json.Marshal(ids)
	return scope{`board IN (SELECT value FROM json_each(?))`, []any{string(list)}}, err
}

// readAll reads everything. What cameras saw in the last hour is counted anew where rows
// may have got new numbers.
func (v *view) readAll(ctx context.Context, recount bool) error {
	was := v.t.rows
	v.t.rows, v.t.ids = map[string]*row{}, map[int64]*row{}
	if err := v.readBoards(ctx, scope{`tenant = ?`, []any{v.t.name}}); err != nil {
		return err
	}
	if recount || was == nil {
		v.t.event, was = -1, nil
	}
	for name, old := range was {
		if r := v.t.rows[name]; r != nil {
			r.hours = old.hours
		}
	}
	return v.readDetails(ctx, v.everything())
}

// readSome reads what was told to have changed.
func (v *view) readSome(ctx context.Context, told []live.Told) error {
	var names []string // all of them is read
	var ids []int64    // their books alone
	for i := range told {
		x := &told[i]
		r := v.t.rows[x.Name]
		switch { // of one that is gone all is read, see refresh
		case r == nil || x.Cold:
			names = append(names, x.Name)
		default:
			ids = append(ids, r.id)
		}
	}
	if err := v.readNames(ctx, names); err != nil {
		return err
	}
	if len(ids) == 0 {
		return nil
	}
	s, err := only(ids)
	if err != nil {
		return err
	}
	return v.readStreams(ctx, s)
}

// readNames reads all of some boards anew.
func (v *view) readNames(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	list, err := json.Marshal(names)
	if err != nil {
		return err
	}
	was := map[string]*row{}
	for _, n := range names {
		if r := v.t.rows[n]; r != nil {
			was[n] = r
			delete(v.t.rows, n)
			delete(v.t.ids, r.id)
		}
	}
	err = v.readBoards(ctx, scope{`tenant = ? AND name IN (SELECT value FROM json_each(?))`, []any{v.t.name, string(list)}})
	if err != nil {
		return err
	}
	var all, fresh []int64
	for _, n := range names {
		r := v.t.rows[n]
		if r == nil {
			continue // wiped since
		}
		all = append(all, r.id)
		if old := was[n]; old != nil && old.id == r.id {
			r.hours = old.hours // what it saw goes on
		} else {
			fresh = append(fresh, r.id)
		}
	}
	s, err := only(all)
	if err != nil {
		return err
	}
	if err := v.readDetails(ctx, s); err != nil {
		return err
	}
	if s, err = only(fresh); err != nil || len(fresh) == 0 {
		return err
	}
	return v.recount(ctx, s)
}

// readDetails reads all of some boards but their rows.
func (v *view) readDetails(ctx context.Context, s scope) error {
	for _, read := range []func(context.Context, scope) error{v.readStreams, v.readReports, v.readCameras, v.readGaps} {
		if err := read(ctx, s); err != nil {
			return err
		}
	}
	return nil
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

func (v *view) readBoards(ctx context.Context, s scope) error {
	return v.each(ctx, `SELECT id, name, online, online_since, release, facts, coalesce(last_seen, 0), coalesce(period, 0), latest
FROM board LEFT JOIN board_live ON board = id WHERE `+s.where, s.args,
		func(scan func(...any) error) error {
			r := &row{reportSince: map[string]int64{}, hours: map[string]*hour{}}
			var facts string
			var latest []byte
			var x live.Values
			if err := scan(&r.id, &r.Name, &r.Online, &r.onlineSince, &r.Release, &facts, &x.LastSeen, &x.Period, &latest); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(facts), &r.Facts); err != nil {
				return fmt.Errorf("facts of %s: %w", r.Name, err)
			}
			if err := x.Parse(latest); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
			r.take(&x)
			v.t.rows[r.Name], v.t.ids[r.id] = r, r
			return nil
		})
}

// readStreams reads the books of numbers, and the reasons of what was lost.
func (v *view) readStreams(ctx context.Context, s scope) error {
	fresh := map[int64][]web.Ledger{}
	err := v.each(ctx, `SELECT board, class, sum(n), sum(heard), sum(arrived), sum(lost), sum(dups),
  coalesce(min(CASE WHEN heard > arrived + lost AND floor_at > 0 THEN floor_at END), 0) FROM (
  SELECT board, class, 1 AS n, heard, arrived, lost, dups, floor_at FROM stream WHERE `+s.where+`
  UNION ALL SELECT board, class, epochs, heard, arrived, lost, dups, 0 FROM stream_past WHERE epochs > 0 AND `+s.where+`)
GROUP BY board, class ORDER BY board, class`, append(s.args[:len(s.args):len(s.args)], s.args...),
		func(scan func(...any) error) error {
			var id int64
			var c schema.Class
			var l web.Ledger
			var oldest int64
			if err := scan(&id, &c, &l.Epochs, &l.Made, &l.Arrived, &l.Lost, &l.Duplicates, &oldest); err != nil {
				return err
			}
			l.Oldest = When(oldest)
			l.Class = c.String()
			l.Waiting = l.Made - l.Arrived - l.Lost
			fresh[id] = append(fresh[id], l)
			return nil
		})
	if err == nil {
		err = v.each(ctx, `SELECT board, class, reason, count FROM loss WHERE count > 0 AND `+s.where, s.args, func(scan func(...any) error) error {
			var id int64
			var c schema.Class
			var reason schema.Reason
			var n uint64
			if err := scan(&id, &c, &reason, &n); err != nil {
				return err
			}
			rows := fresh[id]
			if i := slices.IndexFunc(rows, func(l web.Ledger) bool { return l.Class == c.String() }); i >= 0 {
				if rows[i].Reasons == nil {
					rows[i].Reasons = map[string]uint64{}
				}
				rows[i].Reasons[reason.String()] = n
			}
			return nil
		})
	}
	for id, l := range fresh {
		if r := v.t.ids[id]; r != nil {
			r.Ledger = l
		}
	}
	return err
}

func (v *view) readReports(ctx context.Context, s scope) error {
	return v.each(ctx, `SELECT board, subject, state, severity, text, at, since FROM report WHERE `+s.where+` ORDER BY board, subject`, s.args,
		func(scan func(...any) error) error {
			var id, when, since int64
			var r web.Report
			if err := scan(&id, &r.Subject, &r.State, &r.Severity, &r.Text, &when, &since); err != nil {
				return err
			}
			r.At = When(when)
			b := v.t.ids[id]
			b.Reports = append(b.Reports, r)
			b.reportSince[r.Subject] = since
			return nil
		})
}

func (v *view) readCameras(ctx context.Context, s scope) error {
	return v.each(ctx, `SELECT board, name, model, engine, last FROM camera WHERE `+s.where+` ORDER BY board, name`, s.args,
		func(scan func(...any) error) error {
			var id, last int64
			var c web.Camera
			if err := scan(&id, &c.Name, &c.Model, &c.Engine, &last); err != nil {
				return err
			}
			c.Last = When(last)
			v.t.ids[id].Cameras = append(v.t.ids[id].Cameras, c)
			return nil
		})
}

// readGaps reads the newest gaps. One of which every number came after all is no loss, and
// not told.
func (v *view) readGaps(ctx context.Context, s scope) error {
	return v.each(ctx, `SELECT board, class, first, last, count, reason, from_ms, to_ms, at FROM (
  SELECT *, row_number() OVER (PARTITION BY board ORDER BY id DESC) AS n FROM gap
  WHERE count > 0 AND `+s.where+`) WHERE n <= ? ORDER BY board, n`, append(s.args[:len(s.args):len(s.args)], newestGaps),
		func(scan func(...any) error) error {
			var id, from, to, when int64
			var c schema.Class
			var reason schema.Reason
			var g web.Gap
			if err := scan(&id, &c, &g.First, &g.Last, &g.Count, &reason, &from, &to, &when); err != nil {
				return err
			}
			g.Class, g.Reason, g.From, g.To, g.At = c.String(), reason.String(), When(from), When(to), When(when)
			v.t.ids[id].Gaps = append(v.t.ids[id].Gaps, g)
			return nil
		})
}

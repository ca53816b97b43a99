// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/schema"
)

const (
	// Minute and Hour are the spans of the two levels, ms.
	Minute = int64(60_000)
	Hour   = 60 * Minute
	// maxSeries bounds the series of a board that have rollups; others are read
	// from telemetry. A board has 40 to 400.
	maxSeries = 2 * schema.MaxSeries
)

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
	Query(q string, args ...any) (*sql.Rows, error)
	Row(q string, args []any, dst ...any) error
}

// Folder is the memory of the background work. It is made anew after a
// transaction that failed.
type Folder struct {
	series map[int64]map[string]int64 // ids of a board's series, 0 for one too many
	pass   pass
	// Damaged counts rows that could not be read and are in no rollup.
	Damaged int
}

// New makes a folder.
func New() *Folder { return &Folder{series: map[int64]map[string]int64{}} }

// Forget lets a board go, whose rows were removed.
func (f *Folder) Forget(board int64) { delete(f.series, board) }

// slot is one minute of one series.
type slot struct{ board, series, t int64 }

// sums is what happened in a slot.
type sums struct {
	n, sn     int64
	sum, ssum float64
	lo, hi    float64
}

func (s *sums) span(lo, hi float64) {
	if s.n+s.sn == 0 {
		s.lo, s.hi = lo, hi
	}
	s.lo, s.hi = min(s.lo, lo), max(s.hi, hi)
}

type stored struct {
	id, board, at int64
	payload       []byte
}

// Pending tells how many rows wait at most to be added.
func (f *Folder) Pending(db DB) (n int64, err error) {
	err = db.Row(`SELECT coalesce((SELECT max(id) FROM telemetry), 0) - at FROM progress WHERE what = 'rollup'`, nil, &n)
	return max(n, 0), err
}

// Step adds at most limit rows of telemetry to the rollups and tells how many.
func (f *Folder) Step(db DB, now int64, limit int) (int, error) {
	rows, err := f.read(db, `SELECT id, board, at, payload FROM telemetry
WHERE id > (SELECT at FROM progress WHERE what = 'rollup') AND open = 0 ORDER BY id LIMIT ?`, limit)
	if err != nil {
		return 0, fmt.Errorf("read telemetry to roll up: %w", err)
	}
	if len(rows) == 0 {
		return 0, db.Exec(`UPDATE progress SET at = coalesce((SELECT max(id) FROM telemetry), 0) WHERE what = 'rollup'`)
	}
	if err := f.add(db, rows, now); err != nil {
		return 0, err
	}
	return len(rows), db.Exec(`UPDATE progress SET at = ? WHERE what = 'rollup'`, rows[len(rows)-1].id)
}

// Emptied sets the mark back where all telemetry was pruned: SQLite then gives the
// ids out anew.
func Emptied(db DB) error {
	return db.Exec(`UPDATE progress SET at = 0 WHERE what = 'rollup' AND NOT EXISTS (SELECT 1 FROM telemetry)`)
}

func (f *Folder) read(db DB, q string, args ...any) ([]stored, error) {
	rows, err := db.Query(q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []stored
	for rows.Next() {
		var s stored
		if err := rows.Scan(&s.id, &s.board, &s.at, &s.payload); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// add puts rows into the minutes, and brings the hours they lie in up to date.
func (f *Folder) add(db DB, rows []stored, now int64) error {
	slots := map[slot]*sums{}
	for _, r := range rows {
		var x schema.Samples
		if schema.Decode(r.payload, &x) != nil {
			f.Damaged++
			continue
		}
		if err := f.gather(db, slots, r, &x); err != nil {
			return err
		}
	}
	hours := map[slot]bool{}
	for k, s := range slots {
		err := db.Exec(`INSERT INTO rollup (board, level, series, t, n, sum, lo, hi, sn, ssum, touched) VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (board, level, series, t) DO UPDATE SET n = n + excluded.n, sum = sum + excluded.sum, lo = min(lo, excluded.lo), hi = max(hi, excluded.hi),
  sn = sn + excluded.sn, ssum = ssum + excluded.ssum, touched = excluded.touched`,
			k.board, k.series, k.t, s.n, s.sum, s.lo, s.hi, s.sn, s.ssum, now)
		if err != nil {
			return fmt.Errorf("roll up a minute: %w", err)
		}
		hours[slot{k.board, k.series, k.t - k.t%Hour}] = true
	}
	for k := range hours {
		err := db.Exec(`INSERT OR REPLACE INTO rollup (board, level, series, t, n, sum, lo, hi, sn, ssum, touched)
SELECT ?1, 1, ?2, ?3, sum(max(n, sn)), sum(CASE WHEN n >= sn THEN sum ELSE ssum END), min(lo), max(hi), 0, 0, ?4
FROM rollup WHERE board = ?1 AND level = 0 AND series = ?2 AND t >= ?3 AND t < ?3 + 3600000`, k.board, k.series, k.t, now)
		if err != nil {
			return fmt.Errorf("roll up an hour: %w", err)
		}
	}
	return nil
}

// gather adds one batch to the minutes it belongs to; a summary to that of its middle.
func (f *Folder) gather(db DB, slots map[slot]*sums, r stored, x *schema.Samples) error {
	at := r.at
	if x.Over != nil {
		at += x.Over.SpanMs / 2
	}
	for i, name := range x.Series {
		if x.Quality != nil && x.Quality[i] != schema.QualityGood || x.Over != nil && x.Over.Count[i] == 0 {
			continue
		}
		id, err := f.id(db, r.board, name)
		if err != nil {
			return err
		}
		if id == 0 {
			continue
		}
		k := slot{r.board, id, at - at%Minute}
		s := slots[k]
		if s == nil {
			s = &sums{}
			slots[k] = s
		}
		if x.Over == nil {
			s.span(x.Value[i], x.Value[i])
			s.n, s.sum = s.n+1, s.sum+addend(x.Value[i])
			continue
		}
		n := int64(x.Over.Count[i])
		s.span(x.Over.Min[i], x.Over.Max[i])
		s.sn, s.ssum = s.sn+n, s.ssum+addend(x.Value[i])*float64(n)
	}
	return nil
}

// addend bounds a reading so that no sum of them is infinite.
func addend(v float64) float64 { return min(max(v, -1e290), 1e290) }

// id gives the number of a series of a board, 0 where it has too many.
func (f *Folder) id(db DB, board int64, name string) (int64, error) {
	known := f.series[board]
	if known == nil {
		known = map[string]int64{}
		rows, err := db.Query(`SELECT name, id FROM series WHERE board = ?`, board)
		if err != nil {
			return 0, err
		}
		defer rows.Close() //nolint:errcheck // Err tells
		for rows.Next() {
			var n string
			var id int64
			if err := rows.Scan(&n, &id); err != nil {
				return 0, err
			}
			known[n] = id
		}
		if err := rows.Err(); err != nil {
			return 0, fmt.Errorf("read series: %w", err)
		}
		f.series[board] = known
	}
	id, ok := known[name]
	if ok || len(known) >= maxSeries {
		return id, nil
	}
	err := db.Row(`INSERT INTO series (board, name) VALUES (?, ?) RETURNING id`, []any{board, name}, &id)
	if err != nil {
		return 0, fmt.Errorf("number a series: %w", err)
	}
	known[name] = id
	return id, nil
}

// pass is one walk over all rollups, in the order of their key.
type pass struct {
	board, level, series, t int64
	kept                    int64
	halved                  uint // how often the life of minutes was halved
}

// Prune looks at limit rollups further on and removes those that nothing was added
// to for life, ms. Where a whole walk finds more than most, minutes live half as
// long in the next one. ended is set at the end of a walk.
func (f *Folder) Prune(db DB, now, life, most int64, limit int) (ended bool, err error) {
	p := &f.pass
	next, n := *p, 0
	rows, err := db.Query(`SELECT board, level, series, t FROM rollup WHERE (board, level, series, t) > (?, ?, ?, ?) ORDER BY board, level, series, t LIMIT ?`,
		p.board, p.level, p.series, p.t, limit)
	if err != nil {
		return false, fmt.Errorf("prune rollups: %w", err)
	}
	for rows.Next() {
		n++
		if err := rows.Scan(&next.board, &next.level, &next.series, &next.t); err != nil {
			return false, errors.Join(err, rows.Close())
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return false, fmt.Errorf("prune rollups: %w", err)
	}
	if n > 0 {
		var gone int64
		err = db.Row(`SELECT count(*) FROM rollup WHERE (board, level, series, t) > (?1, ?2, ?3, ?4) AND (board, level, series, t) <= (?5, ?6, ?7, ?8)
AND touched < CASE level WHEN 0 THEN ?9 ELSE ?10 END`, []any{p.board, p.level, p.series, p.t, next.board, next.level, next.series, next.t, now - life>>p.halved, now - life}, &gone)
		if err == nil && gone > 0 {
			err = db.Exec(`DELETE FROM rollup WHERE (board, level, series, t) > (?1, ?2, ?3, ?4) AND (board, level, series, t) <= (?5, ?6, ?7, ?8)
AND touched < CASE level WHEN 0 THEN ?9 ELSE ?10 END`, p.board, p.level, p.series, p.t, next.board, next.level, next.series, next.t, now-life>>p.halved, now-life)
		}
		if err != nil {
			return false, fmt.Errorf("prune rollups: %w", err)
		}
		next.kept += int64(n) - gone
	}
	*p = next
	if n == limit {
		return false, nil
	}
	over := p.kept > most
	f.pass = pass{halved: p.halved}
	if over && p.halved < 16 {
		f.pass.halved++
	} else if !over && p.halved > 0 && p.kept < most/2 {
		f.pass.halved--
	}
	return true, f.forget(db)
}

// forget removes the numbers of series that have no rollup left, of boards that
// have more series than are numbered.
func (f *Folder) forget(db DB) error {
	for _, board := range slices.Collect(maps.Keys(f.series)) {
		if len(f.series[board]) < maxSeries {
			continue
		}
		delete(f.series, board)
		err := db.Exec(`DELETE FROM series WHERE board = ?1 AND NOT EXISTS (SELECT 1 FROM rollup r WHERE r.board = ?1 AND r.level = 0 AND r.series = series.id)
  AND NOT EXISTS (SELECT 1 FROM rollup r WHERE r.board = ?1 AND r.level = 1 AND r.series = series.id)`, board)
		if err != nil {
			return fmt.Errorf("forget series: %w", err)
		}
	}
	return nil
}

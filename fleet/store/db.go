// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the database driver

	"fulmar/fleet/store/live"
)

const (
	// readers bounds the read connections: each holds a page cache of 2 MiB.
	readers = 4
	// busyTimeoutMs is how long a writer waits for another process (the command
	// line works on the same files).
	busyTimeoutMs = 5000
	// checkpointPages is how long the log grows before its pages are written into the
	// file, 16 MB: books and indexes are the same pages again and again, and with 4 MB
	// (SQLite's own) a message cost 26 KB of writes instead of 20.
	checkpointPages = 4000
)

// DB is one SQLite file.
type DB struct {
	Write *sql.DB // one connection; transactions begin IMMEDIATE
	Read  *sql.DB // read-only connections
	// Live is what this process knows of the boards beyond what is written; of a ledger.
	Live live.Boards

	watch *sql.DB // one connection, see Version
}

// OpenFile opens or makes the file and brings it to the newest schema: migrations
// are SQL scripts, the file's user_version counts those done. A file of a newer
// program is refused.
func OpenFile(path string, migrations []string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of %s: %w", path, err)
	}
	// The file is made here, not by SQLite, so that it is never readable by others.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	w, err := sql.Open("sqlite", dsn(path, "rwc", true))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	w.SetMaxOpenConns(1)
	r, err := sql.Open("sqlite", dsn(path, "ro", false))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), w.Close())
	}
	r.SetMaxOpenConns(readers)
	r.SetMaxIdleConns(readers)
	o, err := sql.Open("sqlite", dsn(path, "ro", false))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), w.Close(), r.Close())
	}
	o.SetMaxOpenConns(1)
	db := &DB{Write: w, Read: r, watch: o}
	if err := migrate(w, migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate %s: %w", path, err), db.Close())
	}
	return db, nil
}

func dsn(path, mode string, write bool) string {
	q := url.Values{"mode": {mode}}
	add := func(p string) { q.Add("_pragma", p) }
	add(fmt.Sprintf("busy_timeout(%d)", busyTimeoutMs))
	if write {
		// Order matters: auto_vacuum only takes effect before the first table.
		add("auto_vacuum(incremental)")
		add("journal_mode(wal)")
		add("synchronous(full)")
		add(fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages))
		add("journal_size_limit(67108864)")
		add("foreign_keys(1)")
		q.Set("_txlock", "immediate")
	} else {
		add("query_only(1)")
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

func migrate(w *sql.DB, migrations []string) error {
	ctx := context.Background()
	tx, err := w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	var v int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return err
	}
	if v > len(migrations) {
		return fmt.Errorf("the file is of version %d, this program knows %d; use the newer program", v, len(migrations))
	}
	if v == len(migrations) {
		return nil
	}
	for i, m := range migrations[v:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return fmt.Errorf("step %d: %w", v+i+1, err)
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return err
	}
	return tx.Commit()
}

// Version gives a number that changes with each commit to the file, whoever made it, also
// another process. It means nothing to another DB.
func (db *DB) Version(ctx context.Context) (v int64, err error) {
	err = db.watch.QueryRowContext(ctx, "PRAGMA data_version").Scan(&v) // counted by its one connection
	return v, err
}

// Close closes the file; the write connection last, so that it can fold the log.
func (db *DB) Close() error { return errors.Join(db.watch.Close(), db.Read.Close(), db.Write.Close()) }

// OpenLedger opens the ledger in the data folder.
func OpenLedger(dir string) (*DB, error) {
	return OpenFile(filepath.Join(dir, "ledger.db"), ledgerMigrations())
}

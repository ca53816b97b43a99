// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidwall/wal"
	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // the driver

	"fulmar/schema"
	"fulmar/storage"
)

// store is one engine: commit makes n records durable, drain reads n from the
// front and then deletes them. It may be closed twice.
type store struct {
	commit func(n int) error
	drain  func(n int) error
	close  func() error
}

const recBytes = 200

// pool holds bytes that do not compress, of which records are cut: pebble compresses
// its tables, and records that are all alike would flatter it.
var pool = func() []byte {
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}()

// payload is that of the n-th record.
func payload(n uint64) []byte {
	at := n * 997 % uint64(len(pool)-recBytes)
	return pool[at : at+recBytes]
}

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func openSpool(dir string) (*store, error) {
	cfg := storage.Config{Dir: dir, Clock: schema.NewClock(1, 0)}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{QuotaBytes: 4 << 30, SegmentBytes: 16 << 20, BatchMax: 1000}
	}
	s, err := storage.Open(cfg)
	if err != nil {
		return nil, err
	}
	seq, from, m := uint64(0), uint64(1), schema.ClassMetric
	return &store{
		commit: func(n int) error {
			for range n {
				seq++
				if _, err := s.Append(context.Background(), m, payload(seq)); err != nil {
					return err
				}
			}
			return s.Flush()
		},
		drain: func(n int) error {
			for n > 0 {
				recs, err := s.Read(m, from, n, 1<<20)
				if err != nil || len(recs) == 0 {
					return fmt.Errorf("read from %d: %d records, %v", from, len(recs), err)
				}
				n, from = n-len(recs), recs[len(recs)-1].Seq+1
				if err := s.Ack(m, recs[0].Epoch, recs[0].Seq, from-1); err != nil {
					return err
				}
			}
			return nil
		},
		close: s.Close,
	}, nil
}

func openBolt(fill float64, opt bolt.Options) func(string) (*store, error) {
	return func(dir string) (*store, error) {
		db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &opt)
		if err != nil {
			return nil, err
		}
		seq := uint64(0)
		return &store{
			commit: func(n int) error {
				return db.Update(func(tx *bolt.Tx) error {
					q, err := tx.CreateBucketIfNotExists([]byte("q"))
					if err != nil {
						return err
					}
					q.FillPercent = fill
					for range n {
						seq++
						if err := q.Put(key(seq), payload(seq)); err != nil {
							return err
						}
					}
					return nil
				})
			},
			drain: func(n int) error {
				return db.Update(func(tx *bolt.Tx) error {
					q := tx.Bucket([]byte("q"))
					var keys [][]byte
					c := q.Cursor()
					for k, _ := c.First(); k != nil && len(keys) < n; k, _ = c.Next() {
						keys = append(keys, append([]byte(nil), k...))
					}
					if len(keys) < n {
						return fmt.Errorf("%d records of %d", len(keys), n)
					}
					for _, k := range keys {
						if err := q.Delete(k); err != nil {
							return err
						}
					}
					return nil
				})
			},
			close: db.Close,
		}, nil
	}
}

func openSQLite(dir string) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS q (seq INTEGER PRIMARY KEY, body BLOB)"); err != nil {
		return nil, err
	}
	seq, from := uint64(0), uint64(0)
	return &store{
		commit: func(n int) error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			st, err := tx.Prepare("INSERT INTO q VALUES (?, ?)")
			if err != nil {
				return err
			}
			for range n {
				seq++
				if _, err := st.Exec(seq, payload(seq)); err != nil {
					return err
				}
			}
			return tx.Commit()
		},
		drain: func(n int) error {
			rows, err := db.Query("SELECT body FROM q WHERE seq > ? ORDER BY seq LIMIT ?", from, n)
			if err != nil {
				return err
			}
			got, body := 0, sql.RawBytes(nil)
			for rows.Next() {
				if err := rows.Scan(&body); err != nil {
					return err
				}
				got++
			}
			if err := rows.Close(); err != nil || got < n {
				return fmt.Errorf("%d records of %d, %v", got, n, err)
			}
			from += uint64(n)
			_, err = db.Exec("DELETE FROM q WHERE seq <= ?", from)
			return err
		},
		close: db.Close,
	}, nil
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func openPebble(dir string) (*store, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	seq, from := uint64(0), uint64(1)
	return &store{
		commit: func(n int) error {
			b := db.NewBatch()
			defer b.Close()
			for range n {
				seq++
				if err := b.Set(key(seq), payload(seq), nil); err != nil {
					return err
				}
			}
			return b.Commit(pebble.Sync)
		},
		drain: func(n int) error {
			it, err := db.NewIter(&pebble.IterOptions{LowerBound: key(from)})
			if err != nil {
				return err
			}
			got := 0
			for ok := it.First(); ok && got < n; ok = it.Next() {
				got++
			}
			if err := it.Close(); err != nil || got < n {
				return fmt.Errorf("%d records of %d, %v", got, n, err)
			}
			begin := from
			from += uint64(n)
			return db.DeleteRange(key(begin), key(from), pebble.Sync)
		},
		close: sync.OnceValue(db.Close), // it panics the second time
	}, nil
}

func openWAL(dir string) (*store, error) {
	l, err := wal.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	seq, from := uint64(0), uint64(1)
	return &store{
		commit: func(n int) error {
			var b wal.Batch
			for range n {
				seq++
				b.Write(seq, payload(seq))
			}
			return l.WriteBatch(&b)
		},
		drain: func(n int) error {
			for range n {
				if _, err := l.Read(from); err != nil {
					return err
				}
				from++
			}
			return l.TruncateFront(min(from, seq)) // the last record cannot be taken away
		},
		close: sync.OnceValue(l.Close), // it is an error the second time
	}, nil
}

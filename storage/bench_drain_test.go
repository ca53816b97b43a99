// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"fulmar/schema"
	"fulmar/storage"
)

// drained is one way to take a backlog: drain reads and settles all of it by 100 and
// gives back what it read, close makes what is left durable.
type drained struct {
	name  string
	fill  func(b *testing.B, dir string, n int)
	open  func(b *testing.B, dir string) (drain func(n int) (bytes int, err error), close func() error)
	rates []float64
}

// drainBatch is how many records are read and settled at once: what the link puts
// into a message of 200 B records is more, so this favours nobody but slows all.
const drainBatch = 100

// BenchmarkDrain takes a backlog out of the spool and of plain bbolt in turn, five
// times, and gives medians. The clock runs from the first read until the file is
// closed, so until it is durable that the records are gone. bbolt-each deletes each
// batch in its own transaction, as whoever uses bbolt as a queue does; bbolt-lazy is
// given the spool's promise, and so deletes twice a second (a crash gives the records
// of that time once more).
func BenchmarkDrain(b *testing.B) {
	for _, n := range []int{200_000, 1_000_000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			ways := []*drained{
				{name: "spool", fill: fillSpool, open: spoolDrain},
				{name: "bbolt-each", fill: fillBolt, open: boltDrain(0)},
				{name: "bbolt-lazy", fill: fillBolt, open: boltDrain(500 * time.Millisecond)},
			}
			for b.Loop() {
				for range 5 {
					for _, w := range ways {
						w.rates = append(w.rates, drainOnce(b, w, n))
					}
				}
			}
			reportDrain(b, ways)
		})
	}
}

func drainOnce(b *testing.B, w *drained, n int) float64 {
	b.Helper()
	dir := b.TempDir()
	w.fill(b, dir, n)
	drain, closing := w.open(b, dir)
	begin := time.Now()
	bytes, err := drain(n)
	if err := errors.Join(err, closing()); err != nil || bytes != n*len(benchPayload()) {
		b.Fatalf("%s: %d bytes of %d, %v", w.name, bytes, n*len(benchPayload()), err)
	}
	return float64(n) / time.Since(begin).Seconds()
}

// reportDrain gives each way's median and the ratios of the spool to the others: the
// median, least and most of those of one round.
func reportDrain(b *testing.B, ways []*drained) {
	for i, w := range ways {
		b.ReportMetric(median(w.rates), w.name+"-rec/s")
		if i == 0 {
			continue
		}
		ratios := make([]float64, len(w.rates))
		for j, r := range w.rates {
			ratios[j] = ways[0].rates[j] / r
		}
		b.ReportMetric(median(ratios), "x-"+w.name)
		b.ReportMetric(slices.Min(ratios), "x-"+w.name+"-min")
		b.ReportMetric(slices.Max(ratios), "x-"+w.name+"-max")
	}
	b.ReportMetric(0, "ns/op") // of no meaning here
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// fillSpool leaves n records of the bench payload in a spool.
func fillSpool(b *testing.B, dir string, n int) {
	b.Helper()
	cfg := benchConfig(dir)
	cfg.NoSync = true
	s, err := storage.Open(cfg)
	if err == nil {
		err = appendMetrics(s, n)
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// appendMetrics commits n records, numbered in their first bytes, by 1,000.
func appendMetrics(s *storage.Spool, n int) error {
	payload := benchPayload()
	for i := range n {
		binary.BigEndian.PutUint64(payload, uint64(i))
		if _, err := s.Append(context.Background(), schema.ClassMetric, payload); err != nil {
			return err
		}
		if i%1000 == 999 || i == n-1 {
			if err := s.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func spoolDrain(b *testing.B, dir string) (func(int) (int, error), func() error) {
	s, err := storage.Open(benchConfig(dir))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func(n int) (int, error) { return drainMetrics(s, n) }, func() error {
		cancel()
		return errors.Join(<-ended, s.Close())
	}
}

// drainMetrics reads and acknowledges n metrics and gives the bytes of their
// payloads.
func drainMetrics(s *storage.Spool, n int) (bytes int, err error) {
	for from, got := uint64(1), 0; got < n; {
		recs, err := s.Read(schema.ClassMetric, from, drainBatch, 64<<10)
		if err != nil || len(recs) == 0 {
			return bytes, fmt.Errorf("%d records of %d: %w", got, n, err)
		}
		for _, r := range recs {
			bytes += len(r.Payload)
		}
		from = recs[len(recs)-1].Seq + 1
		got += len(recs)
		if err := s.Ack(schema.ClassMetric, recs[0].Epoch, recs[0].Seq, from-1); err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

var boltQueue = []byte("q")

func fillBolt(b *testing.B, dir string, n int) {
	b.Helper()
	opt := bestBolt()
	opt.NoSync = true
	db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &opt)
	if err != nil {
		b.Fatal(err)
	}
	payload := benchPayload()
	for i := 0; i < n; i += 1000 {
		err = errors.Join(err, db.Update(func(tx *bolt.Tx) error {
			q, err := tx.CreateBucketIfNotExists(boltQueue)
			if err != nil {
				return err
			}
			q.FillPercent = 0.95
			for j := range 1000 {
				if err := q.Put(binary.BigEndian.AppendUint64(nil, uint64(i+j)), payload); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	if err := errors.Join(err, db.Close()); err != nil {
		b.Fatal(err)
	}
}

// boltDrain reads batches, copies their values as the spool does, and deletes what was
// read at most once in every; 0: with each batch.
func boltDrain(every time.Duration) func(*testing.B, string) (func(int) (int, error), func() error) {
	return func(b *testing.B, dir string) (func(int) (int, error), func() error) {
		opt := bestBolt()
		db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &opt)
		if err != nil {
			b.Fatal(err)
		}
		return func(n int) (bytes int, err error) {
			from, gone, deleted := uint64(0), uint64(0), time.Now()
			for from < uint64(n) {
				recs, err := boltRead(db, from)
				if err != nil || len(recs) == 0 {
					return bytes, fmt.Errorf("%d records of %d: %w", from, n, err)
				}
				for _, r := range recs {
					bytes += len(r)
				}
				from += uint64(len(recs))
				if time.Since(deleted) < every && from < uint64(n) {
					continue
				}
				if err := boltDelete(db, gone, from); err != nil {
					return bytes, err
				}
				gone, deleted = from, time.Now()
			}
			return bytes, nil
		}, db.Close
	}
}

func boltRead(db *bolt.DB, from uint64) (recs [][]byte, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(boltQueue).Cursor()
		for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, from)); k != nil && len(recs) < drainBatch; k, v = c.Next() {
			recs = append(recs, slices.Clone(v))
		}
		return nil
	})
	return recs, err
}

// boltDelete takes away the records from first on, below before.
func boltDelete(db *bolt.DB, first, before uint64) error {
	return db.Update(func(tx *bolt.Tx) error {
		q := tx.Bucket(boltQueue)
		for n := first; n < before; n++ {
			if err := q.Delete(binary.BigEndian.AppendUint64(nil, n)); err != nil {
				return err
			}
		}
		return nil
	})
}

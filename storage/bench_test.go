// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"fulmar/schema"
	"fulmar/storage"
)

// The benchmarks write to the test's temporary folder: set TMPDIR to a disk, not a
// tmpfs, or the fsyncs cost nothing. rec/s is what counts, and its ratio to plain bbolt.

func benchConfig(dir string) storage.Config {
	cfg := storage.Config{Dir: dir, Clock: schema.NewClock(1, 0)}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{QuotaBytes: 4 << 30, SegmentBytes: 16 << 20}
	}
	return cfg
}

// written tells what the process handed to write(2), in bytes.
func written(b *testing.B) (n int64) {
	s, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(s)) {
		if _, err := fmt.Sscanf(line, "wchar: %d", &n); err == nil {
			return n
		}
	}
	return n
}

// BenchmarkAppend commits a batch to the spool and to two plain bbolt files in
// turn, so that noise of the disk meets all three alike.
func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 20, 100, 400} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			engines := []*engine{
				spoolEngine(b, batch),
				boltEngine(b, "bbolt-default", batch, 0.5, bolt.Options{}),
				boltEngine(b, "bbolt-best", batch, 0.95, bolt.Options{FreelistType: bolt.FreelistMapType, InitialMmapSize: 1 << 30, PageSize: 4096, NoStatistics: true}),
			}
			for b.Loop() {
				for _, e := range engines {
					wrote, begin := written(b), time.Now()
					if err := e.commit(); err != nil {
						b.Fatal(err)
					}
					e.took += time.Since(begin)
					e.wrote += written(b) - wrote
				}
			}
			for _, e := range engines {
				b.ReportMetric(float64(b.N*batch)/e.took.Seconds(), e.name+"-rec/s")
				b.ReportMetric(float64(e.wrote)/float64(b.N*batch*len(benchPayload())), e.name+"-B/B")
			}
		})
	}
}

// engine is one way to commit a batch; wrote counts bytes handed to write(2).
type engine struct {
	name   string
	commit func() error
	took   time.Duration
	wrote  int64
}

func benchPayload() []byte {
	p := make([]byte, 200)
	for i := range p {
		p[i] = byte(i * 7)
	}
	return p
}

func spoolEngine(b *testing.B, batch int) *engine {
	cfg := benchConfig(b.TempDir())
	cfg.Classes[schema.ClassMetric].BatchMax = batch
	s, err := storage.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	payload := benchPayload()
	return &engine{name: "spool", commit: func() error {
		for range batch {
			if _, err := s.Append(context.Background(), schema.ClassMetric, payload); err != nil {
				return err
			}
		}
		return s.Flush()
	}}
}

func boltEngine(b *testing.B, name string, batch int, fill float64, opt bolt.Options) *engine {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "db"), 0o600, &opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	payload, seq := benchPayload(), uint64(0)
	return &engine{name: name, commit: func() error {
		return db.Update(func(tx *bolt.Tx) error {
			q, err := tx.CreateBucketIfNotExists([]byte("q"))
			if err != nil {
				return err
			}
			q.FillPercent = fill
			for range batch {
				seq++
				if err := q.Put(binary.BigEndian.AppendUint64(nil, seq), payload); err != nil {
					return err
				}
			}
			return nil
		})
	}}
}

// backlog fills a spool with n records of 200 B and leaves it as a crash would.
func backlog(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	cfg := benchConfig(dir)
	cfg.NoSync = true
	s, err := storage.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 200)
	for i := range n {
		binary.BigEndian.PutUint64(payload, uint64(i))
		if _, err := s.Append(context.Background(), schema.ClassMetric, payload); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			if err := s.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func BenchmarkDrain(b *testing.B) {
	const n = 200_000
	b.Run("spool", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s, err := storage.Open(benchConfig(backlog(b, n)))
			if err != nil {
				b.Fatal(err)
			}
			epoch := s.Cursors()[schema.ClassMetric].Epoch
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			before := rss(b)
			b.StartTimer()
			got, from := 0, uint64(1)
			for got < n {
				recs, err := s.Read(schema.ClassMetric, from, 100, 64<<10)
				if err != nil || len(recs) == 0 {
					b.Fatal(len(recs), err)
				}
				from = recs[len(recs)-1].Seq + 1
				got += len(recs)
				if err := s.Ack(schema.ClassMetric, epoch, recs[0].Seq, from-1); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(rss(b)-before)/1024, "MiB-rss-growth")
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	})
	b.Run("bbolt-best-safe", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			db, err := bolt.Open(filepath.Join(b.TempDir(), "db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, PageSize: 4096})
			if err != nil {
				b.Fatal(err)
			}
			db.NoSync = true
			for i := 0; i < n; i += 1000 {
				err := db.Update(func(tx *bolt.Tx) error {
					q, err := tx.CreateBucketIfNotExists([]byte("q"))
					if err != nil {
						return err
					}
					q.FillPercent = 0.95
					for j := range 1000 {
						if err := q.Put(binary.BigEndian.AppendUint64(nil, uint64(i+j)), make([]byte, 200)); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			db.NoSync = false
			b.StartTimer()
			for got := 0; got < n; got += 100 {
				err := db.Update(func(tx *bolt.Tx) error {
					c := tx.Bucket([]byte("q")).Cursor()
					i := 0
					for k, _ := c.First(); k != nil && i < 100; k, _ = c.Next() {
						if err := c.Delete(); err != nil {
							return err
						}
						i++
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			db.Close()
			b.StartTimer()
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	})
}

// rss is the resident memory in KiB.
func rss(b *testing.B) (n int64) {
	s, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(s)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &n); err == nil {
			return n
		}
	}
	return n
}

func BenchmarkOpenBacklog(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		dir := backlog(b, n)
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			for b.Loop() {
				s, err := storage.Open(benchConfig(dir))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

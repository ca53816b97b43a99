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
				boltEngine(b, "bbolt-best", batch, 0.95, bestBolt()),
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

// bestBolt is plain bbolt at its best safe setting, but for the fill of its pages,
// which a bucket has.
func bestBolt() bolt.Options {
	return bolt.Options{FreelistType: bolt.FreelistMapType, InitialMmapSize: 1 << 30, PageSize: 4096, NoStatistics: true}
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

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// BenchmarkAppend commits batches of 200 B to a plain segment, an encrypted one and
// plain bbolt with the same settings in turn, so that noise of the disk meets all
// alike. Set TMPDIR to a disk; NoSync shows the processor's part alone.
func BenchmarkAppend(b *testing.B) {
	for _, noSync := range []bool{false, true} {
		for _, batch := range []int{1, 100, 400} {
			b.Run(fmt.Sprintf("nosync=%v/batch=%d", noSync, batch), func(b *testing.B) {
				names := []string{"plain", "encrypted", "bbolt"}
				fns := []func(seq uint64) error{
					appender(b, Options{MaxBytes: 16 << 20, NoSync: noSync}, batch),
					appender(b, Options{MaxBytes: 16 << 20, NoSync: noSync, Keys: newKeys(b)}, batch),
					bolter(b, noSync, batch),
				}
				took := make([]time.Duration, len(fns))
				seq := uint64(1)
				for b.Loop() {
					for i, fn := range fns {
						start := time.Now()
						if err := fn(seq); err != nil {
							b.Fatal(names[i], err)
						}
						took[i] += time.Since(start)
					}
					seq += uint64(batch)
				}
				for i, name := range names {
					b.ReportMetric(float64(b.N*batch)/took[i].Seconds(), name+"-rec/s")
				}
			})
		}
	}
}

const payloadBytes = 200

// appender rolls over at 16 MiB like the spool; the new file is not counted.
func appender(b *testing.B, o Options, batch int) func(uint64) error {
	dir := b.TempDir()
	var d *DB
	b.Cleanup(func() { d.Close() })
	recs := make([]Record, batch)
	return func(seq uint64) (err error) {
		if d == nil || d.Size() > o.MaxBytes {
			if d != nil {
				d.Close()
			}
			if d, err = Create(filepath.Join(dir, Name(seq)), Header{Epoch: 1, First: seq}, o); err != nil {
				return err
			}
		}
		for i := range recs {
			recs[i] = Record{Seq: seq + uint64(i), Wall: 1, Payload: payload[:]}
		}
		return d.Append(recs)
	}
}

var payload [payloadBytes]byte

func bolter(b *testing.B, noSync bool, batch int) func(uint64) error {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "db"), 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, PageSize: pageSize, NoStatistics: true, InitialMmapSize: 1 << 30, NoSync: noSync, NoGrowSync: noSync,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return func(seq uint64) error {
		return db.Update(func(tx *bolt.Tx) error {
			q, err := tx.CreateBucketIfNotExists(bucketRecords)
			if err != nil {
				return err
			}
			q.FillPercent = fillPercent
			for i := range batch {
				if err := q.Put(binary.BigEndian.AppendUint64(nil, seq+uint64(i)), payload[:]); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// BenchmarkWalk reads a segment of 20,000 records from memory.
func BenchmarkWalk(b *testing.B) {
	for _, name := range []string{"plain", "encrypted"} {
		b.Run(name, func(b *testing.B) {
			o := Options{MaxBytes: 16 << 20, NoSync: true}
			if name == "encrypted" {
				o.Keys = newKeys(b)
			}
			d, err := Create(filepath.Join(b.TempDir(), Name(1)), Header{Epoch: 1, First: 1}, o)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			recs := make([]Record, 1000)
			for n := range 20 {
				for i := range recs {
					recs[i] = Record{Seq: uint64(1 + n*1000 + i), Wall: 1, Payload: payload[:]}
				}
				if err := d.Append(recs); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				n := 0
				if err := d.Walk(0, func(_ Record, ok bool) bool { n++; return ok }); err != nil || n != 20_000 {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(20_000*float64(b.N)/b.Elapsed().Seconds(), "rec/s")
		})
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

type engine struct {
	name string
	open func(dir string) (*store, error)
}

const best = 2 // the engine that ratios are to

var engines = []engine{
	{"spool", openSpool},
	{"bbolt, default", openBolt(0.5, bolt.Options{})},
	{"bbolt, best safe", openBolt(0.95, bolt.Options{FreelistType: bolt.FreelistMapType, PageSize: 4096, InitialMmapSize: 1 << 30, NoStatistics: true})},
	{"SQLite, WAL, FULL", openSQLite},
	{"pebble, Sync", openPebble},
	{"tidwall/wal", openWAL},
}

func main() {
	quick := flag.Bool("quick", false, "shorter: 3 rounds of 0.1 s a measure instead of 7 of 0.5 s")
	flag.Parse()
	rounds, each, backlog := 7, 500*time.Millisecond, 100_000
	if *quick {
		rounds, each, backlog = 3, 100*time.Millisecond, 10_000
	}
	fmt.Printf("peers: %d cores, %s, %s, median of %d rounds, files under %s\n", runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly), rounds, os.TempDir())
	for _, batch := range []int{1, 20, 100, 400} {
		if err := measure(fmt.Sprintf("append, batch %d", batch), "B written per B", rounds, func(e engine) (float64, float64, error) {
			return appendRate(e, batch, each)
		}); err != nil {
			log.Fatal(err)
		}
	}
	err := measure(fmt.Sprintf("drain %d records by 100", backlog), "KiB left on disk", rounds, func(e engine) (float64, float64, error) {
		return drainRate(e, backlog)
	})
	if err != nil {
		log.Fatal(err)
	}
}

// measure runs all engines in turn in each round and prints the medians.
func measure(title, second string, rounds int, one func(engine) (float64, float64, error)) error {
	a, b := make([][]float64, len(engines)), make([][]float64, len(engines))
	for range rounds {
		for i, e := range engines {
			x, y, err := one(e)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", title, e.name, err)
			}
			a[i], b[i] = append(a[i], x), append(b[i], y)
		}
	}
	fmt.Printf("\n| %s | rec/s | to bbolt's best | %s |\n|---|---|---|---|\n", title, second)
	for i, e := range engines {
		fmt.Printf("| %s | %.0f | %.2f | %.2f |\n", e.name, median(a[i]), median(a[i])/median(a[best]), median(b[i]))
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func appendRate(e engine, batch int, each time.Duration) (rate, amp float64, err error) {
	err = in(e, func(s *store, _ string) error {
		wrote, begin, n := written(), time.Now(), 0
		for time.Since(begin) < each {
			if err := s.commit(batch); err != nil {
				return err
			}
			n += batch
		}
		rate = float64(n) / time.Since(begin).Seconds()
		amp = float64(written()-wrote) / float64(n*len(payload))
		return nil
	})
	return rate, amp, err
}

func drainRate(e engine, backlog int) (rate, left float64, err error) {
	err = in(e, func(s *store, dir string) error {
		for n := 0; n < backlog; n += 1000 {
			if err := s.commit(1000); err != nil {
				return err
			}
		}
		begin := time.Now()
		for n := 0; n < backlog; n += 100 {
			if err := s.drain(100); err != nil {
				return err
			}
		}
		rate = float64(backlog) / time.Since(begin).Seconds()
		return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if i, err := d.Info(); err == nil {
					left += float64(i.Size()) / 1024
				}
			}
			return nil // a file may go while we look
		})
	})
	return rate, left, err
}

// in opens the engine in a folder of its own, which goes afterwards.
func in(e engine, do func(*store, string) error) error {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := e.open(dir)
	if err != nil {
		return err
	}
	if err := do(s, dir); err != nil {
		_ = s.close()
		return err
	}
	return s.close()
}

// written is what this process made dirty in files, in bytes.
func written() (n int64) {
	s, err := os.ReadFile("/proc/self/io")
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(s)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return n
}

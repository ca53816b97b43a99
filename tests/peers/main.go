// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"fulmar/tests/loopdisk"
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

// amplified is how many batches of a size are written to count bytes: enough for
// pebble to turn its memory into tables, but at batch 1, where it would take minutes.
var amplified = map[int]int{1: 2000, 20: 2000, 100: 1000, 400: 400}

func main() {
	quick := flag.Bool("quick", false, "shorter: 3 rounds of 0.1 s a measure instead of 7 of 0.5 s")
	flag.Parse()
	rounds, each, backlog := 7, 500*time.Millisecond, 100_000
	if *quick {
		rounds, each, backlog = 3, 100*time.Millisecond, 10_000
	}
	if err := peers(rounds, each, backlog); err != nil {
		log.Fatal(err)
	}
}

func peers(rounds int, each time.Duration, backlog int) error {
	fmt.Printf("peers: %d cores, %s, %s, records of %d B, medians of %d rounds (least to most), files under %s\n",
		runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly), recBytes, rounds, os.TempDir())
	for _, batch := range []int{1, 20, 100, 400} {
		rates, _, err := measure(rounds, func(e engine) (float64, float64, error) { return appendRate(e, batch, each) })
		if err != nil {
			return fmt.Errorf("append, batch %d: %w", batch, err)
		}
		given, device, err := amplification(batch)
		if err != nil {
			return fmt.Errorf("bytes written, batch %d: %w", batch, err)
		}
		fmt.Printf("\n| append, batch %d | rec/s | to bbolt's best | B given to write(2) per B | B at the device per B |\n|---|---|---|---|---|\n", batch)
		for i, e := range engines {
			fmt.Printf("| %s | %.0f | %s | %s | %s |\n", e.name, median(rates[i]), ratio(rates[i], rates[best]), given[i], device[i])
		}
	}
	rates, left, err := measure(rounds, func(e engine) (float64, float64, error) { return drainRate(e, backlog) })
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	fmt.Printf("\n| drain %d records by 100 | rec/s | to bbolt's best | KiB left on disk |\n|---|---|---|---|\n", backlog)
	for i, e := range engines {
		fmt.Printf("| %s | %.0f | %s | %.0f |\n", e.name, median(rates[i]), ratio(rates[i], rates[best]), median(left[i]))
	}
	return nil
}

// measure runs all engines in turn in each round, so that noise meets all alike.
func measure(rounds int, one func(engine) (float64, float64, error)) (a, b [][]float64, err error) {
	a, b = make([][]float64, len(engines)), make([][]float64, len(engines))
	for range rounds {
		for i, e := range engines {
			x, y, err := one(e)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", e.name, err)
			}
			a[i], b[i] = append(a[i], x), append(b[i], y)
		}
	}
	return a, b, nil
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// ratio gives the median of the ratios of the rounds, and the least and the most.
func ratio(v, to []float64) string {
	r := make([]float64, len(v))
	for i := range v {
		r[i] = v[i] / to[i]
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(r), slices.Min(r), slices.Max(r))
}

func appendRate(e engine, batch int, each time.Duration) (rate, _ float64, err error) {
	err = in("", e, func(s *store, _ string) error {
		begin, n := time.Now(), 0
		for time.Since(begin) < each {
			if err := s.commit(batch); err != nil {
				return err
			}
			n += batch
		}
		rate = float64(n) / time.Since(begin).Seconds()
		return nil
	})
	return rate, 0, err
}

// amplification counts what each engine writes for each byte of its records, once: it
// is the same from run to run. Opening is not counted, closing is.
func amplification(batch int) (given, device []string, err error) {
	given, device = make([]string, len(engines)), make([]string, len(engines))
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	disk, err := loopdisk.New(dir)
	if err != nil {
		fmt.Printf("\nno disk of our own, so no bytes are counted: %v\n", err)
		return given, device, nil
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	for i, e := range engines {
		var before, after counts
		err := in(disk.Dir, e, func(s *store, _ string) (err error) {
			if before, err = count(disk); err != nil {
				return err
			}
			for range amplified[batch] {
				if err := s.commit(batch); err != nil {
					return err
				}
			}
			if err := s.close(); err != nil {
				return err
			}
			after, err = count(disk)
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.name, err)
		}
		payload := float64(amplified[batch] * batch * recBytes)
		given[i] = fmt.Sprintf("%.2f", float64(after.given-before.given)/payload)
		device[i] = fmt.Sprintf("%.2f", float64(after.device-before.device)/payload)
	}
	return given, device, nil
}

// counts are bytes since the process and the disk began.
type counts struct{ given, device int64 }

func count(d *loopdisk.Disk) (c counts, err error) {
	if c.device, err = d.Written(); err != nil {
		return c, err
	}
	s, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(s)) {
		_, _ = fmt.Sscanf(line, "wchar: %d", &c.given) // other lines do not match
	}
	return c, nil
}

func drainRate(e engine, backlog int) (rate, left float64, err error) {
	err = in("", e, func(s *store, dir string) error {
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
		if err := s.close(); err != nil {
			return err
		}
		rate = float64(backlog) / time.Since(begin).Seconds()
		return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			i, err := d.Info()
			if err == nil {
				left += float64(i.Sys().(*syscall.Stat_t).Blocks) / 2 // of 512 B
			}
			return err
		})
	})
	return rate, left, err
}

// in opens the engine in a folder of its own, which goes afterwards.
func in(parent string, e engine, do func(*store, string) error) error {
	dir, err := os.MkdirTemp(parent, "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := e.open(dir)
	if err != nil {
		return err
	}
	return errors.Join(do(s, dir), s.close())
}

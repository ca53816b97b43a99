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
	quick := flag.Bool("quick", false, "shorter: 3 rounds of 0.5 s a measure instead of 7 of 2 s")
	flag.Parse()
	rounds, each, backlog := 7, 2*time.Second, 100_000
	if *quick {
		rounds, each, backlog = 3, 500*time.Millisecond, 10_000
	}
	if err := peers(rounds, each, backlog); err != nil {
		log.Fatal(err)
	}
}

func peers(rounds int, each time.Duration, backlog int) error {
	fmt.Printf("peers: %d cores, %s, %s, records of %d B, medians of %d rounds (least to most), of drain 3, files under %s\n",
		runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly), recBytes, rounds, os.TempDir())
	for _, batch := range []int{1, 20, 100, 400} {
		rates, err := appendRates(rounds, batch, each)
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
	rates, left, err := drainRates(3, backlog) // tidwall/wal takes half a minute
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	fmt.Printf("\n| drain %d records by 100 | rec/s | to bbolt's best | KiB left on disk |\n|---|---|---|---|\n", backlog)
	for i, e := range engines {
		fmt.Printf("| %s | %.0f | %s | %.0f |\n", e.name, median(rates[i]), ratio(rates[i], rates[best]), median(left[i]))
	}
	return nil
}

// appendRates has all engines commit a batch in turn for the time of each round, so
// that noise of the disk meets all alike. (What pebble does behind a commit, it does in
// the time of the others.)
func appendRates(rounds, batch int, each time.Duration) (rates [][]float64, err error) {
	rates = make([][]float64, len(engines))
	stores := make([]*store, len(engines))
	for i, e := range engines {
		dir, oerr := os.MkdirTemp("", "peers")
		if oerr != nil {
			return nil, oerr
		}
		defer os.RemoveAll(dir)
		if stores[i], oerr = e.open(dir); oerr != nil {
			return nil, fmt.Errorf("%s: %w", e.name, oerr)
		}
		defer func() { err = errors.Join(err, stores[i].close()) }()
	}
	for range rounds {
		took, n := make([]time.Duration, len(engines)), 0
		for begin := time.Now(); time.Since(begin) < each; n += batch {
			for i, s := range stores {
				start := time.Now()
				if err := s.commit(batch); err != nil {
					return nil, fmt.Errorf("%s: %w", engines[i].name, err)
				}
				took[i] += time.Since(start)
			}
		}
		for i := range engines {
			rates[i] = append(rates[i], float64(n)/took[i].Seconds())
		}
	}
	return rates, nil
}

// drainRates runs all engines in turn in each round.
func drainRates(rounds, backlog int) (rates, left [][]float64, err error) {
	rates, left = make([][]float64, len(engines)), make([][]float64, len(engines))
	for range rounds {
		for i, e := range engines {
			x, y, err := drainRate(e, backlog)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", e.name, err)
			}
			rates[i], left[i] = append(rates[i], x), append(left[i], y)
		}
	}
	return rates, left, nil
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

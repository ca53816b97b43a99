// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fulmar/fleet/objects"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
	"fulmar/tests/transfer/rig"
)

// memory gives a folder in memory, where there is one: a thousand boards have a thousand
// disks, and this machine has one.
func memory(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-transfer-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// crowd connects boards.
func crowd(t testing.TB, f *rig.Fleet, n int, dir string, loss float64) []*board {
	t.Helper()
	out := make([]*board, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range out {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i] = newBoard(t, f, fmt.Sprintf("b%04d", i), filepath.Join(dir, fmt.Sprint(i)), lossy(loss, uint64(i)))
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, b := range out {
			b.line.Close()
		}
	})
	return out
}

// outcome is what a run cost.
type outcome struct {
	wall, cpu   time.Duration
	done        int64
	stats       objects.Stats
	pieces      fetch.Stats
	socketBytes uint64
}

// fetchAll has all boards fetch the object.
func fetchAll(t testing.TB, f *rig.Fleet, boards []*board, o release.Object) outcome {
	t.Helper()
	var r outcome
	var done atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	before, sent := f.Caster.Stats(), f.Gateway.Pieces().Stats().Bytes
	begun, cpu := time.Now(), cpuTime()
	for _, b := range boards {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			path, err := b.Fetch(ctx, o, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if info, err := os.Stat(path); err == nil && info.Size() == o.Size {
				done.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			s := b.Stats()
			r.pieces.Pieces += s.Pieces
			r.pieces.Duplicates += s.Duplicates
			r.pieces.Wrong += s.Wrong
		})
	}
	wg.Wait()
	r.wall, r.cpu, r.done = time.Since(begun), cpuTime()-cpu, done.Load()
	r.stats = f.Caster.Stats()
	r.stats.Wants -= before.Wants
	r.stats.Bytes -= before.Bytes
	r.socketBytes = f.Gateway.Pieces().Stats().Bytes - sent
	return r
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThousand brings an object of 1 MiB to 1,000 boards (FULMAR_BOARDS), over TLS on
// loopback, fleet and boards in one process: to each on its own, and with a pass, at no loss
// and at 5 and 20 per cent. Loss is of pieces that came, before the fetcher sees them, as
// TCP loses none. egress-% is what the caster handed to the gateway against what it did
// without passes in the same run; socket-% is what the gateway wrote to boards' connections.
func BenchmarkThousand(b *testing.B) {
	n := 1000
	if s := os.Getenv("FULMAR_BOARDS"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			b.Fatal(err)
		}
	}
	var alone map[float64]outcome = map[float64]outcome{}
	for _, many := range []int{-1, 0} {
		for _, loss := range []float64{0, 0.05, 0.2} {
			name := fmt.Sprintf("pass/loss=%g", loss)
			if many < 0 {
				name = fmt.Sprintf("unicast/loss=%g", loss)
			}
			b.Run(name, func(b *testing.B) {
				for range b.N {
					dir := memory(b)
					f, err := rig.Start(rig.Config{Dir: b.TempDir(), Caster: objects.Config{Many: many, Linger: 300 * time.Millisecond, Rates: objects.Rates{Cast: 64 << 20}}})
					if err != nil {
						b.Fatal(err)
					}
					boards := crowd(b, f, n, dir, loss)
					o := put(b, f, content(9, 1<<20))
					r := fetchAll(b, f, boards, o)
					if many < 0 {
						alone[loss] = r
					}
					b.ReportMetric(r.wall.Seconds(), "wall-s")
					b.ReportMetric(r.cpu.Seconds(), "cpu-s")
					b.ReportMetric(float64(r.done), "done")
					b.ReportMetric(100*float64(r.stats.Bytes)/float64(alone[loss].stats.Bytes), "egress-%")
					b.ReportMetric(100*float64(r.socketBytes)/float64(alone[loss].socketBytes), "socket-%")
					b.ReportMetric(100*float64(r.pieces.Duplicates)/float64(r.pieces.Pieces), "duplicates-%")
					b.ReportMetric(float64(r.stats.Wants)/float64(n), "words/board")
					for _, x := range boards {
						x.line.Close()
					}
					if err := f.Stop(); err != nil {
						b.Error(err)
					}
				}
			})
		}
	}
}

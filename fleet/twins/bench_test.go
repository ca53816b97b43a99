// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/fleet/registry/twinrows"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// settled makes boards whose twins are in the database: 20 keys reported, 5 set.
func settled(tb testing.TB, p *place, n int) (boards []*board, names []string) {
	tb.Helper()
	for i := range n {
		b := p.air.add(tb, p.Twins, fmt.Sprintf("b%05d", i))
		said := map[string]twin.Value{}
		for j := range 20 {
			said[fmt.Sprint("config.sample.group", j, ".period")] = value(tb, "10s")
		}
		if err := b.side.Report(said); err != nil {
			tb.Fatal(err)
		}
		boards, names = append(boards, b), append(names, b.name)
	}
	set := patchOf()
	for j := range 5 {
		set.Set[fmt.Sprint("sample.group", j, ".period")] = []byte(`"5s"`)
	}
	if _, err := p.PatchMany(tb.Context(), ann(), names, set, nil); err != nil {
		tb.Fatal(err)
	}
	each(boards, func(b *board) { b.connect(1) })
	until(tb, "settled", func() bool {
		for _, b := range boards {
			h, _, err := p.cfg.Rows.Head(tb.Context(), twinrows.Key{Tenant: tenant, Board: b.name})
			if err != nil || h.Agreed == nil || h.Applied != 1 {
				return false
			}
		}
		return true
	})
	return boards, names
}

// each runs fn for all, 64 at one time, as connections do.
func each(boards []*board, fn func(*board)) {
	var wg sync.WaitGroup
	next := make(chan *board)
	for range 64 {
		wg.Go(func() {
			for b := range next {
				fn(b)
			}
		})
	}
	for _, b := range boards {
		next <- b
	}
	close(next)
	wg.Wait()
}

// processor is the time that this process has had of the processor: a machine that others
// use too tells nothing else.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func used(b *testing.B, n int, since time.Duration) {
	b.ReportMetric(float64((processor()-since).Microseconds())/float64(b.N*n), "cpu-µs/hello")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/hello")
}

// BenchmarkHello is what the hello of a board costs, of 2,000 boards one after another
// over 64 connections: again where the server has heard it before, first after a start of
// the server, anew after a start of the board, which reports all again.
func BenchmarkHello(b *testing.B) {
	dir := b.TempDir()
	p := open(b, dir)
	const n = 2000
	boards, _ := settled(b, p, n)
	ups := make([]wire.Up, n)
	for i, x := range boards {
		x.cut()
		ups[i] = *x.side.Hello(2)
	}
	p.end()
	hello := func(b *testing.B, x *Twins, i int, u wire.Up) {
		d, err := x.Up(context.Background(), tenant, boards[i].name, u)
		if err != nil || d == nil || d.Want != 0 {
			b.Errorf("%+v, %v", d, err)
		}
	}
	b.Run("first", func(b *testing.B) {
		cpu := processor()
		for b.Loop() {
			b.StopTimer()
			q := open(b, dir)
			b.StartTimer()
			for i := range n {
				hello(b, q.Twins, i, ups[i])
			}
			b.StopTimer()
			q.end()
			b.StartTimer()
		}
		used(b, n, cpu)
	})
	b.Run("again", func(b *testing.B) {
		q := open(b, dir)
		for i := range n {
			hello(b, q.Twins, i, ups[i])
		}
		cpu := processor()
		for b.Loop() {
			for i := range n {
				hello(b, q.Twins, i, ups[i])
			}
		}
		used(b, n, cpu)
		b.StopTimer()
		q.end()
	})
	b.Run("anew", func(b *testing.B) {
		q := open(b, dir)
		var cpu time.Duration
		for b.Loop() {
			b.StopTimer()
			for _, x := range boards {
				saved, err := x.side.Save()
				if err != nil {
					b.Fatal(err)
				}
				said := q.twin(b, x.name).Reported
				x.side = newSide(b, x.name, saved)
				all := map[string]twin.Value{}
				for key := range said {
					all[key] = value(b, "10s")
				}
				if err := x.side.Report(all); err != nil {
					b.Fatal(err)
				}
			}
			cpu -= processor()
			b.StartTimer()
			each(boards, func(x *board) {
				u := x.side.Hello(3)
				for u != nil {
					d, err := q.Up(context.Background(), tenant, x.name, *u)
					if err != nil {
						b.Error(err)
					}
					if u = nil; d != nil {
						if u, err = x.side.Receive(d); err != nil {
							b.Error(err)
						}
					}
				}
			})
			cpu += processor()
		}
		used(b, n, processor()-cpu)
		b.StopTimer()
		q.end()
	})
}

// BenchmarkChange is the time from a person's change of 1,000 boards, which are connected,
// to each board's word that it has it, stored.
func BenchmarkChange(b *testing.B) {
	p := open(b, b.TempDir())
	boards, names := settled(b, p, 1000)
	var took []time.Duration
	var mu sync.Mutex
	seen := map[string]bool{}
	version := uint64(1)
	var began time.Time
	p.cfg.Changed = func(_, board string) {
		p.mu.Lock()
		h := p.boards[twinrows.Key{Tenant: tenant, Board: board}].head // who tells holds it
		p.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		if h.Applied >= version && !seen[board] {
			seen[board] = true
			took = append(took, time.Since(began))
		}
	}
	for b.Loop() {
		mu.Lock()
		version++
		clear(seen)
		began = time.Now()
		mu.Unlock()
		if _, err := p.PatchMany(b.Context(), ann(), names, patchOf("log.level", fmt.Sprint("debug", version)), nil); err != nil {
			b.Fatal(err)
		}
		until(b, "all have it", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == len(boards) })
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms/p50")
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "ms/p99")
	b.StopTimer()
	for _, x := range boards {
		x.cut()
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/command"
)

// quantile gives the q-th of sorted times.
func quantile(d []time.Duration, q float64) time.Duration {
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// tell gives a benchmark's quantiles in milliseconds.
func tellTimes(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(quantile(times, 0.5).Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(quantile(times, 0.99).Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(times[len(times)-1].Microseconds())/1000, "max-ms")
}

// stamped notes when an output was set.
type stamped struct {
	*bank
	at atomic.Int64
}

func (s *stamped) Set(context.Context, string, float64, string) error {
	s.at.Store(time.Now().UnixNano())
	return nil
}

// burn keeps every core busy, as inference on the CPU does, until the benchmark ends.
// FULMAR_BURN says with how many goroutines; without it as many as cores.
func burn(b *testing.B) {
	n := runtime.GOMAXPROCS(0)
	if v, err := strconv.Atoi(os.Getenv("FULMAR_BURN")); err == nil {
		n = v
	}
	var over atomic.Bool
	b.Cleanup(func() { over.Store(true) })
	for range n {
		go func() {
			for x := 1.0; !over.Load(); {
				for range 1 << 16 {
					x = x*1.0000001 + 1e-9
				}
				runtime.KeepAlive(x)
			}
		}()
	}
}

// BenchmarkLocalToOutput is from a person's command to the call of the output, the
// journal on the disk of TMPDIR, with a busy CPU.
func BenchmarkLocalToOutput(b *testing.B) {
	st := newStation(b)
	st.stop()
	out := &stamped{bank: st.bank}
	cfg := st.config()
	cfg.Outputs = out
	st.begin(cfg)
	st.connect()
	burn(b)
	args := arguments(b, heater)
	var times []time.Duration
	for b.Loop() {
		begin := time.Now()
		r, err := st.s.Local(context.Background(), "local/eve", "set-output", args, Options{})
		if err == nil {
			r, err = st.s.Wait(context.Background(), r.ID)
		}
		if err != nil || r.State != command.Done {
			b.Fatal(r, err)
		}
		times = append(times, time.Unix(0, out.at.Load()).Sub(begin))
	}
	tellTimes(b, times)
}

// BenchmarkSubmitToDone is from the fleet's bytes to the end in the journal.
func BenchmarkSubmitToDone(b *testing.B) {
	st := newStation(b)
	st.connect()
	var times []time.Duration
	for b.Loop() {
		b.StopTimer()
		id, e := st.f.order(b, "set-output", heater)
		b.StartTimer()
		begin := time.Now()
		st.s.submit(context.Background(), e)
		if r, err := st.s.Wait(context.Background(), id); err != nil || r.State != command.Done {
			b.Fatal(r, err)
		}
		times = append(times, time.Since(begin))
	}
	tellTimes(b, times)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"os/exec"
	"runtime"
	"slices"
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

// burn keeps every core busy until the benchmark ends, as inference on the CPU does: in
// processes of their own, as nice as fulmard's worker is (worker.Child).
func burn(b *testing.B) {
	for range runtime.NumCPU() {
		c := exec.Command("nice", "-n", "5", "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
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

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
)

// What follows happens in processes of their own, each killed with signal 9 when it
// has said what it measured, so that a spool is never left in order.

// order is what such a process is told, in its environment as JSON.
type order struct {
	Do      string // fill, open, drain or probe
	Dir     string
	Boot    uint64 // of its clock: starts of one boot that end badly are counted
	Records int
	Encrypt bool
	Probe   bool
}

// found is what it says.
type found struct {
	Err       string
	Open      time.Duration
	Memory    string // why the spool works from memory: then Open says nothing
	Waiting   uint64 // records
	AddedHWM  int64  // bytes resident at most, by the kernel's mark, above an empty spool's
	AddedSeen int64  // the same as seen every 5 ms
	Drained   int
	Disk      int64 // bytes on disk before
	DiskAfter int64 // and in the class's segments after the drain
	Segments  int
	Freed     time.Duration // from the last acknowledgement until they were gone
}

const orderEnv = "FULMAR_SPOOL_BENCH"

// BenchmarkKilled measures a spool with a backlog after a kill -9: how long it takes
// to open, what it adds to the memory of a process that has an empty one while all of it
// is drained, and what is then left on the disk.
func BenchmarkKilled(b *testing.B) {
	if s := os.Getenv(orderEnv); s != "" {
		obey(s)
		return
	}
	for _, n := range []int{1000, 1_000_000} {
		for _, encrypt := range []bool{false, true} {
			boot := uint64(1)
			o := order{Do: "fill", Dir: b.TempDir(), Boot: boot, Records: n, Encrypt: encrypt}
			child(b, o)
			name := fmt.Sprintf("records=%d/encrypted=%v", n, encrypt)
			for _, how := range []string{"warm", "cold", "probed"} {
				b.Run(name+"/open="+how, func(b *testing.B) {
					for b.Loop() {
						opens(b, o, how, &boot)
					}
				})
			}
			b.Run(name+"/drain", func(b *testing.B) {
				for b.Loop() {
					o := order{Do: "fill", Dir: b.TempDir(), Boot: 1, Records: n, Encrypt: encrypt}
					child(b, o)
					o.Do, o.Boot = "drain", 2
					reportBacklog(b, child(b, o))
				}
			})
		}
	}
}

// opens opens the spool 25 times after a kill each. Every start is of a boot of its
// own, or the guard against crash loops would leave the files alone after the third.
func opens(b *testing.B, o order, how string, boot *uint64) {
	var took, flush []float64
	for range 25 {
		flush = append(flush, flushMillis(b))
		*boot++
		o.Do, o.Boot, o.Probe = "open", *boot, how == "probed"
		if how == "cold" {
			forget(b, o.Dir)
		}
		f := child(b, o)
		if f.Memory != "" || f.Waiting < uint64(o.Records) {
			b.Fatalf("void: %d records wait, memory %q", f.Waiting, f.Memory)
		}
		took = append(took, float64(f.Open.Microseconds())/1000)
	}
	b.ReportMetric(median(took), "ms-p50")
	b.ReportMetric(slices.Max(took), "ms-max")
	b.ReportMetric(median(flush), "ms-one-flush-p50")
	b.ReportMetric(0, "ns/op")
}

// flushMillis is what one flush of 4 KiB takes now: opening after a kill is about 30
// of them.
func flushMillis(b *testing.B) float64 {
	f, err := os.Create(filepath.Join(b.TempDir(), "flush"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 4096), 0)
	if err = errors.Join(err, f.Sync()); err != nil { // its place is not to count
		b.Fatal(err)
	}
	begin := time.Now()
	_, err = f.WriteAt(make([]byte, 4096), 0)
	if err := errors.Join(err, unix.Fdatasync(int(f.Fd()))); err != nil {
		b.Fatal(err)
	}
	return float64(time.Since(begin).Microseconds()) / 1000
}

func reportBacklog(b *testing.B, f found) {
	const mib = 1 << 20
	b.ReportMetric(float64(f.AddedHWM)/mib, "MiB-added-VmHWM")
	b.ReportMetric(float64(f.AddedSeen)/mib, "MiB-added-seen")
	b.ReportMetric(float64(f.Disk)/mib, "MiB-disk")
	b.ReportMetric(float64(f.DiskAfter)/mib, "MiB-disk-after")
	b.ReportMetric(float64(f.Segments), "segments-after")
	b.ReportMetric(float64(f.Freed.Milliseconds()), "ms-until-freed")
	b.ReportMetric(0, "ns/op")
}

// forget drops the files of a spool from the page cache.
func forget(b *testing.B, dir string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil { // what is dirty stays
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		b.Fatal(err)
	}
}

// command is this program, to carry out an order.
func command(ctx context.Context, o order) (*exec.Cmd, error) {
	s, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkKilled$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), orderEnv+"="+string(s))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// child has an order carried out, and kills who did.
func child(b *testing.B, o order) (f found) {
	b.Helper()
	cmd, err := command(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	said := false
	for sc := bufio.NewScanner(out); !said && sc.Scan(); {
		if s, ok := strings.CutPrefix(sc.Text(), "found "); ok {
			said = true
			err = json.Unmarshal([]byte(s), &f)
		}
	}
	_ = cmd.Process.Kill()
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	if err != nil || !said || f.Err != "" {
		b.Fatalf("%+v: said %v, %v %s", o, said, err, f.Err)
	}
	return f
}

// obey carries out an order and waits to be killed.
func obey(s string) {
	var o order
	var f found
	err := json.Unmarshal([]byte(s), &o)
	if err == nil && o.Do == "probe" {
		storage.ProbeFile(o.Dir)
		return
	}
	if err == nil {
		f, err = o.carryOut()
	}
	if err != nil {
		f.Err = err.Error()
	}
	out, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	fmt.Printf("\nfound %s\n", out) // the name of the benchmark may stand before it
	time.Sleep(time.Hour)
}

func (o *order) config() (storage.Config, error) {
	cfg := benchConfig(o.Dir)
	cfg.Clock = schema.NewClock(o.Boot, 0)
	if o.Encrypt {
		h, err := vault.OpenKeyFile(o.Dir + ".key")
		if err != nil {
			return cfg, err
		}
		cfg.Holder = h
	}
	if o.Probe {
		cfg.Probe = func(ctx context.Context, path string) error {
			cmd, err := command(ctx, order{Do: "probe", Dir: path})
			if err != nil {
				return err
			}
			return cmd.Run()
		}
	}
	return cfg, nil
}

func (o *order) carryOut() (f found, err error) {
	cfg, err := o.config()
	if err != nil {
		return f, err
	}
	if o.Do == "drain" {
		return drainKilled(cfg, o.Records)
	}
	begin := time.Now()
	s, err := storage.Open(cfg)
	f.Open = time.Since(begin)
	if err != nil {
		return f, err
	}
	st := s.Stats()
	f.Memory, f.Waiting = st.Memory, st.Classes[schema.ClassMetric].Outstanding
	n := o.Records
	if o.Do == "open" { // something for the next start to find
		n = 100
		if _, err := s.Append(context.Background(), schema.ClassEvent, benchPayload()); err != nil {
			return f, err
		}
	}
	return f, appendMetrics(s, n)
}

// drainKilled drains a spool. Before, it drains an empty one of a few records, so
// that the program's own pages are there and what is counted is the backlog's.
func drainKilled(cfg storage.Config, n int) (f found, err error) {
	small := cfg
	if small.Dir, err = os.MkdirTemp(filepath.Dir(cfg.Dir), "empty"); err != nil {
		return f, err
	}
	if err := drainBacklog(small, 1000, true, nil); err != nil {
		return f, err
	}
	debug.FreeOSMemory()
	base := memory("VmRSS")
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the mark begins anew
		return f, err
	}
	stop, seen := make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
				most = max(most, memory("VmRSS"))
			case <-stop:
				tick.Stop()
				seen <- most
				return
			}
		}
	}()
	err = drainBacklog(cfg, n, false, &f)
	close(stop)
	f.AddedSeen, f.AddedHWM = <-seen-base, memory("VmHWM")-base
	return f, err
}

// drainBacklog opens a spool, drains all of its metrics while it runs, and waits until
// the disk has them back.
func drainBacklog(cfg storage.Config, n int, fill bool, f *found) error {
	s, err := storage.Open(cfg)
	if err != nil {
		return err
	}
	if fill {
		if err := appendMetrics(s, n); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	st := s.Stats().Classes[schema.ClassMetric]
	n = max(n, int(st.Outstanding))
	if _, err := drainMetrics(s, n); err != nil {
		return err
	}
	begin := time.Now()
	after := s.Stats().Classes[schema.ClassMetric]
	for after.Segments > 1 && time.Since(begin) < 5*time.Second { // short of one: it shows
		time.Sleep(10 * time.Millisecond)
		after = s.Stats().Classes[schema.ClassMetric]
	}
	if f != nil {
		f.Drained, f.Disk, f.DiskAfter, f.Segments, f.Freed = n, st.Bytes, after.Bytes, after.Segments, time.Since(begin)
	}
	cancel()
	return errors.Join(<-ended, s.Close())
}

// memory is a line of /proc/self/status, in bytes.
func memory(name string) (n int64) {
	s, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return math.MinInt64 // absurd, so that it shows
	}
	for line := range strings.Lines(string(s)) {
		if _, err := fmt.Sscanf(line, name+": %d kB", &n); err == nil {
			return n << 10
		}
	}
	return math.MinInt64
}

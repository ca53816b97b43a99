// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/fleet/objects"
	"fulmar/internal/bucket"
	"fulmar/link"
	"fulmar/ota/fetch"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/tests/transfer/rig"
)

// diary is an outbox in memory that knows how long each record took.
type diary struct {
	mu    sync.Mutex
	recs  []schema.Stored
	made  map[uint64]time.Time
	took  []time.Duration
	seq   uint64
	acked uint64
	wake  chan struct{}
}

func newDiary() *diary { return &diary{made: map[uint64]time.Time{}, wake: make(chan struct{}, 1)} }

func (d *diary) add(t testing.TB) {
	rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{1}}})
	if err != nil {
		t.Error(err)
		return
	}
	d.mu.Lock()
	d.seq++
	d.recs = append(d.recs, schema.Stored{Class: schema.ClassMetric, Epoch: 1, Seq: d.seq, Payload: rec})
	d.made[d.seq] = time.Now()
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *diary) Read(c schema.Class, from uint64, maxRecords, _ int) (out []schema.Stored, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.recs {
		if c == r.Class && r.Seq >= from && len(out) < maxRecords {
			out = append(out, r)
		}
	}
	return out, nil
}

func (d *diary) Ack(_ schema.Class, _, first, last uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := first; s <= last; s++ {
		d.took = append(d.took, time.Since(d.made[s]))
		delete(d.made, s)
	}
	d.recs = slices.DeleteFunc(d.recs, func(r schema.Stored) bool { return r.Seq >= first && r.Seq <= last })
	d.acked = last
	return nil
}

func (d *diary) Cursors() []schema.Cursor {
	d.mu.Lock()
	defer d.mu.Unlock()
	return []schema.Cursor{{Class: schema.ClassMetric, Epoch: 1, Acked: d.acked, Last: d.seq}}
}

func (d *diary) Wake() <-chan struct{} { return d.wake }

// percentiles gives the median, the 99th and the longest of what was measured, and begins
// anew.
func (d *diary) percentiles() (n int, p50, p99, most time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.took)
	if n = len(d.took); n == 0 {
		return 0, 0, 0, 0
	}
	p50, p99, most = d.took[n/2], d.took[n*99/100], d.took[n-1]
	d.took = nil
	return n, p50, p99, most
}

// narrow is a line of so many bytes a second towards the board and a delay each way, with
// a queue of 32 KiB and what the kernel adds to that.
func narrow(t testing.TB, to string, rate int64, delay time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := shallow().Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			flying := int64(float64(rate) * delay.Seconds())
			go carry(up, c, bucket.New(0, 0), delay, flying)
			go carry(c, up, bucket.New(rate, 10*time.Millisecond), delay, flying)
		}
	}()
	return l.Addr().String()
}

// shallow dials with segments and a window as on a line of a site: loopback's segments of
// 64 KiB in a small window would stand still.
func shallow() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<10))
		}); e != nil {
			return e
		}
		return err
	}}
}

// carry copies at a rate, each part later by a delay, in which so many bytes are flying.
func carry(to io.WriteCloser, from io.ReadCloser, pace *bucket.Bucket, delay time.Duration, flying int64) {
	type part struct {
		b  []byte
		at time.Time
	}
	line := make(chan part, 16+flying/(2<<10))
	go func() {
		defer close(line)
		for {
			b := make([]byte, 2<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if pace.Sleep(context.Background(), n) != nil {
				return
			}
			line <- part{b[:n], time.Now().Add(delay)}
		}
	}()
	for p := range line {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.b); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	for range line { //nolint:revive // until the reader has ended
	}
}

// under measures telemetry of a board with the real link before and while it fetches.
func under(t testing.TB, rate int64, delay time.Duration, size int) (quiet, busy time.Duration, speed float64) {
	f := fleet(t, objects.Config{Linger: 50 * time.Millisecond})
	want := content(30, size)
	o := put(t, f, want)
	addr := f.Addr
	if rate > 0 {
		addr = narrow(t, f.Addr, rate, delay)
	}
	dial, err := f.Dial("b1", addr)
	if err != nil {
		t.Fatal(err)
	}
	out, later := newDiary(), &late{}
	m := fetch.NewMQTT(later)
	up := make(chan struct{}, 8)
	s, err := link.New(link.Config{
		Tenant: rig.Tenant, Board: "b1", Dial: dial, Clock: schema.NewClock(7, 0), ReconnectWindow: time.Millisecond,
		Filters: []schema.Channel{schema.ChanPiece}, Connected: func(ctx context.Context, _ uint64) { up <- struct{}{}; <-ctx.Done() },
		Inbox: func(d link.Down) {
			w := new(ota.Down)
			if schema.Decode(d.Payload, w) == nil {
				m.Take(w)
			}
		},
	}, out, nil)
	if err != nil {
		t.Fatal(err)
	}
	later.Line = s
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = s.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	<-up
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			out.add(t)
			time.Sleep(10 * time.Millisecond)
		}
	})
	defer wg.Wait()
	defer cancel()
	time.Sleep(2 * time.Second)
	n, p50, p99, most := out.percentiles()
	t.Logf("quiet: %d records, p50 %v, p99 %v, longest %v", n, p50, p99, most)
	quiet = p99
	ft, err := fetch.New(fetch.Config{Dir: t.TempDir(), Sources: []fetch.Source{m}})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	fetching, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	path, err := ft.Fetch(fetching, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	check(t, path, want)
	n, p50, p99, most = out.percentiles()
	speed = float64(size) / took.Seconds()
	t.Logf("fetching: %d records, p50 %v, p99 %v, longest %v; %d bytes in %v, %.2f MB/s, %+v", n, p50, p99, most, size, took, speed/1e6, ft.Stats())
	if st := s.Status(); st.Generation != 1 {
		t.Errorf("%+v", st)
	}
	return quiet, p99, speed
}

// TestTelemetry: while an object comes over the same connection, on a line of 16 Mbit/s and 10 ms
// each way, records do not wait for it: the slowest of 99 in 100 takes a small part of the
// object's time. What that time is on a quiet machine (at most 120 ms) is the benchmark's.
func TestTelemetry(t *testing.T) {
	const size = 6 << 20
	quiet, busy, speed := under(t, 2<<20, 10*time.Millisecond, size)
	if whole := time.Duration(size / speed * float64(time.Second)); busy-quiet > whole/16 {
		t.Errorf("p99 is %v, %v without the object, which took %v: at most a sixteenth of it more", busy, quiet, whole)
	}
	if speed < 0.25*(2<<20) {
		t.Errorf("%.0f bytes a second of %d", speed, 2<<20)
	}
}

// BenchmarkTelemetry measures the same on other lines.
func BenchmarkTelemetry(b *testing.B) {
	for _, l := range []struct {
		name  string
		rate  int64
		delay time.Duration
		size  int
	}{{"loopback", 0, 0, 32 << 20}, {"50Mbit-10ms", 6250_000, 10 * time.Millisecond, 16 << 20}, {"16Mbit-10ms", 2_000_000, 10 * time.Millisecond, 8 << 20}, {"8Mbit-25ms", 1_000_000, 25 * time.Millisecond, 4 << 20}} {
		b.Run(l.name, func(b *testing.B) {
			for range b.N {
				quiet, busy, speed := under(b, l.rate, l.delay, l.size)
				b.ReportMetric(float64(quiet.Microseconds())/1000, "quiet-p99-ms")
				b.ReportMetric(float64(busy.Microseconds())/1000, "p99-ms")
				b.ReportMetric(speed/1e6, "MB/s")
			}
		})
	}
}

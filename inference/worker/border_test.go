// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/internal/peercred"
	"fulmar/internal/sdnotify"
	"fulmar/schema"
)

// waitLong bounds every wait for something that must happen; it is no timing.
const waitLong = 10 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// backend records what a server is told.
type backend struct {
	setups chan Setup
	status Status
}

func (b *backend) Apply(s Setup)  { b.setups <- s }
func (b *backend) Status() Status { return b.status }

// keeper records what a client hears; hold, when set, is waited for in Result.
type keeper struct {
	mu      sync.Mutex
	frames  []uint64
	hold    chan struct{}
	entered chan struct{}
	got     chan uint64
	status  chan Status
}

func newKeeper() *keeper {
	return &keeper{got: make(chan uint64, 4096), status: make(chan Status, 256), entered: make(chan struct{}, 4096)}
}

func (k *keeper) Result(ctx context.Context, r *Result) {
	k.entered <- struct{}{}
	if k.hold != nil {
		select {
		case <-k.hold:
		case <-ctx.Done():
			return
		}
	}
	k.mu.Lock()
	k.frames = append(k.frames, r.Event.Frame)
	k.mu.Unlock()
	k.got <- r.Event.Frame
}

func (k *keeper) Status(_ context.Context, s *Status) {
	select {
	case k.status <- *s:
	default:
	}
}

func (k *keeper) next(t *testing.T) uint64 {
	t.Helper()
	select {
	case f := <-k.got:
		return f
	case <-time.After(waitLong):
		t.Fatal("no result came")
		return 0
	}
}

type border struct {
	path    string
	server  *Server
	backend *backend
}

// newBorder serves on a real socket until the test ends.
func newBorder(t testing.TB) *border {
	t.Helper()
	dir, err := os.MkdirTemp("", "fw") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	b := &border{path: filepath.Join(dir, "w.sock"), backend: &backend{setups: make(chan Setup, 64)}}
	ln, err := sdnotify.Listen(b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.server = NewServer("test-worker", ln, b.backend, quiet())
	stop := background(t, b.server.Run)
	t.Cleanup(func() { stop(); os.RemoveAll(dir) })
	return b
}

// background runs a part until stop or the end of the test, which waits for it.
func background(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("part ended with %v", err)
			}
		case <-time.After(waitLong):
			t.Error("part did not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func (b *border) dial(ctx context.Context) (net.Conn, error) { return peercred.Dial(ctx, b.path) }

func (b *border) client(t testing.TB, k *keeper) (*Client, func()) {
	c := NewClient("test-fulmard", b.dial, k, quiet())
	return c, background(t, c.Run)
}

func result(frame uint64) Result {
	return Result{Event: schema.Event{Source: "cam0", Frame: frame, Boxes: []schema.Box{{Score: 0.5, X1: 1, Y1: 1}}}}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLong); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", waitLong, what)
		}
	}
}

func TestSetupResultsAndStatusCross(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	b.backend.status = Status{Cameras: []CameraStatus{{Name: "cam0", State: "running", Frames: 7}}}
	k := newKeeper()
	c, _ := b.client(t, k)
	want := fullSetup()
	if err := c.Update(want); err != nil {
		t.Fatal(err)
	}
	if got := <-b.backend.setups; len(got.Cameras) != MaxCameras || got.Cameras[3].SnapshotEvery != time.Minute {
		t.Errorf("setup came as %+v", got)
	}
	want.Cameras = want.Cameras[:1]
	if err := c.Update(want); err != nil {
		t.Fatal(err)
	}
	if got := <-b.backend.setups; len(got.Cameras) != 1 {
		t.Errorf("second setup has %d cameras", len(got.Cameras))
	}
	if err := c.Update(Setup{Threads: -1}); err == nil {
		t.Error("a setup the worker would refuse was accepted")
	}
	for i := range uint64(100) {
		b.server.Send(result(i + 1))
		if got := k.next(t); got != i+1 {
			t.Fatalf("frame %d came, want %d", got, i+1)
		}
	}
	s := <-k.status
	if s.Release != "test-worker" || len(s.Cameras) != 1 || s.Cameras[0].Frames != 7 || s.ResultsDropped != 0 {
		t.Errorf("status %+v", s)
	}
	waitFor(t, "a measured round trip", func() bool { return c.State().RoundTrip > 0 })
	if st := c.State(); !st.Connected || st.Release != "test-worker" {
		t.Errorf("state %+v", st)
	}
}

func TestNoReaderDropsOldestAndCounts(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	const sent = QueueLen + 36
	for i := range uint64(sent) {
		b.server.Send(result(i + 1))
	}
	if d := b.server.Dropped(); d != 36 {
		t.Errorf("%d dropped, want 36", d)
	}
	b.server.Send(Result{Event: schema.Event{Source: "Not A Name"}})
	if d := b.server.Dropped(); d != 37 {
		t.Errorf("%d dropped after one that breaks a limit, want 37", d)
	}
	k := newKeeper()
	b.client(t, k)
	for i := range uint64(QueueLen) {
		if got := k.next(t); got != 37+i {
			t.Fatalf("frame %d came, want %d", got, 37+i)
		}
	}
	waitFor(t, "a status with the count", func() bool { return (<-k.status).ResultsDropped == 37 })
}

func TestBlockedHandlerBoundsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	k := newKeeper()
	k.hold = make(chan struct{})
	b.client(t, k)
	b.server.Send(result(1))
	<-k.entered
	const sent = 1000
	for i := range uint64(sent - 1) {
		start := time.Now()
		b.server.Send(result(i + 2))
		if d := time.Since(start); d > time.Second {
			t.Fatalf("Send took %v", d)
		}
	}
	waitFor(t, "the window to fill", func() bool {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return len(b.server.sent) == Window && len(b.server.queue) <= QueueLen
	})
	dropped := b.server.Dropped()
	if dropped < sent-Window-QueueLen {
		t.Errorf("%d dropped of %d, more than %d are kept", dropped, sent, Window+QueueLen)
	}
	close(k.hold)
	var last uint64
	for range sent - dropped {
		f := k.next(t)
		if f <= last {
			t.Fatalf("frame %d after %d", f, last)
		}
		last = f
	}
	if last != sent {
		t.Errorf("newest frame is %d, want %d: the newest must not be dropped", last, sent)
	}
}

// cutter gives connections that the test can cut.
type cutter struct {
	dial func(context.Context) (net.Conn, error)
	mu   sync.Mutex
	conn net.Conn
}

func (c *cutter) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
}

func TestBreaksNeitherLoseNorDouble(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	k := newKeeper()
	cut := &cutter{dial: b.dial}
	c := NewClient("x", cut.Dial, k, quiet())
	background(t, c.Run)
	var frame, came uint64
	for range 20 {
		for range 10 {
			frame++
			b.server.Send(result(frame))
		}
		if frame%20 == 0 {
			came++
			if got := k.next(t); got != came {
				t.Fatalf("frame %d came, want %d", got, came)
			}
		}
		cut.cut()
		for frame-came > QueueLen/2 {
			came++
			if got := k.next(t); got != came {
				t.Fatalf("frame %d came, want %d", got, came)
			}
		}
	}
	for came < frame {
		came++
		if got := k.next(t); got != came {
			t.Fatalf("frame %d came, want %d", got, came)
		}
	}
	if d := b.server.Dropped(); d != 0 {
		t.Errorf("%d dropped", d)
	}
	select {
	case f := <-k.got:
		t.Errorf("frame %d came twice", f)
	default:
	}
	if n := c.State().Connects; n < 5 {
		t.Errorf("only %d connections: the test cut nothing", n)
	}
}

// A result whose frame did not leave whole goes first on the next connection, unless
// the client says that it has it; one that the client has is not sent again.
func TestCutResultGoesFirst(t *testing.T) {
	t.Parallel()
	s := NewServer("x", nil, nil, quiet())
	conn, _ := net.Pipe()
	s.current = conn
	for i := range uint64(3) {
		s.Send(result(i))
	}
	p, ok := s.pull(conn)
	if other, _ := net.Pipe(); !ok || p.number != 1 {
		t.Fatalf("pulled %d, %v", p.number, ok)
	} else if _, ok := s.pull(other); ok {
		t.Error("a connection that is not the newest got a result")
	}
	s.unpull(p)
	if p, _ = s.pull(conn); p.number != 1 {
		t.Errorf("%d goes first, want 1", p.number)
	}
	body, err := codec().enc.Marshal(taken{2})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.take(kindTaken, body, nil); err != nil {
		t.Fatal(err)
	}
	s.unpull(p) // it is taken: nothing to put back
	if p, _ = s.pull(conn); p.number != 3 || len(s.queue) != 0 || len(s.sent) != 1 {
		t.Errorf("%d goes next, want 3; %d wait, %d under way", p.number, len(s.queue), len(s.sent))
	}
}

func TestNewClientGetsNothingTwice(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	k := newKeeper()
	k.hold = make(chan struct{}) // never opened: fulmard dies while it keeps an event
	_, stop := b.client(t, k)
	for i := range uint64(3) {
		b.server.Send(result(i + 1))
	}
	<-k.entered
	waitFor(t, "three under way", func() bool {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return len(b.server.sent) == 3
	})
	stop()
	k2 := newKeeper()
	b.client(t, k2)
	b.server.Send(result(4))
	if got := k2.next(t); got != 4 {
		t.Errorf("frame %d came, want 4", got)
	}
	if d := b.server.Dropped(); d != 3 {
		t.Errorf("%d dropped, want the 3 that were under way", d)
	}
}

func TestNewestClientWins(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	old, err := b.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := shake(old, hello{Protocol: Protocol, Run: 1}, &frameReader{r: old, limit: MaxUp}, MaxDown); err != nil {
		t.Fatal(err)
	}
	k := newKeeper()
	b.client(t, k)
	b.server.Send(result(1))
	// The old one may still have got the result before the new one came.
	old.SetReadDeadline(time.Now().Add(waitLong))
	if _, err := io.Copy(io.Discard, old); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the old connection was not closed: %v", err)
	}
	b.server.Send(result(2))
	for k.next(t) != 2 {
	}
}

func TestOtherProtocolIsRefusedByBoth(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	conn, err := b.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, _ := appendFrame(nil, kindHello, hello{Protocol: 99, Release: "from-tomorrow"}, MaxDown)
	conn.Write(f)
	fr := &frameReader{r: conn, limit: MaxUp}
	if k, _, err := fr.next(); k != kindHello || err != nil {
		t.Fatalf("first frame of kind %d, %v", k, err)
	}
	k, body, err := fr.next()
	if err != nil || k != kindRefuse {
		t.Fatalf("second frame of kind %d, %v; want a refusal", k, err)
	}
	if text := refused(body).Error(); !strings.Contains(text, "protocol 99") || !strings.Contains(text, "one release") {
		t.Errorf("refusal says %q", text)
	}

	// And fulmard's side, against a worker of tomorrow.
	c := NewClient("v1", func(context.Context) (net.Conn, error) {
		mine, theirs := net.Pipe()
		go func() {
			f, _ := appendFrame(nil, kindHello, hello{Protocol: 99}, MaxUp)
			go io.Copy(io.Discard, theirs)
			theirs.Write(f)
		}()
		return mine, nil
	}, newKeeper(), quiet())
	background(t, c.Run)
	waitFor(t, "the client to say why", func() bool { return strings.Contains(c.State().Error, "speaks protocol 99") })
}

func TestServerOutlivesNonsense(t *testing.T) {
	t.Parallel()
	b := newBorder(t)
	good, _ := appendFrame(nil, kindHello, hello{Protocol: Protocol}, MaxDown)
	frame := func(k kind, body string) string {
		return string(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+1)), append([]byte{byte(k)}, body...)...))
	}
	badSetup, _ := appendFrame(nil, kindSetup, &Setup{Threads: -5}, MaxDown)
	for name, in := range map[string]string{
		"garbage":              "GET / HTTP/1.1\r\n\r\n",
		"oversize first":       "\xff\xff\xff\xff\x01",
		"empty frame":          string(good) + "\x00\x00\x00\x00",
		"oversize later":       string(good) + "\x00\x01\x00\x01\x03",
		"garbage setup":        string(good) + frame(kindSetup, "\xff\xff\xff"),
		"setup out of bounds":  string(good) + string(badSetup),
		"worker's own kind":    string(good) + frame(kindResult, "\xa0"),
		"kind nobody knows":    string(good) + frame(200, "\xa0"),
		"indefinite length":    string(good) + frame(kindSetup, "\xbf\x01\x9f\xff\xff"),
		"deep nest":            string(good) + frame(kindSetup, "\xa1\x01"+strings.Repeat("\x81", 100)+"\x00"),
		"array of 2^32 models": string(good) + frame(kindSetup, "\xa1\x02\x9a\xff\xff\xff\xff"),
	} {
		conn, err := b.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(in))
		conn.SetReadDeadline(time.Now().Add(waitLong))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		conn.Close()
	}
	select {
	case s := <-b.backend.setups:
		t.Errorf("nonsense was applied: %+v", s)
	default:
	}
	k := newKeeper()
	b.client(t, k)
	b.server.Send(result(1))
	k.next(t)
}

func TestClientOutlivesNonsenseAndSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ours := hello{Protocol: Protocol, Run: 5}
		var mu sync.Mutex
		dials := 0
		var at []time.Time
		hand := func(conn net.Conn, n int) {
			defer conn.Close()
			if _, err := shake(conn, ours, &frameReader{r: conn, limit: MaxDown}, MaxUp); err != nil {
				return
			}
			switch n {
			case 1:
				conn.Write([]byte("\xff\xff\xff\xff\xff"))
			case 2:
				io.Copy(io.Discard, conn) // silent: a worker that hangs
			case 3:
				f, _ := appendFrame(nil, kindResult, numbered{1, Result{Event: schema.Event{Source: "BAD"}}}, MaxUp)
				conn.Write(f)
			default:
				r := result(42)
				f, _ := appendFrame(nil, kindResult, numbered{1, r}, MaxUp)
				go io.Copy(io.Discard, conn)
				conn.Write(f)
				<-ctx.Done()
			}
		}
		k := newKeeper()
		c := NewClient("v1", func(context.Context) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dials++
			at = append(at, time.Now())
			mine, theirs := net.Pipe()
			go func(n int) {
				go func() { <-ctx.Done(); theirs.Close() }()
				hand(pipeConn{theirs}, n)
			}(dials)
			return pipeConn{mine}, nil
		}, k, quiet())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		if f := <-k.got; f != 42 {
			t.Errorf("frame %d", f)
		}
		mu.Lock()
		hung := at[2].Sub(at[1])
		mu.Unlock()
		if hung < silence || hung > silence+backoffMax {
			t.Errorf("a silent worker was given up after %v, want about %v", hung, silence)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		synctest.Wait()
	})
}

// pipeConn writes from a goroutine so that both sides of a net.Pipe may say hello
// first, as on a socket with a buffer.
type pipeConn struct{ net.Conn }

func (p pipeConn) Write(b []byte) (int, error) {
	go p.Conn.Write(bytes.Clone(b))
	return len(b), nil
}

func TestBackoffIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := 0
		c := NewClient("v1", func(context.Context) (net.Conn, error) { n++; return nil, io.EOF }, newKeeper(), quiet())
		if err := c.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n < 120 || n > 130 { // 60 s at 500 ms, and the first few
			t.Errorf("%d attempts in a minute", n)
		}
	})
}

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	for range 2 { // the second finds the first one's socket
		ln, err := sdnotify.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Lstat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("socket has mode %v, %v", st.Mode(), err)
		}
		ln.Close()
	}
	os.Remove(path)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sdnotify.Listen(path); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if _, err := sdnotify.Listen("/" + strings.Repeat("x", 200)); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("long path: %v", err)
	}
}

// BenchmarkRoundTrip is a ping over the real socket and both frame codecs.
func BenchmarkRoundTrip(b *testing.B) {
	s := newBorder(b)
	conn, err := s.dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	fr := &frameReader{r: conn, limit: MaxUp}
	if _, err := shake(conn, hello{Protocol: Protocol}, fr, MaxDown); err != nil {
		b.Fatal(err)
	}
	var buf []byte
	for i := 0; b.Loop(); i++ {
		buf, _ = appendFrame(buf[:0], kindPing, ping{uint64(i)}, MaxDown)
		if _, err := conn.Write(buf); err != nil {
			b.Fatal(err)
		}
		for {
			k, _, err := fr.next()
			if err != nil {
				b.Fatal(err)
			}
			if k == kindPong {
				break
			}
		}
	}
}

// BenchmarkResult is Send in the worker to Handler.Result in fulmard.
func BenchmarkResult(b *testing.B) {
	s := newBorder(b)
	k := newKeeper()
	s.client(b, k)
	r := result(1)
	for range 9 {
		r.Event.Boxes = append(r.Event.Boxes, r.Event.Boxes[0])
	}
	for b.Loop() {
		s.server.Send(r)
		<-k.got
		<-k.entered
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"fulmar/internal/peercred"
	"fulmar/internal/run"
)

// Bounds of what the worker keeps for its reader.
const (
	// QueueLen is how many results wait: at the highest event rate in use (ten
	// cameras, one event a second each) it is what a restart of fulmard takes.
	QueueLen = 64
	// Window is how many results are under way and not yet handled: enough that
	// the reader never waits for the border, few enough that they stay fresh.
	Window = 16
	// statusEvery is the time between two statuses.
	statusEvery = time.Second
	// maxGreeting is how many connections may be in their handshake at once.
	maxGreeting = 4
)

// Backend is what a server serves: Apply takes the newest setup and must not
// block, Status tells of now. Longer error texts than MaxErrorText are cut.
type Backend interface {
	Apply(s Setup)
	Status() Status
}

// Server is the worker's side of the border. It has one client at a time; the
// newest one wins, because a fulmard that comes back is more right than a
// connection whose other end may be gone.
type Server struct {
	release string
	ln      net.Listener
	backend Backend
	log     *slog.Logger
	run     uint64
	wake    chan struct{} // 1-buffered: there may be something to send
	callers []int         // user ids let in beside our own and root
	gone    time.Time     // since when there is no client; zero while there is one

	turn    sync.Mutex // held by the session that serves
	mu      sync.Mutex
	current net.Conn // of the session that serves or is about to
	queue   []parcel
	sent    []parcel // under way, oldest first
	number  uint64
	dropped uint64
	client  uint64 // run of the client that sent belongs to
	life    *uint64
	quit    chan struct{} // 1-buffered: fulmard wants another worker
}

// ErrRestart ends a server whose fulmard asked for a new worker.
var ErrRestart = errors.New("fulmard asked for a new worker")

// NewServer makes a server that takes connections from ln and closes it at the end.
func NewServer(release string, ln net.Listener, b Backend, log *slog.Logger) *Server {
	return &Server{release: release, ln: ln, backend: b, log: log, run: rand.Uint64(), wake: make(chan struct{}, 1), quit: make(chan struct{}, 1), gone: time.Now()}
}

// Admit lets another user in than our own and root: fulmard's, where it is not ours.
// It is to be called before Run.
func (s *Server) Admit(uid int) { s.callers = append(s.callers, uid) }

// Alone tells for how long there has been no client, 0 while there is one.
func (s *Server) Alone() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone.IsZero() {
		return 0
	}
	return time.Since(s.gone)
}

// parcel is one result as it goes on the wire.
type parcel struct {
	number uint64
	frame  []byte
}

// Send queues a result for the client and never blocks: when the queue is full its
// oldest result is dropped and counted, and so is a result that breaks a limit of
// the wire. It is encoded before Send returns, so its slices stay the caller's.
func (s *Server) Send(r Result) {
	err := r.Validate()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	var frame []byte
	if err == nil {
		frame, err = appendFrame(nil, kindResult, &numbered{s.number, r}, MaxUp)
	}
	if err != nil {
		s.dropped++
		s.log.Error("result dropped", "error", err)
		return
	}
	s.queue = append(s.queue, parcel{s.number, frame})
	s.trim()
	poke(s.wake)
}

// Dropped counts the results that found no reader.
func (s *Server) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// trim holds the queue to its bound; s.mu is held.
func (s *Server) trim() {
	if over := len(s.queue) - QueueLen; over > 0 {
		s.dropped += uint64(over)
		n := copy(s.queue, s.queue[over:])
		clear(s.queue[n:])
		s.queue = s.queue[:n]
	}
}

// Run takes connections until the context ends or the listener breaks.
func (s *Server) Run(ctx context.Context) error {
	g := run.New(ctx)
	greeting := make(chan struct{}, maxGreeting)
	stop := context.AfterFunc(g.Context(), func() {
		s.ln.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.current != nil {
			s.current.Close()
		}
	})
	defer stop()
	g.Go("life", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-s.quit:
			return ErrRestart
		}
	})
	g.Go("accept", func(ctx context.Context) error {
		for {
			conn, err := s.ln.Accept()
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fmt.Errorf("accept fulmard: %w", err)
			}
			select {
			case greeting <- struct{}{}:
			default:
				conn.Close() // the caller tries again
				continue
			}
			g.Go("session", func(ctx context.Context) error {
				defer conn.Close()
				err := s.greet(ctx, conn, func() { <-greeting })
				if err != nil && ctx.Err() == nil {
					s.log.Info("fulmard connection ended", "reason", err)
				}
				return nil // one client's end is not the server's
			})
		}
	})
	return g.Wait(2 * stopGrace)
}

// greet checks who calls, shakes hands, waits for the session before it to end and
// serves. Greeted is called once, when the handshake is over.
func (s *Server) greet(ctx context.Context, conn net.Conn, greeted func()) error {
	once := sync.OnceFunc(greeted)
	defer once()
	if err := peercred.Check(conn, s.callers...); err != nil {
		refuse(conn, err.Error(), MaxUp)
		return err
	}
	unblock := context.AfterFunc(ctx, func() { conn.Close() })
	defer unblock()
	mine := hello{Protocol: Protocol, Release: s.release, Run: s.run}
	theirs, err := shake(conn, mine, &frameReader{r: conn, limit: MaxDown}, MaxUp)
	if err != nil {
		return fmt.Errorf("greet fulmard: %w", err)
	}
	s.mu.Lock()
	old := s.current
	s.current, s.gone = conn, time.Time{}
	s.mu.Unlock()
	if old != nil {
		// Closed without a word: one that does not read would hold us up.
		old.Close()
	}
	once()
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.begin(conn, theirs.Run) {
		return errors.New("a newer fulmard took over")
	}
	s.log.Info("fulmard connected", "release", theirs.Release)
	return s.serve(ctx, conn)
}

// begin settles what was under way to the client before. It tells whether conn is
// still the newest.
func (s *Server) begin(conn net.Conn, client uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != conn {
		return false
	}
	if client == s.client {
		s.queue = append(append([]parcel(nil), s.sent...), s.queue...)
		s.trim()
	} else {
		s.dropped += uint64(len(s.sent))
	}
	s.client, s.sent = client, nil
	return true
}

func (s *Server) serve(ctx context.Context, conn net.Conn) error {
	g := run.New(ctx)
	unblock := context.AfterFunc(g.Context(), func() { conn.Close() })
	defer unblock()
	pings := make(chan uint64, 1)
	g.Go("read", func(ctx context.Context) error { return s.read(ctx, conn, pings) })
	g.Go("write", func(ctx context.Context) error { return s.write(ctx, conn, pings) })
	err := g.Wait(stopGrace)
	s.mu.Lock()
	if s.current == conn {
		s.current, s.gone = nil, time.Now()
	}
	s.mu.Unlock()
	return err
}

func (s *Server) read(ctx context.Context, conn net.Conn, pings chan<- uint64) error {
	fr := &frameReader{r: conn, limit: MaxDown}
	for ctx.Err() == nil {
		if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		k, body, err := fr.next()
		if err != nil {
			return fmt.Errorf("hear fulmard: %w", bare(err))
		}
		if err := s.take(k, body, pings); err != nil {
			refuse(conn, err.Error(), MaxUp)
			return err
		}
	}
	return ctx.Err()
}

func (s *Server) take(k kind, body []byte, pings chan<- uint64) error {
	switch k {
	case kindSetup:
		var v Setup
		if err := decode(body, &v); err != nil {
			return err
		}
		s.mu.Lock()
		if s.life == nil {
			s.life = &v.Life
		}
		another := v.Life != 0 && v.Life != *s.life
		s.mu.Unlock()
		if another {
			poke(s.quit)
		}
		s.backend.Apply(v)
	case kindTaken:
		var t taken
		if err := decode(body, &t); err != nil {
			return err
		}
		s.mu.Lock()
		s.sent = after(s.sent, t.Number)
		// After a break those it has may be waiting to be sent again.
		s.queue = after(s.queue, t.Number)
		s.mu.Unlock()
		poke(s.wake)
	case kindPing:
		var p ping
		if err := decode(body, &p); err != nil {
			return err
		}
		select {
		case pings <- p.Number:
		default: // one answer is under way; a ping a second needs no queue
		}
	case kindRefuse:
		return refused(body)
	default:
		return fmt.Errorf("fulmard sent a frame of kind %d, which only the worker sends or nobody knows", k)
	}
	return nil
}

// after gives the parcels with higher numbers; p rises.
func after(p []parcel, number uint64) []parcel {
	n := 0
	for n < len(p) && p[n].number <= number {
		n++
	}
	return append(p[:0:0], p[n:]...)
}

// pull moves the oldest waiting result among those under way, if there is one,
// the window is open and conn is still the newest.
func (s *Server) pull(conn net.Conn) (parcel, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 || len(s.sent) >= Window || s.current != conn {
		return parcel{}, false
	}
	p := s.queue[0]
	s.queue[0] = parcel{}
	s.queue = s.queue[1:]
	s.sent = append(s.sent, p)
	return p, true
}

// unpull puts p, the newest result under way, back: its frame did not leave whole,
// so no client can have it.
func (s *Server) unpull(p parcel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.sent) - 1
	if last < 0 || s.sent[last].number != p.number {
		return // the client says it has it
	}
	s.sent = s.sent[:last]
	s.queue = append([]parcel{p}, s.queue...)
	s.trim()
}

func (s *Server) write(ctx context.Context, conn net.Conn, pings <-chan uint64) error {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	buf, err := s.status(nil)
	for {
		if err == nil {
			err = send(conn, buf)
		}
		if err != nil {
			return fmt.Errorf("tell fulmard: %w", err)
		}
		if p, ok := s.pull(conn); ok {
			if err = send(conn, p.frame); err != nil {
				s.unpull(p)
			}
			buf = buf[:0]
			continue
		}
		buf = buf[:0]
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case n := <-pings:
			buf, err = appendFrame(buf, kindPong, ping{n}, MaxUp)
		case <-tick.C:
			buf, err = s.status(buf)
		}
	}
}

func (s *Server) status(buf []byte) ([]byte, error) {
	v := s.backend.Status()
	v.Release = s.release
	v.ResultsDropped += s.Dropped()
	for i := range v.Cameras {
		v.Cameras[i].Error = clipText(v.Cameras[i].Error)
	}
	for i := range v.Models {
		m := &v.Models[i]
		for _, text := range []*string{&m.Error, &m.Build, &m.Fallback} {
			*text = clipText(*text)
		}
	}
	if err := v.Validate(); err != nil {
		return nil, err
	}
	return appendFrame(buf, kindStatus, &v, MaxUp)
}

// clipText makes an error fit for the wire: bounded, and UTF-8 in spite of the file
// names in it, which CBOR's text wants.
func clipText(s string) string {
	if len(s) > MaxErrorText {
		s = s[:MaxErrorText-3] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

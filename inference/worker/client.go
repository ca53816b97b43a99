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
	"sync"
	"sync/atomic"
	"time"

	"fulmar/internal/run"
)

// Times of a connection, both sides.
const (
	helloWait = 2 * time.Second // a worker answers in a millisecond; a hung one must not hold us
	pingEvery = time.Second
	silence   = 5 * time.Second // nothing heard for this long: the other side hangs
	writeWait = 5 * time.Second // the other side does not read: it hangs
	stopGrace = 3 * time.Second // for a session's parts to end after a broken connection
)

// The waits between two attempts to reach the worker. Short, because a worker
// that was killed is back in a fraction of a second and each attempt is one
// connect on a local socket.
const (
	backoffFirst = 20 * time.Millisecond
	backoffMax   = 500 * time.Millisecond
)

// Handler takes what the worker says. Calls come one at a time. Result may block
// (until the event is durable); the worker then drops its oldest results. What it
// gets is the handler's own.
type Handler interface {
	Result(ctx context.Context, r *Result)
	Status(ctx context.Context, s *Status)
}

// State tells how a client stands with its worker.
type State struct {
	Connected bool
	Release   string        // of the worker, when it was last connected
	RoundTrip time.Duration // of the last ping; 0 before the first
	Connects  uint64        // connections made since the start
	Error     string        // why the last connection or attempt ended; "" when connected
}

// Client is fulmard's side of the border.
type Client struct {
	release string
	dial    func(context.Context) (net.Conn, error)
	handler Handler
	log     *slog.Logger
	run     uint64
	start   time.Time
	wake    chan struct{} // 1-buffered: there is a setup or a taken number to send

	handled atomic.Uint64 // newest result number handled of worker peerRun

	mu      sync.Mutex
	setup   *Setup
	newest  uint64 // number of the setup; rises with each Update
	state   State
	peerRun uint64
}

// NewClient makes a client that reaches its worker by dial and gives what it
// hears to h. Release is fulmard's own version, told to the worker.
func NewClient(release string, dial func(context.Context) (net.Conn, error), h Handler, log *slog.Logger) *Client {
	return &Client{
		release: release, dial: dial, handler: h, log: log,
		run: rand.Uint64(), start: time.Now(), wake: make(chan struct{}, 1),
	}
}

// Update sets the setup the worker is to have: it is sent now, if connected, and
// first thing on each later connection. A setup that the worker would refuse is an
// error here and changes nothing. The caller must not change s afterwards.
func (c *Client) Update(s Setup) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if _, err := appendFrame(nil, kindSetup, &s, MaxDown); err != nil {
		return err
	}
	c.mu.Lock()
	c.setup = &s
	c.newest++
	c.mu.Unlock()
	poke(c.wake)
	return nil
}

// State tells how the client stands with its worker.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Run keeps a connection to the worker until the context ends; it returns the
// context's error and no other.
func (c *Client) Run(ctx context.Context) error {
	wait := backoffFirst
	for ctx.Err() == nil {
		before := c.State().Connects
		err := c.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if c.State().Connects != before {
			wait = backoffFirst
			c.log.Warn("worker connection ended", "error", err)
		}
		c.mu.Lock()
		changed := c.state.Error != err.Error()
		c.state.Connected, c.state.Error = false, err.Error()
		c.mu.Unlock()
		if changed && c.State().Connects == before {
			c.log.Info("worker not reached", "error", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		wait = min(wait*2, backoffMax)
	}
	c.mu.Lock()
	c.state.Connected, c.state.Error = false, "stopped"
	c.mu.Unlock()
	return ctx.Err()
}

// once makes one connection and serves it to its end; the error is never nil.
func (c *Client) once(ctx context.Context) error {
	dctx, dialed := context.WithTimeout(ctx, helloWait)
	conn, err := c.dial(dctx)
	dialed()
	if err != nil {
		return fmt.Errorf("reach worker: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	mine := hello{Protocol: Protocol, Release: c.release, Run: c.run}
	theirs, err := shake(conn, mine, &frameReader{r: conn, limit: MaxUp}, MaxDown)
	if err != nil {
		return fmt.Errorf("greet worker: %w", err)
	}
	c.mu.Lock()
	if theirs.Run != c.peerRun {
		c.peerRun = theirs.Run
		c.handled.Store(0)
	}
	c.state = State{Connected: true, Release: theirs.Release, Connects: c.state.Connects + 1}
	c.mu.Unlock()
	c.log.Info("worker connected", "release", theirs.Release)

	// The handler runs in this goroutine and under Run's context, not the
	// connection's: a break must not make it give up an event half kept, and the
	// next connection must not call it a second time meanwhile.
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := run.New(wctx)
	unblock := context.AfterFunc(g.Context(), func() { conn.Close() })
	defer unblock()
	g.Go("write", func(ctx context.Context) error { return c.write(ctx, conn) })
	readErr := c.read(ctx, conn)
	cancel()
	if err := g.Wait(stopGrace); err != nil {
		return err // the read ended because of it
	}
	return readErr
}

func (c *Client) read(ctx context.Context, conn net.Conn) error {
	fr := &frameReader{r: conn, limit: MaxUp}
	for {
		if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		k, body, err := fr.next()
		if err != nil {
			return fmt.Errorf("hear worker: %w", bare(err))
		}
		if err := c.take(ctx, k, body); err != nil {
			return err
		}
	}
}

func (c *Client) take(ctx context.Context, k kind, body []byte) error {
	switch k {
	case kindResult:
		n := new(numbered)
		if err := decode(body, n); err != nil {
			return err
		}
		if n.Number > c.handled.Load() { // else it came a second time, after a break
			c.handler.Result(ctx, &n.Result)
			if ctx.Err() != nil {
				// The handler may have given up because of the stop: not taken.
				return ctx.Err()
			}
			c.handled.Store(n.Number)
		}
		poke(c.wake)
	case kindStatus:
		s := new(Status)
		if err := decode(body, s); err != nil {
			return err
		}
		c.handler.Status(ctx, s)
	case kindPong:
		var p ping
		if err := decode(body, &p); err != nil {
			return err
		}
		c.mu.Lock()
		c.state.RoundTrip = time.Since(c.start) - time.Duration(p.Number)
		c.mu.Unlock()
	case kindRefuse:
		return refused(body)
	default:
		return fmt.Errorf("worker sent a frame of kind %d, which only fulmard sends or nobody knows", k)
	}
	return nil
}

func (c *Client) write(ctx context.Context, conn net.Conn) error {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	var sent, told uint64 // newest setup sent; newest result told as taken
	var buf []byte
	for {
		buf = buf[:0]
		c.mu.Lock()
		setup, newest := c.setup, c.newest
		c.mu.Unlock()
		var err error
		if newest != sent {
			if buf, err = appendFrame(buf, kindSetup, setup, MaxDown); err != nil {
				return err
			}
			sent = newest
		}
		if h := c.handled.Load(); h != told {
			if buf, err = appendFrame(buf, kindTaken, taken{h}, MaxDown); err != nil {
				return err
			}
			told = h
		}
		if err := send(conn, buf); err != nil {
			return fmt.Errorf("tell worker: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		case <-tick.C:
			if buf, err = appendFrame(buf[:0], kindPing, ping{uint64(time.Since(c.start))}, MaxDown); err != nil {
				return err
			}
			if err := send(conn, buf); err != nil {
				return fmt.Errorf("ping worker: %w", err)
			}
		}
	}
}

// send writes whole frames within writeWait.
func send(conn net.Conn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}

// shake sends mine and reads theirs; limit bounds what this side may send.
func shake(conn net.Conn, mine hello, fr *frameReader, limit int) (hello, error) {
	if err := conn.SetDeadline(time.Now().Add(helloWait)); err != nil {
		return hello{}, err
	}
	b, err := appendFrame(nil, kindHello, mine, limit)
	if err != nil {
		return hello{}, err
	}
	if _, err := conn.Write(b); err != nil {
		return hello{}, err
	}
	k, body, err := fr.next()
	if err != nil {
		return hello{}, err
	}
	if k == kindRefuse {
		return hello{}, refused(body)
	}
	if k != kindHello {
		return hello{}, fmt.Errorf("first frame is of kind %d, wants a hello", k)
	}
	var theirs hello
	if err := decode(body, &theirs); err != nil {
		return hello{}, err
	}
	if theirs.Protocol != mine.Protocol {
		err := fmt.Errorf("other side (release %q) speaks protocol %d, this one (release %q) speaks %d: install fulmard and fulmar-infer of one release",
			theirs.Release, theirs.Protocol, mine.Release, mine.Protocol)
		refuse(conn, err.Error(), limit)
		return hello{}, err
	}
	return theirs, conn.SetDeadline(time.Time{})
}

// refuse tells the other side why this one closes. Best effort: it closes anyway.
func refuse(conn net.Conn, text string, limit int) {
	if b, err := appendFrame(nil, kindRefuse, refusal{clipText(text)}, limit); err == nil {
		_ = send(conn, b)
	}
}

func refused(body []byte) error {
	var r refusal
	if err := decode(body, &r); err != nil {
		return err
	}
	return fmt.Errorf("refused by the other side: %q", clipText(r.Text))
}

// bare leaves out the addresses of a connection: they say nothing on a socket that
// was renamed after it was bound.
func bare(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

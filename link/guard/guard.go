// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// WriteTimeout bounds each write, pings and PUBACKs too.
	WriteTimeout = 10 * time.Second
	// MaxPacket is the longest PUBLISH taken, in bytes: many times what is sent on
	// our topics, small beside a board's memory.
	MaxPacket = 1 << 20
	// readBuffer holds what the client would otherwise read byte by byte: a PUBACK is
	// four bytes and would be three system calls.
	readBuffer = 2 << 10
	// userTimeout is how long sent bytes may stay unacknowledged by the other kernel.
	userTimeout = 30 * time.Second
)

// Config says what may come in. Zero fields get the defaults.
type Config struct {
	Filters   int // subscriptions asked for in one packet, at most
	MaxPacket int // bytes of one PUBLISH
	// Asked is told of each PUBLISH of QoS 1 and its size in bytes before it is
	// written. It must not block.
	Asked func(size int)
	// Answered is told of each PUBACK: how long its PUBLISH took and its size in
	// bytes. It is called by the reader of the connection and must not block.
	Answered func(took time.Duration, size int)
}

// Conn is a guarded connection. See the package comment.
type Conn struct {
	net.Conn
	cfg   Config
	buf   *bufio.Reader
	frame framing

	mu     sync.Mutex
	asked  map[uint16]question // SUBSCRIBE, UNSUBSCRIBE and PUBLISH without an answer
	closed bool                // by this side
	hungUp bool                // by the other
}

// question is a packet that waits for its answer.
type question struct {
	kind byte // of the answer
	size int  // bytes of a PUBLISH, filters of a SUBSCRIBE
	at   time.Time
}

// New wraps a connection and sets how long unacknowledged bytes may stay so.
func New(c net.Conn, cfg Config) *Conn {
	if cfg.Filters == 0 {
		cfg.Filters = 1
	}
	if cfg.MaxPacket == 0 {
		cfg.MaxPacket = MaxPacket
	}
	inner := c
	for {
		u, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = u.NetConn()
	}
	if t, ok := inner.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			// Best effort: without it a watchdog of the caller ends the connection, later.
			_ = raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
			})
		}
	}
	g := &Conn{Conn: c, cfg: cfg, buf: bufio.NewReaderSize(c, readBuffer), asked: map[uint16]question{}}
	g.frame = framing{cfg: cfg, answer: g.answer}
	return g
}

// Read reads and looks at the framing before anybody else does. The client asks
// for a packet's length alone, so what is refused here was never allocated there.
func (g *Conn) Read(p []byte) (int, error) {
	n, err := g.buf.Read(p)
	if bad := g.frame.take(p[:n]); bad != nil {
		return 0, bad
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.ETIMEDOUT) {
		g.mu.Lock()
		g.hungUp = !g.closed
		g.mu.Unlock()
	}
	return n, err
}

// Write writes within a bound of its own: the client bounds what it publishes, but
// not its pings and its PUBACKs, and a ping that never ends notices nothing.
func (g *Conn) Write(p []byte) (int, error) {
	if id, kind := outgoing(p); kind != 0 {
		g.mu.Lock()
		size := len(p)
		if kind == suback {
			size = filters(p)
		}
		g.asked[id] = question{kind, size, time.Now()}
		g.mu.Unlock()
		if kind == puback && g.cfg.Asked != nil {
			g.cfg.Asked(len(p))
		}
	}
	if err := g.Conn.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// SetWriteDeadline does nothing: see Write. The client would take the bound of a
// ping away when it has published.
func (g *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection.
func (g *Conn) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	return g.Conn.Close()
}

// HungUp tells whether the other side ended the connection, and not a timeout or
// this side.
func (g *Conn) HungUp() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hungUp
}

// answer checks that a PUBACK, SUBACK or UNSUBACK answers what was asked. The client takes
// either for the end of whatever it sent under that number, and reads as many answers of a
// SUBACK as there are.
func (g *Conn) answer(kind byte, id uint16, rest int) error {
	g.mu.Lock()
	q, ok := g.asked[id]
	if ok && q.kind == kind {
		delete(g.asked, id)
	}
	g.mu.Unlock()
	if !ok || q.kind != kind {
		return fmt.Errorf("broker sent a %s for packet %d, which waits for none: it acknowledges what was never sent", name(kind), id)
	}
	if kind == suback && rest > q.size {
		return fmt.Errorf("broker sent a SUBACK of %d answers to %d filters", rest, q.size)
	}
	if kind == puback && g.cfg.Answered != nil {
		g.cfg.Answered(time.Since(q.at), q.size)
	}
	return nil
}

// outgoing gives the number of a packet that wants an answer, and the answer's
// kind; 0 where it wants none. The client writes each packet in one piece.
func outgoing(p []byte) (id uint16, kind byte) {
	if len(p) < 2 {
		return 0, 0
	}
	at := 1
	for at < len(p) && at < 5 && p[at]&0x80 != 0 {
		at++
	}
	at++ // the variable header
	switch {
	case p[0]>>4 == subscribe:
		kind = suback
	case p[0]>>4 == unsub:
		kind = unsuback
	case p[0]>>4 == publish && p[0]&6 == 2: // QoS 1
		kind = puback
		if at+2 > len(p) {
			return 0, 0
		}
		at += 2 + int(p[at])<<8 + int(p[at+1]) // the topic
	default:
		return 0, 0
	}
	if at+2 > len(p) {
		return 0, 0
	}
	return uint16(p[at])<<8 | uint16(p[at+1]), kind
}

// filters counts those of a SUBSCRIBE.
func filters(p []byte) (n int) {
	at := 1
	for at < len(p) && p[at]&0x80 != 0 {
		at++
	}
	for at += 3; at+2 <= len(p); n++ { // the number; then length, filter and QoS of each
		at += 3 + int(p[at])<<8 + int(p[at+1])
	}
	return n
}

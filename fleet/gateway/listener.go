// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"

	"fulmar/fleet/gateway/pieces"
)

const (
	// handshakeTimeout bounds TLS and the CONNECT that has to follow.
	handshakeTimeout = 10 * time.Second
	// maxHandshakes bounds handshakes under way; more wait in the kernel's queue.
	maxHandshakes = 256
	// acceptPause is the wait after an accept that failed, as when files run out.
	acceptPause = 100 * time.Millisecond
)

// listener is mochi's TCP listener with what it lacks: the handshake is finished,
// with a deadline, before the broker sees the connection, and the number of
// strangers in the hall is bounded.
type listener struct {
	tcp    net.Listener
	tls    *tls.Config
	denied func()
	ended  func(net.Conn) // after the broker has let go of a connection
	done   chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // all that are open; nil once shut
}

var _ listeners.Listener = (*listener)(nil)

func newListener(tcp net.Listener, cfg *tls.Config, denied func(), ended func(net.Conn)) *listener {
	return &listener{tcp: tcp, tls: cfg, denied: denied, ended: ended, done: make(chan struct{}), conns: map[net.Conn]bool{}}
}

func (l *listener) Init(*slog.Logger) error { return nil }
func (l *listener) ID() string              { return "boards" }
func (l *listener) Address() string         { return l.tcp.Addr().String() }
func (l *listener) Protocol() string        { return "mqtts" }

// Serve accepts until the listener is shut. It is called by mochi in a goroutine
// of its own, as is each connection's handler: mochi owns them and waits for them
// in Close.
func (l *listener) Serve(establish listeners.EstablishFn) {
	slots := make(chan struct{}, maxHandshakes)
	for {
		select {
		case slots <- struct{}{}:
		case <-l.done:
			return
		}
		conn, err := l.tcp.Accept()
		if err != nil {
			<-slots
			select {
			case <-l.done:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		if !l.enter(conn) {
			return
		}
		go func() {
			defer l.leave(conn)
			release := sync.OnceFunc(func() { <-slots })
			defer release()
			l.welcome(conn, establish, release)
		}()
	}
}

// enter notes an open connection; false once the listener is shut.
func (l *listener) enter(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		_ = conn.Close()
		return false
	}
	l.conns[conn] = true
	l.wg.Add(1)
	return true
}

func (l *listener) leave(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	delete(l.conns, conn)
	l.mu.Unlock()
	l.wg.Done()
}

func (l *listener) welcome(conn net.Conn, establish listeners.EstablishFn, release func()) {
	pieces.Shallow(conn)
	c := tls.Server(conn, l.tls)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		l.denied()
		return
	}
	// Until CONNECT has come; mochi then sets its own by the keep-alive.
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	release()
	_ = establish(l.ID(), c) // its error is why the connection ended; the hooks have counted it
	l.ended(c)
}

// shut stops accepting and closes every connection at its socket, so that nothing
// is written to one that is half open.
func (l *listener) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return
	}
	close(l.done)
	_ = l.tcp.Close()
	for c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// Close is called by mochi.
func (l *listener) Close(closeClients listeners.CloseFn) {
	l.shut()
	closeClients(l.ID())
	l.wg.Wait()
}

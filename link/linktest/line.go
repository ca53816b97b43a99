// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// sendBuffer is what a frozen line still takes before a write waits, as a kernel
// would.
const sendBuffer = 64 << 10

// line is a board's end of a connection that can freeze. Unlike net.Pipe it never
// makes a second writer wait for a mutex, which would stop simulated time.
type line struct {
	net.Conn
	frozen atomic.Bool
	turn   chan struct{} // held by who writes
	once   sync.Once
	closed chan struct{}

	mu       sync.Mutex
	deadline time.Time // of writes
	taken    int       // bytes written since the line froze
}

func newLine(c net.Conn) *line {
	return &line{Conn: c, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Read gives what comes through; on a frozen line nothing does, no end either. What the
// other side still writes goes nowhere.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if !l.frozen.Load() {
		return n, err
	}
	for err == nil {
		_, err = l.Conn.Read(p)
	}
	<-l.closed
	return 0, io.ErrClosedPipe
}

// Write writes; on a frozen line it waits, once the buffer is full, for its
// deadline or the close. It knows the deadline that was set when it began.
func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	var late <-chan time.Time
	if !l.deadline.IsZero() {
		t := time.NewTimer(time.Until(l.deadline))
		defer t.Stop()
		late = t.C
	}
	l.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
	case <-l.closed:
		return 0, io.ErrClosedPipe
	case <-late:
		return 0, os.ErrDeadlineExceeded
	}
	defer func() { <-l.turn }()
	if !l.frozen.Load() {
		return l.Conn.Write(p)
	}
	if l.taken += len(p); l.taken <= sendBuffer {
		return len(p), nil
	}
	select {
	case <-l.closed:
		return 0, io.ErrClosedPipe
	case <-late:
		return 0, os.ErrDeadlineExceeded
	}
}

// Close closes the line.
func (l *line) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// SetDeadline bounds reads and the writes that begin from now on.
func (l *line) SetDeadline(t time.Time) error {
	l.note(t)
	return l.Conn.SetDeadline(t)
}

// SetWriteDeadline bounds the writes that begin from now on.
func (l *line) SetWriteDeadline(t time.Time) error {
	l.note(t)
	return l.Conn.SetWriteDeadline(t)
}

func (l *line) note(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
}

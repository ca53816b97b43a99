// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"bytes"
	"io"
	"net"
	"sync"
)

// farBuffer is how many writes wait in the broker's end of a connection. A broker has
// at most 1,024 messages to one client in flight.
const farBuffer = 1 << 12

// far is the broker's end of a connection. What it writes is taken at once, as by a
// kernel, and comes over as it is read. A pipe has no buffer: broker and client could
// each wait in a write for the other to read, and the broker does so with a lock held,
// which stops simulated time.
type far struct {
	net.Conn
	out    chan []byte
	once   sync.Once
	closed chan struct{}
}

// Pipe gives both ends of a connection: the board's and the broker's. It carries on
// where net.Pipe would stop simulated time.
func Pipe() (board, broker net.Conn) {
	b, f := net.Pipe()
	return newLine(b), newFar(f)
}

func newFar(c net.Conn) *far {
	f := &far{Conn: c, out: make(chan []byte, farBuffer), closed: make(chan struct{})}
	go f.pump()
	return f
}

// pump writes until the end, and then what was written before it.
func (f *far) pump() {
	defer f.Conn.Close() //nolint:errcheck // a pipe
	for {
		select {
		case b := <-f.out:
			if _, err := f.Conn.Write(b); err != nil {
				return
			}
			continue
		default:
		}
		select {
		case b := <-f.out:
			if _, err := f.Conn.Write(b); err != nil {
				return
			}
		case <-f.closed:
			if len(f.out) == 0 {
				return
			}
		}
	}
}

// Write hands over what is to be written.
func (f *far) Write(p []byte) (int, error) {
	select {
	case <-f.closed:
		return 0, io.ErrClosedPipe
	default:
	}
	select {
	case f.out <- bytes.Clone(p):
		return len(p), nil
	case <-f.closed:
		return 0, io.ErrClosedPipe
	}
}

// Close ends the connection when what was written is over.
func (f *far) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// guarded is a connection on which no MQTT packet over [maxPacket] is read: five
// hostile bytes would otherwise make the client allocate 256 MB.
type guarded struct {
	net.Conn
	frame framing
}

// guard wraps a connection and sets how long unacknowledged bytes may stay so.
func guard(c net.Conn) net.Conn {
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
			// Best effort: without it the acknowledgement watchdog ends the connection, later.
			_ = raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
			})
		}
	}
	return &guarded{Conn: c}
}

// Read reads and looks at the framing before anybody else does.
func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if bad := g.frame.take(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// framing follows the packets of an MQTT stream: a header byte, a length in
// groups of seven bits, that many bytes.
type framing struct {
	inLength bool
	shift    uint
	length   int // of the packet, while its length is read
	left     int // bytes of the packet still to come
}

func (f *framing) take(b []byte) error {
	for len(b) > 0 {
		if !f.inLength && f.left > 0 {
			n := min(f.left, len(b))
			f.left -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if !f.inLength {
			f.inLength, f.shift, f.length = true, 0, 0
			continue
		}
		f.length |= int(c&0x7f) << f.shift
		f.shift += 7
		switch {
		case f.length > maxPacket:
			return fmt.Errorf("broker sent a packet of over %d bytes", maxPacket)
		case c&0x80 == 0:
			f.inLength, f.left = false, f.length
		case f.shift > 21:
			return fmt.Errorf("broker sent a packet length of over four bytes")
		}
	}
	return nil
}

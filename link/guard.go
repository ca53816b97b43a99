// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bufio"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// readBuffer holds what the client would otherwise read byte by byte: a PUBACK is
// four bytes and would be three system calls.
const readBuffer = 2 << 10

// guarded is a connection that stands between a broker and the MQTT client, which
// trusts what it reads: five hostile bytes would make it allocate 256 MB, and a
// SUBACK of more answers than questions would end the process.
type guarded struct {
	net.Conn
	buf   *bufio.Reader
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
	return &guarded{Conn: c, buf: bufio.NewReaderSize(c, readBuffer)}
}

// Read reads and looks at the framing before anybody else does. The client asks
// for a packet's length alone, so what is refused here was never allocated there.
func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.buf.Read(p)
	if bad := g.frame.take(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// Write writes within a bound of its own: the client bounds what it publishes, but
// not its pings and its PUBACKs, and a ping that never ends notices nothing.
func (g *guarded) Write(p []byte) (int, error) {
	if err := g.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// SetWriteDeadline does nothing: see Write. The client would take the bound of a
// ping away when it has published.
func (g *guarded) SetWriteDeadline(time.Time) error { return nil }

// framing follows the packets of an MQTT stream: a header byte, a length in
// groups of seven bits, that many bytes.
type framing struct {
	inLength bool
	limit    int // of the packet, by its type
	shift    uint
	length   int // of the packet, while its length is read
	left     int // bytes of the packet still to come
}

// packetLimit is the longest packet of a type that a broker may send here, in
// bytes after the length; -1 where brokers send none.
func packetLimit(kind byte) int {
	switch kind {
	case 2, 4, 5, 6, 7, 11: // CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK
		return 2
	case 3: // PUBLISH
		return maxPacket
	case 9: // SUBACK: an id, and a byte for each filter asked for
		return 2 + numFilters
	case 13: // PINGRESP
		return 0
	}
	return -1
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
			f.inLength, f.shift, f.length, f.limit = true, 0, 0, packetLimit(c>>4)
			if f.limit < 0 {
				return fmt.Errorf("broker sent a packet of type %d, which brokers do not send", c>>4)
			}
			continue
		}
		f.length |= int(c&0x7f) << f.shift
		f.shift += 7
		switch {
		case f.length > f.limit:
			return fmt.Errorf("broker sent a packet of %d bytes or more, at most %d of its type are taken", f.length, f.limit)
		case c&0x80 == 0:
			f.inLength, f.left = false, f.length
		case f.shift > 21:
			return fmt.Errorf("broker sent a packet length of over four bytes")
		}
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
)

// The packet types that are looked at, as in MQTT 3.1.1 section 2.2.1.
const (
	connack   = 2
	publish   = 3
	puback    = 4
	subscribe = 8
	suback    = 9
	unsub     = 10
	unsuback  = 11
	pingresp  = 13
)

func name(kind byte) string {
	switch kind {
	case suback:
		return "SUBACK"
	case unsuback:
		return "UNSUBACK"
	}
	return "PUBACK"
}

// framing follows the packets of an MQTT stream: a header byte, a length in
// groups of seven bits, that many bytes. It hands the number of each PUBACK, SUBACK and
// UNSUBACK to answer.
type framing struct {
	cfg    Config
	answer func(kind byte, id uint16, rest int) error // rest: bytes behind the number

	kind      byte
	inLength  bool
	connected bool // CONNACK has come
	limit     int  // of the packet, by its type
	shift     uint
	length    int // of the packet, while its length is read
	left      int // bytes of the packet still to come
	id        uint16
	idBytes   int // of the number, still to come
}

// packetLimit is the longest packet of a type that a broker may send here, in
// bytes after the length; -1 where it may send none: types that only clients send,
// and those of QoS 2, which are never asked for and which the client would take for the
// end of a PUBLISH of the same number.
func (f *framing) packetLimit(kind byte) int {
	switch kind {
	case connack, puback, unsuback:
		return 2
	case publish:
		return f.cfg.MaxPacket
	case suback: // an id, and a byte for each filter asked for
		return 2 + f.cfg.Filters
	case pingresp:
		return 0
	}
	return -1
}

// take follows b; its error says what a broker must not send.
func (f *framing) take(b []byte) error {
	for len(b) > 0 {
		if !f.inLength && f.left > 0 {
			n := min(f.left, len(b))
			if f.idBytes > 0 {
				n = 1
				f.id, f.idBytes = f.id<<8|uint16(b[0]), f.idBytes-1
				if f.idBytes == 0 {
					if err := f.answer(f.kind, f.id, f.length-2); err != nil {
						return err
					}
				}
			}
			f.left -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if !f.inLength {
			if err := f.header(c); err != nil {
				return err
			}
			continue
		}
		f.length |= int(c&0x7f) << f.shift
		f.shift += 7
		switch {
		case f.length > f.limit:
			return fmt.Errorf("broker sent a packet of %d bytes or more, at most %d of its type are taken", f.length, f.limit)
		case c&0x80 == 0:
			if err := f.begin(); err != nil {
				return err
			}
		case f.shift > 21:
			return errors.New("broker sent a packet length of over four bytes")
		}
	}
	return nil
}

// header takes the first byte of a packet.
func (f *framing) header(c byte) error {
	f.kind = c >> 4
	f.inLength, f.shift, f.length, f.limit = true, 0, 0, f.packetLimit(f.kind)
	switch {
	case f.limit < 0:
		return fmt.Errorf("broker sent a packet of type %d, which brokers do not send to who asked for none", f.kind)
	case f.kind == publish && c&4 != 0:
		return errors.New("broker sent a PUBLISH of QoS 2 or 3, at most 1 was asked for")
	case f.connected == (f.kind == connack):
		return errors.New("broker sent no CONNACK first, or two: this is no MQTT broker")
	}
	f.connected = true
	return nil
}

// begin starts a packet's body.
func (f *framing) begin() error {
	f.inLength, f.left, f.idBytes = false, f.length, 0
	if f.kind == puback || f.kind == suback || f.kind == unsuback {
		if f.length < 2 {
			return fmt.Errorf("broker sent a %s of %d bytes, which names no packet", name(f.kind), f.length)
		}
		f.id, f.idBytes = 0, 2
	}
	return nil
}

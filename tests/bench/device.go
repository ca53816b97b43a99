// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// device is a Modbus TCP device with holding registers, and notes when each word came to
// it: where a command has its effect.
type device struct {
	l net.Listener

	mu        sync.Mutex
	registers map[uint16]uint16
	at        map[uint16]time.Time // of the last write with another value
}

func newDevice() (*device, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &device{l: l, registers: map[uint16]uint16{}, at: map[uint16]time.Time{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(c)
		}
	}()
	return d, nil
}

// set tells a register and when it was written.
func (d *device) set(register uint16) (uint16, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registers[register], d.at[register]
}

// serve answers functions 3 and 6 of the Modbus Application Protocol V1.1b3 over its TCP
// frame: transaction, 0, length, unit, then function and data, all big-endian.
func (d *device) serve(c net.Conn) {
	defer c.Close()
	head := make([]byte, 7)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[4:])) - 1
		if n < 5 || n > 253 {
			return
		}
		ask := make([]byte, n)
		if _, err := io.ReadFull(c, ask); err != nil {
			return
		}
		answer := d.answer(ask, time.Now())
		binary.BigEndian.PutUint16(head[4:], uint16(len(answer)+1))
		if _, err := c.Write(append(head, answer...)); err != nil {
			return
		}
	}
}

func (d *device) answer(ask []byte, now time.Time) []byte {
	at, v := binary.BigEndian.Uint16(ask[1:]), binary.BigEndian.Uint16(ask[3:])
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case ask[0] == 6:
		if d.registers[at] != v {
			d.registers[at], d.at[at] = v, now
		}
		return ask
	case ask[0] == 3 && v == 1:
		return binary.BigEndian.AppendUint16([]byte{3, 2}, d.registers[at])
	}
	return []byte{ask[0] | 0x80, 1} // no such function
}

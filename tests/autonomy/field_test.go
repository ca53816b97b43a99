// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// field is a device on Modbus/TCP that remembers each write: what a board did to it is
// not the board's word.
type field struct {
	address string

	mu     sync.Mutex
	is     map[uint16]uint16
	writes map[uint16][]int
}

func newField(t *testing.T) *field {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &field{address: "tcp:" + l.Addr().String(), is: map[uint16]uint16{}, writes: map[uint16][]int{}}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// serve answers functions 3 and 6 for one register, as the standard has them.
func (p *field) serve(c net.Conn) {
	defer c.Close()
	for {
		var ask [12]byte // number, 0, length 6, device; function, register, value or count
		if _, err := io.ReadFull(c, ask[:]); err != nil {
			return
		}
		at, v := binary.BigEndian.Uint16(ask[8:]), binary.BigEndian.Uint16(ask[10:])
		answer := slices.Clone(ask[:])
		p.mu.Lock()
		switch ask[7] {
		case 6:
			p.is[at] = v
			p.writes[at] = append(p.writes[at], int(v))
		case 3:
			answer = binary.BigEndian.AppendUint16(append(answer[:8], 2), p.is[at])
			answer[5] = 5
		default:
			answer = append(answer[:7], ask[7]|0x80, 1)
			answer[5] = 3
		}
		p.mu.Unlock()
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// written gives what was written to a register since forget.
func (p *field) written(at uint16) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.writes[at])
}

func (p *field) stands(at uint16) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.is[at])
}

// forget begins to count anew.
func (p *field) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.writes)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const (
	// maxPDU is a function and its data (section 4.1).
	maxPDU     = 253
	mbapHeader = 7
	// maxStrange bounds the answers to earlier questions that are skipped.
	maxStrange = 8
)

// line is a connection of either form.
type line interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// bus is one connection, which is opened when it is needed.
type bus struct {
	address string
	turn    chan struct{} // holds a token while nobody asks; cap 1
	open    func(ctx context.Context) (line, error)
	// exchange sends a question and reads the answer, both without the framing.
	exchange func(l line, device byte, ask []byte) ([]byte, error)
	conn     line
}

func newBus(cfg Config) *bus {
	b := &bus{address: cfg.Address, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	kind, where, _ := strings.Cut(cfg.Address, ":")
	if kind == "rtu" {
		b.open = func(context.Context) (line, error) { return openSerial(where, &cfg) }
		b.exchange = newRTU(&cfg).exchange
		return b
	}
	b.open = func(ctx context.Context) (line, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", where)
	}
	b.exchange = new(tcp).exchange
	return b
}

// ask sends one question and gives its answer, or what the device says against it. A
// connection that turns out to be gone is opened anew, once: each of the functions may be
// asked twice with the effect of once.
func (b *bus) ask(ctx context.Context, device byte, ask []byte) ([]byte, error) {
	select {
	case <-b.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("modbus %s: the bus is busy: %w", b.address, ctx.Err())
	}
	defer func() { b.turn <- struct{}{} }()
	old := b.conn != nil
	answer, err := b.try(ctx, device, ask)
	if err != nil && old && ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		answer, err = b.try(ctx, device, ask)
	}
	if err == nil {
		err = exception(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("modbus %s device %d: %w", b.address, device, err)
	}
	return answer, nil
}

func (b *bus) try(ctx context.Context, device byte, ask []byte) ([]byte, error) {
	if b.conn == nil {
		c, err := b.open(ctx)
		if err != nil {
			return nil, err
		}
		b.conn = c
	}
	end, _ := ctx.Deadline() // none is no deadline
	err := b.conn.SetDeadline(end)
	stop := context.AfterFunc(ctx, func(c line) func() { return func() { _ = c.SetDeadline(time.Unix(1, 0)) } }(b.conn))
	defer stop()
	var answer []byte
	if err == nil {
		answer, err = b.exchange(b.conn, device, ask)
	}
	if err == nil && len(answer) > 0 && answer[0]&^exceptionBit != ask[0] {
		err = fmt.Errorf("it answers function %d to function %d", answer[0], ask[0])
	}
	if err != nil {
		_ = b.conn.Close() // what else comes on it belongs to nobody
		b.conn = nil
		return nil, err
	}
	return answer, nil
}

func (b *bus) close() error {
	select {
	case <-b.turn:
	case <-time.After(time.Second): // one that hangs ends with its own deadline
		return fmt.Errorf("modbus %s: is still busy", b.address)
	}
	defer func() { b.turn <- struct{}{} }()
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	b.conn = nil
	return err
}

// tcp frames with a header of a number, zeros, a length and the device (MBAP).
type tcp struct{ number uint16 }

func (t *tcp) exchange(l line, device byte, ask []byte) ([]byte, error) {
	t.number++
	b := binary.BigEndian.AppendUint16(make([]byte, 0, mbapHeader+len(ask)), t.number)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(ask)))
	if _, err := l.Write(append(append(b, device), ask...)); err != nil {
		return nil, err
	}
	for range maxStrange {
		number, from, answer, err := readMBAP(l)
		if err != nil {
			return nil, err
		}
		if number == t.number && from == device {
			return answer, nil
		}
	}
	return nil, errors.New("it answers what was not asked")
}

// readMBAP reads one frame.
func readMBAP(r io.Reader) (number uint16, device byte, pdu []byte, err error) {
	var h [mbapHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, nil, fmt.Errorf("no answer: %w", err)
	}
	n := int(binary.BigEndian.Uint16(h[4:])) - 1
	if binary.BigEndian.Uint16(h[2:]) != 0 || n < 2 || n > maxPDU {
		return 0, 0, nil, fmt.Errorf("its answer begins with % x, which is not Modbus", h)
	}
	pdu = make([]byte, n)
	if _, err := io.ReadFull(r, pdu); err != nil {
		return 0, 0, nil, fmt.Errorf("its answer is cut off: %w", err)
	}
	return binary.BigEndian.Uint16(h[:]), h[6], pdu, nil
}

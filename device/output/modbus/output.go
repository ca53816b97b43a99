// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// The functions.
const (
	readCoils     = 1
	readHolding   = 3
	readInput     = 4
	writeCoil     = 5
	writeRegister = 6
	exceptionBit  = 0x80

	coilOn = 0xFF00 // as a coil is written; 0 is off
)

// Buses are the connections of a board, one for each address.
type Buses struct {
	mu  sync.Mutex
	all map[string]*bus
	cfg map[string]Config // what the first output of a bus says of its line
}

// NewBuses makes none yet.
func NewBuses() *Buses { return &Buses{all: map[string]*bus{}, cfg: map[string]Config{}} }

// Output makes an output on the bus of its address. It opens nothing.
func (b *Buses) Output(name string, cfg Config) (*Output, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if first, ok := b.cfg[cfg.Address]; ok {
		if first.Baud != cfg.Baud || first.Parity != cfg.Parity || first.StopBits != cfg.StopBits {
			return nil, fmt.Errorf("modbus %s: another output says another baud, parity or stop_bits of this line", cfg.Address)
		}
		return &Output{name: name, cfg: cfg, bus: b.all[cfg.Address]}, nil
	}
	b.cfg[cfg.Address], b.all[cfg.Address] = cfg, newBus(cfg)
	return &Output{name: name, cfg: cfg, bus: b.all[cfg.Address]}, nil
}

// Close ends all connections.
func (b *Buses) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, x := range b.all {
		errs = append(errs, x.close())
	}
	return errors.Join(errs...)
}

// Output is one coil or register.
type Output struct {
	name string
	cfg  Config
	bus  *bus
}

// Name is the output's.
func (o *Output) Name() string { return o.name }

// Set writes the value, and reads it back unless it cannot be.
func (o *Output) Set(ctx context.Context, value float64) error {
	write, read, at, raw := byte(writeRegister), byte(readHolding), 0, uint16(0)
	if o.cfg.Coil() {
		write, read, at = writeCoil, readCoils, *o.cfg.OnCoil
		if value != 0 {
			raw = coilOn
		}
	} else {
		at = *o.cfg.Register
		var ok bool
		if raw, ok = o.cfg.raw(value); !ok {
			return fmt.Errorf("%v does not fit into the register", value)
		}
	}
	ask := request(write, at, raw)
	answer, err := o.bus.ask(ctx, byte(o.cfg.Device), ask)
	if err != nil {
		return err
	}
	if string(answer) != string(ask) { // functions 5 and 6 answer with what they were asked
		return fmt.Errorf("modbus %s: the device answers % x to % x", o.cfg.Address, answer, ask)
	}
	if o.cfg.WriteOnly {
		return nil
	}
	got, err := o.read(ctx, read, at)
	if err != nil {
		return fmt.Errorf("read it back: %w", err)
	}
	if raw == coilOn && o.cfg.Coil() {
		raw = 1
	}
	if got != raw {
		return fmt.Errorf("modbus %s: %d was written and %d is read back", o.cfg.Address, raw, got)
	}
	return nil
}

// Get reads where it stands.
func (o *Output) Get(ctx context.Context) (float64, bool, error) {
	function, at := byte(readHolding), 0
	switch {
	case o.cfg.PositionRegister != nil:
		at = *o.cfg.PositionRegister
	case o.cfg.PositionInput != nil:
		function, at = readInput, *o.cfg.PositionInput
	case o.cfg.WriteOnly:
		return 0, false, nil
	case o.cfg.Coil():
		function, at = readCoils, *o.cfg.OnCoil
	default:
		at = *o.cfg.Register
	}
	raw, err := o.read(ctx, function, at)
	if err != nil {
		return 0, false, err
	}
	if function == readCoils {
		return float64(raw), true, nil
	}
	return o.cfg.value(raw), true, nil
}

// read asks for one coil or register.
func (o *Output) read(ctx context.Context, function byte, at int) (uint16, error) {
	answer, err := o.bus.ask(ctx, byte(o.cfg.Device), request(function, at, 1))
	if err != nil {
		return 0, err
	}
	switch {
	case function == readCoils && len(answer) == 3 && answer[1] == 1:
		return uint16(answer[2] & 1), nil
	case function != readCoils && len(answer) == 4 && answer[1] == 2:
		return binary.BigEndian.Uint16(answer[2:]), nil
	}
	return 0, fmt.Errorf("modbus %s: the device answers % x, which is not one value", o.cfg.Address, answer)
}

// request is a function's bytes: its number, a place, and a count or value.
func request(function byte, at int, value uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte{function}, uint16(at))
	return binary.BigEndian.AppendUint16(b, value)
}

// exception makes an error of an answer that is one.
func exception(answer []byte) error {
	if len(answer) != 2 || answer[0]&exceptionBit == 0 {
		return nil
	}
	words := map[byte]string{
		1: "it has no such function", 2: "it has no such coil or register", 3: "it does not take this value",
		4: "it failed", 5: "it needs longer", 6: "it is busy", 10: "the gateway has no way to it", 11: "it does not answer the gateway",
	}
	if w := words[answer[1]]; w != "" {
		return fmt.Errorf("the device says: %s (exception %d)", w, answer[1])
	}
	return fmt.Errorf("the device says: exception %d", answer[1])
}

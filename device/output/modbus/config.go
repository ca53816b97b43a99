// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package modbus

import (
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"strings"
)

// Config says which coil or register of which device.
type Config struct {
	// Address is tcp:HOST:PORT or rtu:/dev/TTY.
	Address string `yaml:"address"`
	// Baud, Parity (even, odd, none) and StopBits are of a serial line; 0 and "" are 19200,
	// even, and 1, as the standard has it. Outputs of one line say the same.
	Baud     int    `yaml:"baud"`
	Parity   string `yaml:"parity"`
	StopBits int    `yaml:"stop_bits"`
	// Device is its number on the bus, 1 to 247; over TCP often 1 or 255.
	Device int `yaml:"device"`
	// Of these two one is given; numbers begin at 0, as on the wire: register 40001 is 0.
	OnCoil   *int `yaml:"coil"`
	Register *int `yaml:"register"`
	// Scale is the value of one step of the register; 0 is 1.
	Scale float64 `yaml:"scale"`
	// Signed: the register is -32768 to 32767, else 0 to 65535.
	Signed bool `yaml:"signed"`
	// WriteOnly: what was written cannot be read back, and is not compared.
	WriteOnly bool `yaml:"write_only"`
	// Where it stands, if elsewhere: a holding register or an input register, in the same
	// scale. At most one.
	PositionRegister *int `yaml:"position_register"`
	PositionInput    *int `yaml:"position_input"`
}

// Coil tells whether it is a coil, that is on or off.
func (c *Config) Coil() bool { return c.OnCoil != nil }

// Validate checks the form, and that the range fits into the register.
func (c *Config) Validate(lo, hi float64) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	kind, where, _ := strings.Cut(c.Address, ":")
	switch kind {
	case "tcp":
		if host, port, err := net.SplitHostPort(where); err != nil || host == "" || port == "" {
			bad("address: %q is not tcp:HOST:PORT", c.Address)
		}
		if c.Baud != 0 || c.Parity != "" || c.StopBits != 0 {
			bad("baud, parity, stop_bits: belong to a serial line")
		}
	case "rtu":
		if !filepath.IsAbs(where) {
			bad("address: %q is not rtu:/dev/TTY", c.Address)
		}
		errs = append(errs, c.line())
	default:
		bad("address: %q, wants tcp:HOST:PORT or rtu:/dev/TTY", c.Address)
	}
	if most := map[bool]int{true: 255, false: 247}[kind == "tcp"]; c.Device < 1 || c.Device > most {
		bad("device: %d, wants 1 to %d", c.Device, most)
	}
	if (c.OnCoil == nil) == (c.Register == nil) {
		bad("coil, register: wants one of the two")
	}
	if c.PositionRegister != nil && c.PositionInput != nil {
		bad("position_register, position_input: wants at most one of the two")
	}
	for key, n := range map[string]*int{"coil": c.OnCoil, "register": c.Register, "position_register": c.PositionRegister, "position_input": c.PositionInput} {
		if n != nil && (*n < 0 || *n > math.MaxUint16) {
			bad("%s: %d, wants 0 to %d", key, *n, math.MaxUint16)
		}
	}
	if c.Scale < 0 || math.IsNaN(c.Scale) || math.IsInf(c.Scale, 0) {
		bad("scale: %v, wants more than 0", c.Scale)
	} else if c.Register != nil {
		for _, v := range []float64{lo, hi} {
			if _, ok := c.raw(v); !ok {
				bad("scale: %v is %v steps of %v, which the register cannot hold", v, math.Round(v/c.scale()), c.scale())
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Config) line() error {
	switch {
	case c.Baud != 0 && (c.Baud < 300 || c.Baud > 4_000_000):
		return fmt.Errorf("baud: %d, wants 300 to 4000000", c.Baud)
	case c.Parity != "" && c.Parity != "even" && c.Parity != "odd" && c.Parity != "none":
		return fmt.Errorf("parity: %q, wants even, odd or none", c.Parity)
	case c.StopBits < 0 || c.StopBits > 2:
		return fmt.Errorf("stop_bits: %d, wants 1 or 2", c.StopBits)
	}
	return nil
}

func (c *Config) scale() float64 {
	if c.Scale == 0 {
		return 1
	}
	return c.Scale
}

// raw is a value as the register has it; ok is false where it has no room.
func (c *Config) raw(v float64) (uint16, bool) {
	n := math.Round(v / c.scale())
	if c.Signed {
		return uint16(int16(max(min(n, math.MaxInt16), math.MinInt16))), n >= math.MinInt16 && n <= math.MaxInt16
	}
	return uint16(max(min(n, math.MaxUint16), 0)), n >= 0 && n <= math.MaxUint16
}

// value is the inverse of raw.
func (c *Config) value(raw uint16) float64 {
	if c.Signed {
		return float64(int16(raw)) * c.scale()
	}
	return float64(raw) * c.scale()
}

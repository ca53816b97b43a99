// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package kinds is what a board is told of its outputs: the config of each, checked, and the
// driver of its kind.
package kinds

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"fulmar/device/output/gpio"
	"fulmar/device/output/interlock"
	"fulmar/device/output/modbus"
	"fulmar/device/output/mqtt"
	"fulmar/device/output/program"
	"fulmar/device/output/simulated"
	"fulmar/schema"
)

// Bounds of a bank and of one output.
const (
	// MaxOutputs is more than a cabinet's terminals.
	MaxOutputs    = 64
	maxInterlocks = 8
	maxUnit       = 16   // bytes
	maxMagnitude  = 1e12 // so that sums and products of values stay exact enough

	defaultTimeout = 2 * time.Second
	minTimeout     = 100 * time.Millisecond
	maxTimeout     = 30 * time.Second
	// maxWay bounds the time from one end of the range to the other.
	maxWay = time.Hour
	// defaultTolerance is of the range: valves come to rest within one percent.
	defaultTolerance = 0.01
)

// What an output does when fulmard starts.
const (
	RestoreSafe  = "safe"  // goes to its safe value; where there is one this is the default
	RestoreLast  = "last"  // goes to what was set last, as soon as its interlocks let it
	RestoreLeave = "leave" // is not touched
)

// The kinds.
const (
	KindGPIO      = "gpio"
	KindModbus    = "modbus"
	KindMQTT      = "mqtt"
	KindExec      = "exec"
	KindSimulated = "simulated"
)

// Config is one output. Values are in its unit, whatever the kind sends.
type Config struct {
	Name string  `yaml:"name"`
	Kind string  `yaml:"kind"`
	Unit string  `yaml:"unit"`
	Min  float64 `yaml:"min"`
	Max  float64 `yaml:"max"` // beside min 0: 0 is 1 for a switch
	// StepPerS is how fast it may move, in units a second; 0 is at once.
	StepPerS float64 `yaml:"step_per_s"`
	// MinInterval is the least time between two sets.
	MinInterval time.Duration `yaml:"min_interval"`
	// Safe is where a safety shutdown takes it; nil: it stays where it is.
	Safe    *float64 `yaml:"safe"`
	Restore string   `yaml:"restore"` // "" is safe where there is a safe value, else leave
	// Tolerance is how far what is read may be from what was set; 0 is 1 % of the range.
	Tolerance float64 `yaml:"tolerance"`
	// Timeout bounds one word with the device; 0 is 2 s.
	Timeout    time.Duration      `yaml:"timeout"`
	Interlocks []interlock.Config `yaml:"interlocks"`

	// The kind's own: the one of its kind is there, no other.
	GPIO      *gpio.Config      `yaml:"gpio"`
	Modbus    *modbus.Config    `yaml:"modbus"`
	MQTT      *mqtt.Config      `yaml:"mqtt"`
	Exec      *program.Config   `yaml:"exec"`
	Simulated *simulated.Config `yaml:"simulated"`
}

// Switch tells whether it is only on (1) or off (0).
func (c *Config) Switch() bool {
	return c.Kind == KindGPIO || c.Kind == KindModbus && c.Modbus != nil && c.Modbus.Coil()
}

// Full gives the config with its defaults put in.
func (c Config) Full() Config {
	if c.Switch() && c.Min == 0 && c.Max == 0 {
		c.Max = 1
	}
	if c.Restore == "" {
		c.Restore = RestoreLeave
		if c.Safe != nil {
			c.Restore = RestoreSafe
		}
	}
	if c.Tolerance == 0 {
		c.Tolerance = defaultTolerance * (c.Max - c.Min)
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Kind == KindSimulated && c.Simulated == nil {
		c.Simulated = &simulated.Config{}
	}
	return c
}

// Validate checks all outputs of a board together.
func Validate(all []Config) error {
	if len(all) > MaxOutputs {
		return fmt.Errorf("outputs: %d, at most %d", len(all), MaxOutputs)
	}
	names := map[string]bool{}
	for i := range all {
		names[all[i].Name] = true
	}
	var errs []error
	seen := map[string]bool{}
	for i := range all {
		c := all[i].Full()
		if seen[c.Name] {
			errs = append(errs, fmt.Errorf("outputs[%d].name: %q is there twice", i, c.Name))
		}
		seen[c.Name] = true
		for _, err := range c.validate(names) {
			errs = append(errs, fmt.Errorf("outputs[%d].%w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validate(names map[string]bool) (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := schema.CheckBoard(c.Name); err != nil {
		bad("name: %w", err)
	}
	if len(c.Unit) > maxUnit {
		bad("unit: is %d bytes long, at most %d", len(c.Unit), maxUnit)
	}
	if !(c.Min < c.Max) || math.Abs(c.Min) > maxMagnitude || math.Abs(c.Max) > maxMagnitude {
		bad("max: %v with min: %v, wants min below max, both within %g", c.Max, c.Min, maxMagnitude)
	} else if c.Switch() && (c.Min != 0 || c.Max != 1) {
		bad("max: %v with min: %v, wants 0 and 1 for a switch; leave them out", c.Max, c.Min)
	}
	if c.Safe != nil {
		if err := c.Check(*c.Safe); err != nil {
			bad("safe: %w", err)
		}
	}
	errs = append(errs, c.validateTimes()...)
	errs = append(errs, c.validateInterlocks(names)...)
	return append(errs, c.validateKind()...)
}

func (c *Config) validateTimes() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case !(c.StepPerS >= 0) || math.IsInf(c.StepPerS, 0):
		bad("step_per_s: %v, wants 0 (at once) or more", c.StepPerS)
	case c.StepPerS > 0 && (c.Max-c.Min)/c.StepPerS > maxWay.Seconds():
		bad("step_per_s: %v takes over %v from min to max", c.StepPerS, maxWay)
	case c.StepPerS > 0 && c.Safe == nil:
		bad("safe: is missing; with step_per_s it is the only value that may be set while nobody knows where the output stands")
	case c.StepPerS > 0 && c.Switch():
		bad("step_per_s: a switch has no steps; min_interval keeps it from being set too often")
	}
	if c.MinInterval < 0 || c.MinInterval > maxWay {
		bad("min_interval: %v, wants 0s to %v", c.MinInterval, maxWay)
	}
	switch c.Restore {
	case RestoreLast, RestoreLeave:
	case RestoreSafe:
		if c.Safe == nil {
			bad("restore: safe, and no safe value is given")
		}
	default:
		bad("restore: %q, wants safe, last or leave", c.Restore)
	}
	if !(c.Tolerance > 0) || c.Tolerance > c.Max-c.Min {
		bad("tolerance: %v, wants 0 (1 %% of the range) to %v", c.Tolerance, c.Max-c.Min)
	}
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		bad("timeout: %v, wants %v to %v", c.Timeout, minTimeout, maxTimeout)
	}
	return errs
}

func (c *Config) validateInterlocks(names map[string]bool) (errs []error) {
	if len(c.Interlocks) > maxInterlocks {
		return []error{fmt.Errorf("interlocks: %d, at most %d", len(c.Interlocks), maxInterlocks)}
	}
	for i, l := range c.Interlocks {
		when, err := l.Validate()
		if err != nil {
			errs = append(errs, fmt.Errorf("interlocks[%d].%w", i, err))
			continue
		}
		for _, n := range when.Names() {
			if o, ok := strings.CutPrefix(n, "output."); ok && !names[o] {
				errs = append(errs, fmt.Errorf("interlocks[%d].when: there is no output %q", i, o))
			}
		}
	}
	return errs
}

func (c *Config) validateKind() (errs []error) {
	own := map[string]bool{KindGPIO: c.GPIO != nil, KindModbus: c.Modbus != nil, KindMQTT: c.MQTT != nil, KindExec: c.Exec != nil, KindSimulated: c.Simulated != nil}
	there, known := own[c.Kind]
	if !known {
		return []error{fmt.Errorf("kind: %q, wants gpio, modbus, mqtt, exec or simulated", c.Kind)}
	}
	if !there {
		return []error{fmt.Errorf("%s: is missing; it says where the output is", c.Kind)}
	}
	for _, k := range []string{KindGPIO, KindModbus, KindMQTT, KindExec, KindSimulated} {
		if own[k] && k != c.Kind {
			errs = append(errs, fmt.Errorf("%s: is given for an output of kind %s", k, c.Kind))
		}
	}
	var err error
	switch c.Kind {
	case KindGPIO:
		err = c.GPIO.Validate()
	case KindModbus:
		err = c.Modbus.Validate(c.Min, c.Max)
	case KindMQTT:
		err = c.MQTT.Validate()
	case KindExec:
		err = c.Exec.Validate()
	default:
		err = c.Simulated.Validate()
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("%s.%w", c.Kind, err))
	}
	return errs
}

// Check tells whether a value may be set at all.
func (c *Config) Check(v float64) error {
	switch {
	case !(v >= c.Min && v <= c.Max):
		return fmt.Errorf("%v is not within %v and %v", v, c.Min, c.Max)
	case c.Switch() && v != 0 && v != 1:
		return fmt.Errorf("%v, wants 0 (off) or 1 (on)", v)
	}
	return nil
}

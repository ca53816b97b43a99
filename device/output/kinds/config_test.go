// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"strings"
	"testing"
	"time"

	"fulmar/device/output/interlock"
	"fulmar/device/output/modbus"
	"fulmar/device/output/simulated"
)

func safeAt(v float64) *float64 { return &v }

func sim(name string, safe *float64, change func(*Config)) Config {
	c := Config{Name: name, Kind: KindSimulated, Max: 100, Safe: safe, Restore: RestoreLeave}
	if change != nil {
		change(&c)
	}
	return c
}

func TestValidate(t *testing.T) {
	t.Parallel()
	n := func(i int) *int { return &i }
	for want, change := range map[string]func(c *Config){
		"outputs[1].name: \"a\" is there twice":                       func(c *Config) { c.Name = "a" },
		"outputs[1].name: board \"B\"":                                func(c *Config) { c.Name = "B" },
		"outputs[1].max: 0 with min: 0":                               func(c *Config) { c.Max = 0 },
		"outputs[1].safe: 101 is not within 0 and 100":                func(c *Config) { c.Safe = safeAt(101) },
		"outputs[1].safe: is missing; with step_per_s":                func(c *Config) { c.StepPerS = 1; c.Safe = nil },
		"outputs[1].step_per_s: -1":                                   func(c *Config) { c.StepPerS = -1 },
		"outputs[1].min_interval: -1s":                                func(c *Config) { c.MinInterval = -time.Second },
		"outputs[1].restore: \"first\", wants":                        func(c *Config) { c.Restore = "first" },
		"outputs[1].restore: safe, and no safe":                       func(c *Config) { c.Safe, c.Restore = nil, RestoreSafe },
		"outputs[1].timeout: 1h0m0s":                                  func(c *Config) { c.Timeout = time.Hour },
		"outputs[1].kind: \"pwm\", wants":                             func(c *Config) { c.Kind = "pwm" },
		"outputs[1].modbus: is missing":                               func(c *Config) { c.Kind = KindModbus },
		"outputs[1].modbus: is given for an output of kind simulated": func(c *Config) { c.Modbus = &modbus.Config{} },
		"outputs[1].modbus.coil, register: wants one":                 func(c *Config) { c.Kind, c.Modbus = KindModbus, &modbus.Config{Address: "tcp:a:1", Device: 1} },
		"outputs[1].modbus.scale: 100 is 100000 steps": func(c *Config) {
			c.Kind, c.Modbus = KindModbus, &modbus.Config{Address: "tcp:a:1", Device: 1, Register: n(1), Scale: 0.001}
		},
		"outputs[1].max: 100 with min: 0, wants 0 and 1": func(c *Config) {
			c.Kind, c.Modbus = KindModbus, &modbus.Config{Address: "tcp:a:1", Device: 1, OnCoil: n(1)}
		},
		"outputs[1].simulated.fault: \"rust\"":                    func(c *Config) { c.Simulated = &simulated.Config{Fault: "rust"} },
		"outputs[1].interlocks[0].when: there is no output \"b\"": func(c *Config) { c.Interlocks = []interlock.Config{{When: "output.b > 1"}} },
		"outputs[1].interlocks[0].when: \"temp.tj >\" ends after": func(c *Config) { c.Interlocks = []interlock.Config{{When: "temp.tj >"}} },
		"outputs[1].interlocks[0].max_age: 2h0m0s":                func(c *Config) { c.Interlocks = []interlock.Config{{When: "a > 1", MaxAge: 2 * time.Hour}} },
		"outputs[1].tolerance: 101":                               func(c *Config) { c.Tolerance = 101 },
		"outputs[1].unit: is 17 bytes":                            func(c *Config) { c.Unit = "12345678901234567" },
	} {
		c := sim("c", safeAt(0), change)
		if err := Validate([]Config{sim("a", nil, nil), c}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, wants %q in it", err, want)
		}
	}
	if err := Validate([]Config{sim("a", nil, nil), {Name: "s", Kind: KindModbus, Modbus: &modbus.Config{Address: "rtu:/dev/ttyS0", Device: 247, OnCoil: n(0)}, Safe: safeAt(1)}}); err != nil {
		t.Error(err)
	}
	if err := Validate(make([]Config, MaxOutputs+1)); err == nil {
		t.Error("too many were taken")
	}
}

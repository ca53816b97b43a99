// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"fmt"

	"fulmar/device/output/gpio"
	"fulmar/device/output/modbus"
	"fulmar/device/output/mqtt"
	"fulmar/device/output/program"
	"fulmar/device/output/simulated"
)

// driver makes the driver of an output. None of them touches its device before the first
// word with it, so that a device that is not there keeps no board from starting.
func (b *Bank) driver(c *Config) (Output, error) {
	if b.deps.Make != nil {
		return b.deps.Make(c)
	}
	switch c.Kind {
	case KindGPIO:
		return gpio.New(c.Name, *c.GPIO), nil
	case KindModbus:
		if b.buses == nil {
			b.buses = modbus.NewBuses()
		}
		return b.buses.Output(c.Name, *c.Modbus)
	case KindMQTT:
		return mqtt.New(c.Name, *c.MQTT, b.log), nil
	case KindExec:
		return program.New(c.Name, *c.Exec, b.deps.Program), nil
	case KindSimulated:
		return simulated.New(c.Name, *c.Simulated), nil
	}
	return nil, fmt.Errorf("kind %q is not known", c.Kind)
}

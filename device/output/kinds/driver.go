// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"context"
	"fmt"
	"log/slog"

	"fulmar/device/output/gpio"
	"fulmar/device/output/modbus"
	"fulmar/device/output/mqtt"
	"fulmar/device/output/program"
	"fulmar/device/output/simulated"
)

// Driver is one thing that is driven. Set and Get are called one at a time, and end when
// their context does, if they can; a bank does without one that cannot. Set returns nil
// once the device has taken the value. Get tells where it stands; known is false where the
// kind cannot be asked. One that keeps something open is an io.Closer too.
type Driver interface {
	Name() string
	Set(ctx context.Context, value float64) error
	Get(ctx context.Context) (value float64, known bool, err error)
}

// Drivers makes drivers. None of them touches its device before the first word with it, so
// that a device that is not there keeps no board from starting.
type Drivers struct {
	// Program is fulmard's own executable, which bounds the programs of kind exec.
	Program string
	Log     *slog.Logger

	buses *modbus.Buses
}

// Make makes the driver of a full config.
func (d *Drivers) Make(c *Config) (Driver, error) {
	switch c.Kind {
	case KindGPIO:
		return gpio.New(c.Name, *c.GPIO), nil
	case KindModbus:
		if d.buses == nil {
			d.buses = modbus.NewBuses()
		}
		return d.buses.Output(c.Name, *c.Modbus)
	case KindMQTT:
		return mqtt.New(c.Name, *c.MQTT, d.Log), nil
	case KindExec:
		return program.New(c.Name, *c.Exec, d.Program), nil
	case KindSimulated:
		return simulated.New(c.Name, *c.Simulated), nil
	}
	return nil, fmt.Errorf("kind %q is not known", c.Kind)
}

// Close ends what drivers share.
func (d *Drivers) Close() error {
	if d.buses == nil {
		return nil
	}
	return d.buses.Close()
}

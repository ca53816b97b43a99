// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"time"

	"fulmar/agent/commands"
	"fulmar/agent/plant"
	"fulmar/command"
	"fulmar/device/output"
	"fulmar/schema"
	"fulmar/twin"
)

// bank is the outputs as the commands see them.
type bank struct{ *output.Bank }

// moved gives the outputs; nil for a board without any, which then has no commands for
// them.
func moved(p *plant.Plant) commands.Outputs {
	if p == nil {
		return nil
	}
	return bank{p.Bank}
}

// List tells of all outputs.
func (b bank) List() []commands.Output {
	var out []commands.Output
	for _, s := range b.States() {
		out = append(out, commands.Output{Name: s.Name, Unit: s.Unit, Value: s.Value, Known: s.Known && s.Read})
	}
	return out
}

// Set moves an output.
func (b bank) Set(ctx context.Context, name string, value float64, who string) error {
	return coded(b.Bank.Set(ctx, name, value, who))
}

// Shutdown brings all into their safe states.
func (b bank) Shutdown(ctx context.Context, reason string) error {
	return coded(b.Bank.Shutdown(ctx, reason))
}

// Release ends a shutdown.
func (b bank) Release(ctx context.Context, who string) error {
	return coded(b.Bank.Release(ctx, who))
}

// coded keeps an output's code in a command's result.
func coded(err error) error {
	var e *output.Error
	if errors.As(err, &e) {
		return &command.Error{Code: e.Code, Text: err.Error()}
	}
	return err
}

// settings are the twin's keys as the commands see them.
type settings struct{ c *Control }

// Set changes a key on the board.
func (s settings) Set(_ context.Context, key string, value any, who string, lease time.Duration) error {
	v, err := twin.ValueOf(value)
	if err != nil {
		return err
	}
	return s.c.shadow.Set(key, twin.Edit{Value: v, Author: who, LeaseMs: uint64(max(lease, 0) / time.Millisecond)})
}

// since gives how long ago a moment of this boot was, in seconds; 0 for another boot's.
func since(now, t schema.Time) int64 {
	if t.Boot != now.Boot || t.Mono == 0 {
		return 0
	}
	return (now.Mono - t.Mono) / int64(time.Second)
}

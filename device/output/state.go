// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import "fulmar/schema"

// What an output does, as a word.
const (
	StateUnknown = "unknown" // nobody has set or read it since the start
	StateSet     = "set"
	StateMoving  = "moving" // on its way, in steps
	StateSafe    = "safe"   // a safety shutdown holds it there
	StateFailed  = "failed" // the last word with it failed; Why tells
)

// State is what is known of one output.
type State struct {
	Name, Kind, Unit string
	Min, Max         float64  // as narrowed
	Safe             *float64 // nil: none
	// Value is where it stands, as far as Known. Read says that the device was asked;
	// else it is what it was told last.
	Value float64
	Known bool
	Read  bool
	State string
	Why   string // what is wrong; "" nothing
	By    string // who set it last; "" nobody since the start
	Since schema.Time
}

// States tells of all outputs, in the order of the config. It asks no device.
func (b *Bank) States() []State {
	latched, _, _ := b.Safe()
	out := make([]State, 0, len(b.order))
	for _, c := range b.order {
		c.mu.Lock()
		s := State{
			Name: c.cfg.Name, Kind: c.cfg.Kind, Unit: c.cfg.Unit, Min: c.min, Max: c.max, Safe: c.cfg.Safe,
			Value: c.value, Known: c.known, Read: c.read, State: c.word, Why: c.why, By: c.by, Since: c.since,
		}
		if latched && c.safe {
			s.State = StateSafe
		}
		c.mu.Unlock()
		out = append(out, s)
	}
	return out
}

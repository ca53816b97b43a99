// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"fulmar/command"
)

// Codes of these commands, beside those of the outputs themselves.
const (
	codeNoOutput = "no-such-output"
	codeNoValve  = "not-a-valve"
	codeLatched  = "safety-shutdown"
)

// settle is how near an output's value must be to the wanted one to be taken for it: what
// a register with a thousand steps can show.
const settle = 1e-3

func (s *Service) output(name string) (Output, error) {
	all := s.cfg.Outputs.List()
	if i := slices.IndexFunc(all, func(o Output) bool { return o.Name == name }); i >= 0 {
		return all[i], nil
	}
	names := make([]string, len(all))
	for i, o := range all {
		names[i] = o.Name
	}
	return Output{}, &command.Error{Code: codeNoOutput, Text: fmt.Sprintf("this board has no output %.70q; it has %s", name, strings.Join(names, ", "))}
}

// isAt tells whether an output can be asked and is at a value.
func (s *Service) isAt(name string, value float64) bool {
	o, err := s.output(name)
	return err == nil && o.Known && math.Abs(o.Value-value) <= settle*max(1, math.Abs(value))
}

type outputValue struct {
	Output string  `cbor:"output"`
	Value  float64 `cbor:"value"`
	Unit   string  `cbor:"unit,omitempty"`
}

// set is the doing of set-output and set-valve-position. After a crash the output is
// asked: if it is where it was to go, that was it; else, and where it cannot be asked, it
// is set again, which for a position that is given absolutely is once.
func (s *Service) set(b builtin, output, value string, check func(Output) error) builtin {
	name := func(a command.Args) (string, float64) { v, _ := a.Number(value); return a.Text(output), v }
	b.check = func(a command.Args) error {
		n, _ := name(a)
		o, err := s.output(n)
		if err != nil {
			return err
		}
		return check(o)
	}
	answer := func(a command.Args) outputValue {
		n, v := name(a)
		o, _ := s.output(n)
		return outputValue{n, v, o.Unit}
	}
	b.do = func(ctx context.Context, c command.Call, a command.Args) (any, error) {
		n, v := name(a)
		if err := s.cfg.Outputs.Set(ctx, n, v, who(&c)); err != nil {
			return nil, err
		}
		return answer(a), nil
	}
	b.happened = func(_ context.Context, _ command.Call, a command.Args) (bool, any, error) {
		n, v := name(a)
		return s.isAt(n, v), answer(a), nil
	}
	return b
}

func (s *Service) setOutput() builtin {
	return s.set(builtin{
		name: "set-output", effect: "brings an output to a value, within its limits and interlocks",
		args: []command.Field{
			{Name: "output", Type: command.Text, Required: true, Help: "an output of the config"},
			{Name: "value", Type: command.Number, Required: true, Help: "in the output's unit"},
		},
	}, "output", "value", func(Output) error { return nil })
}

func (s *Service) setValvePosition() builtin {
	return s.set(builtin{
		name: "set-valve-position", effect: "brings a valve to a position: an output whose unit is % or percent",
		args: []command.Field{
			{Name: "valve", Type: command.Text, Required: true, Help: "an output of the config with the unit % or percent"},
			{Name: "percent", Type: command.Number, Required: true, Min: 0, Max: 100, Unit: "%"},
		},
	}, "valve", "percent", func(o Output) error {
		if o.Unit != "%" && o.Unit != "percent" {
			return &command.Error{Code: codeNoValve, Text: fmt.Sprintf("output %s has the unit %q, a valve has %% or percent; give set-output", o.Name, o.Unit)}
		}
		return nil
	})
}

type safetyValue struct {
	Active bool   `cbor:"active"`
	By     string `cbor:"by,omitempty"`
}

func (s *Service) triggerSafetyShutdown() builtin {
	return builtin{
		name: "trigger-safety-shutdown", lane: command.Safety, timeout: time.Minute,
		effect: "brings every output to its safe state at once and keeps it there, over restarts, until it is released",
		args:   []command.Field{{Name: "reason", Type: command.Text, Help: "for those who find it"}},
		// The safe state is a state: being brought there twice is being there.
		repeat: true,
		do: func(ctx context.Context, c command.Call, a command.Args) (any, error) {
			why := who(&c)
			if reason := a.Text("reason"); reason != "" {
				why += ": " + reason
			}
			err := s.cfg.Outputs.Shutdown(ctx, why)
			active, _, by := s.cfg.Outputs.Safe()
			if err != nil {
				return nil, err
			}
			return safetyValue{active, by}, nil
		},
	}
}

func (s *Service) releaseSafetyShutdown() builtin {
	return builtin{
		name: "release-safety-shutdown", timeout: time.Minute,
		effect: "lets outputs be set again after a safety shutdown; it moves none",
		args:   []command.Field{{Name: "reason", Type: command.Text, Help: "for those who read the log"}},
		do: func(ctx context.Context, c command.Call, _ command.Args) (any, error) {
			if active, _, _ := s.cfg.Outputs.Safe(); !active {
				return safetyValue{}, nil
			}
			return safetyValue{}, s.cfg.Outputs.Release(ctx, c.Answers())
		},
		// Never done again by itself: after the crash somebody may have shut down anew, and
		// that shutdown is not the one this release was for.
		happened: func(context.Context, command.Call, command.Args) (bool, any, error) {
			if active, _, by := s.cfg.Outputs.Safe(); active {
				return false, nil, &command.Error{Code: codeLatched, Text: "the board died while it was released, and a shutdown of " + by + " is in force; look, and release it again"}
			}
			return true, safetyValue{}, nil
		},
	}
}

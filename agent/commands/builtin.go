// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"time"

	"fulmar/command"
	"fulmar/schema"
)

// Outputs are what the board moves. Errors that are a [command.Error] keep their code.
type Outputs interface {
	// List tells of all outputs.
	List() []Output
	// Set brings an output to a value, in its unit, through its limits and interlocks; who
	// wants it is for the log.
	Set(ctx context.Context, name string, value float64, who string) error
	// Shutdown brings every output to its safe state and latches that, over restarts.
	Shutdown(ctx context.Context, reason string) error
	// Release ends a shutdown, if who is a person: user/NAME, local/NAME or key/ID.
	Release(ctx context.Context, who string) error
	// Safe tells whether a shutdown is latched, since when and by whom.
	Safe() (active bool, since schema.Time, by string)
}

// Output is one of them as it is now.
type Output struct {
	Name, Unit string
	Value      float64
	Known      bool // Value can be asked, and was
}

// Settings are what may be changed on a board while it runs: keys of its twin's override.
type Settings interface {
	// Set changes a key on the board until the lease ends, 0 until it is changed again. A
	// key or value that is not good is an error that says why.
	Set(ctx context.Context, key string, value any, who string, lease time.Duration) error
}

// Worker is the inference worker.
type Worker interface {
	// Snapshot keeps a picture of the camera's next frame and gives its name.
	Snapshot(ctx context.Context, camera string) (picture string, err error)
	Restart(ctx context.Context) error
}

// What becomes of a command that ran when the board died, in a Kind's Crash.
const (
	crashRepeat  = "repeat"
	crashAsk     = "ask"
	crashUnknown = "unknown"
)

// builtin is a command of every board, its arguments parsed.
type builtin struct {
	name    string
	lane    command.Lane
	timeout time.Duration
	effect  string
	args    []command.Field
	// check refuses what the kind cannot know; no effect.
	check func(a command.Args) error
	do    func(ctx context.Context, c command.Call, a command.Args) (value any, err error)
	// One of these, or none: see command.Handler.
	repeat   bool
	happened func(ctx context.Context, c command.Call, a command.Args) (bool, any, error)
}

// offer makes it a command with a description.
func (b builtin) offer() command.Offer {
	k := command.Kind{Name: b.name, Lane: b.lane.String(), Safety: b.lane == command.Safety, Args: b.args, Effect: b.effect, Crash: crashUnknown}
	h := command.Handler{Name: b.name, Lane: b.lane, Timeout: b.timeout, Repeat: b.repeat}
	h.Do = func(ctx context.Context, c command.Call) ([]byte, error) {
		a, err := k.Parse(c.Args)
		if err != nil {
			return nil, err
		}
		return encoded(b.do(ctx, c, a))
	}
	if b.check != nil {
		h.Check = func(args []byte) error {
			a, err := k.Parse(args)
			if err != nil {
				return err
			}
			return b.check(a)
		}
	}
	if b.repeat {
		k.Crash = crashRepeat
	}
	if b.happened != nil {
		k.Crash = crashAsk
		h.Happened = func(ctx context.Context, c command.Call) (bool, []byte, error) {
			a, err := k.Parse(c.Args)
			if err != nil {
				return false, nil, err
			}
			yes, v, err := b.happened(ctx, c, a)
			value, err := encoded(v, err)
			return yes, value, err
		}
	}
	return command.Offer{Kind: k, Handler: h}
}

func encoded(v any, err error) ([]byte, error) {
	if v == nil || err != nil {
		return nil, err
	}
	return schema.Encode(v)
}

// builtins are the commands of this board, by what it has.
func (s *Service) builtins() []command.Offer {
	var all []builtin
	if s.cfg.Latest != nil {
		all = append(all, s.readSensorBatch())
	}
	if s.cfg.Outputs != nil {
		all = append(all, s.setValvePosition(), s.setOutput(), s.triggerSafetyShutdown(), s.releaseSafetyShutdown())
	}
	if s.cfg.Settings != nil {
		all = append(all, s.pause("run-model", false), s.pause("pause-model", true), s.setLogLevel(), s.setSampling())
	}
	if s.cfg.Worker != nil {
		all = append(all, s.snapshot())
	}
	if s.cfg.Stop != nil || s.cfg.Worker != nil {
		all = append(all, s.restart())
	}
	if s.cfg.Diagnose != nil && s.cfg.Keep != nil {
		all = append(all, s.collectDiagnostics())
	}
	all = append(all, s.cancelCommand())
	out := make([]command.Offer, len(all))
	for i, b := range all {
		out[i] = b.offer()
	}
	return out
}

// who is behind a call, for logs and for the authors of settings: of the fleet's the
// person or program.
func who(c *command.Call) string {
	switch {
	case c.By == "":
		return c.Actor
	case c.Actor == command.ActorFleet:
		return c.By
	}
	return c.Actor + " (" + c.By + ")"
}

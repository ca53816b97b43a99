// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"time"

	"fulmar/command"
)

// maxLease is how long a setting may be given for, in seconds: a week. What is to stay is
// the fleet's to say.
const maxLease = 7 * 24 * 3600

// set changes a setting. It is absolute, so doing it twice is doing it once; after a crash
// its lease begins anew.
func (s *Service) change(ctx context.Context, c *command.Call, key string, value any, lease time.Duration) (any, error) {
	if err := s.cfg.Settings.Set(ctx, key, value, who(c), lease); err != nil {
		return nil, err
	}
	return map[string]any{"key": key, "value": value, "lease_s": lease.Seconds()}, nil
}

func leaseField() command.Field {
	return command.Field{Name: "for", Type: command.Duration, Min: 1, Max: maxLease, Help: "how long; without it until it is changed again"}
}

// pause is run-model and pause-model.
func (s *Service) pause(name string, paused bool) builtin {
	effect := "lets a model look at its cameras again"
	if paused {
		effect = "keeps a model from looking, and frees what it uses"
	}
	return builtin{
		name: name, effect: effect, repeat: true, // absolute
		args: []command.Field{{Name: "model", Type: command.Text, Required: true, Help: "a model of the config"}, leaseField()},
		do: func(ctx context.Context, c command.Call, a command.Args) (any, error) {
			return s.change(ctx, &c, "model."+a.Text("model")+".paused", paused, a.Duration("for"))
		},
	}
}

func (s *Service) setLogLevel() builtin {
	return builtin{
		name: "set-log-level", lane: command.Quick, effect: "changes how much the board writes to its log", repeat: true, // absolute
		args: []command.Field{{Name: "level", Type: command.Text, Required: true, Choices: []string{"debug", "info", "warn", "error"}}, leaseField()},
		do: func(ctx context.Context, c command.Call, a command.Args) (any, error) {
			return s.change(ctx, &c, "log.level", a.Text("level"), a.Duration("for"))
		},
	}
}

func (s *Service) setSampling() builtin {
	return builtin{
		name: "set-sampling", effect: "changes how often a group of sensors is read", repeat: true, // absolute
		args: []command.Field{
			{Name: "group", Type: command.Text, Required: true, Help: "a group of the config's sample.groups"},
			// The plan's own bounds, schedule.MinPeriod and MaxPeriod.
			{Name: "period", Type: command.Duration, Required: true, Min: 0.01, Max: 86400},
			leaseField(),
		},
		do: func(ctx context.Context, c command.Call, a command.Args) (any, error) {
			return s.change(ctx, &c, "sample."+a.Text("group")+".period", a.Duration("period").String(), a.Duration("for"))
		},
	}
}

func (s *Service) snapshot() builtin {
	return builtin{
		// Long: the next frame of a slow camera is seconds away, and nothing waits for it.
		name: "snapshot", lane: command.Long, timeout: time.Minute, effect: "keeps a picture of a camera's next frame and brings it to the fleet",
		args:   []command.Field{{Name: "camera", Type: command.Text, Required: true, Help: "a camera of the config"}},
		repeat: true, // a second picture does no harm
		do: func(ctx context.Context, _ command.Call, a command.Args) (any, error) {
			name, err := s.cfg.Worker.Snapshot(ctx, a.Text("camera"))
			if err != nil {
				return nil, err
			}
			return map[string]any{"picture": name}, nil
		},
	}
}

// restart ends the worker or the agent, whose keepers start them again.
func (s *Service) restart() builtin {
	parts := []string{}
	if s.cfg.Worker != nil {
		parts = append(parts, "worker")
	}
	if s.cfg.Stop != nil {
		parts = append(parts, "agent")
	}
	return builtin{
		name: "restart", effect: "starts the inference worker or the agent anew",
		args: []command.Field{{Name: "part", Type: command.Text, Required: true, Choices: parts}},
		do: func(ctx context.Context, c command.Call, a command.Args) (any, error) {
			if a.Text("part") == "worker" {
				return nil, s.cfg.Worker.Restart(ctx)
			}
			s.cfg.Stop("restart, asked for by " + who(&c))
			<-ctx.Done()
			return nil, command.ErrNextStart
		},
		// That it is asked for again means that another process asks than the one that began
		// it: the agent was started anew, whether by the command or by what cut it off. A
		// worker does not outlive its agent's child, or is done for by a second restart.
		happened: func(_ context.Context, _ command.Call, a command.Args) (bool, any, error) {
			return a.Text("part") == "agent", map[string]any{"release": s.cfg.Release}, nil
		},
	}
}

func (s *Service) cancelCommand() builtin {
	return builtin{
		name: "cancel", lane: command.Quick, effect: "ends a command that waits or runs; what it has done stays done",
		args:   []command.Field{{Name: "id", Type: command.Text, Required: true, Help: "32 hex digits"}},
		check:  func(a command.Args) error { _, err := command.ParseID(a.Text("id")); return err },
		repeat: true, // what has ended stays ended
		do: func(ctx context.Context, c command.Call, a command.Args) (any, error) {
			id, err := command.ParseID(a.Text("id"))
			if err != nil {
				return nil, err
			}
			r, err := s.d.Cancel(ctx, id, who(&c))
			if err != nil {
				return nil, err
			}
			return map[string]any{"state": r.State.String()}, nil
		},
	}
}

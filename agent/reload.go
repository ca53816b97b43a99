// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"fulmar/agent/config"
	"fulmar/schema"
)

// watchConfig applies the config whenever its file or a drop-in of it changes. A broken
// file changes nothing: the last good config goes on and the fleet is told the line.
func (a *Agent) watchConfig(ctx context.Context) error {
	config.Watch(ctx, a.opt.ConfigPath, a.log, a.reload)
	return nil
}

func (a *Agent) reload() {
	next, err := config.Load(a.opt.ConfigPath)
	if err != nil {
		a.log.Error("new config refused, the last good one goes on", "err", err)
		a.sayConfig(err)
		return
	}
	a.tell(a.notify.Reloading())
	defer func() { a.tell(a.notify.Ready()) }()
	a.apply(next)
	a.sayConfig(nil)
	if err := config.KeepLastGood(a.opt.ConfigPath, next); err != nil {
		a.log.Warn("last good config not kept", "err", err)
	}
}

// sayConfig reports the state of the config file: err is why it was refused.
func (a *Agent) sayConfig(err error) {
	if err != nil {
		a.say("config", "refused", schema.SeverityAlarm, "new config refused, the last good one goes on: "+err.Error())
		return
	}
	a.say("config", "ok", schema.SeverityInfo, "config applied")
}

// apply puts a new config in force. Sensors, sampling, models, cameras and the
// log level change at once; the rest is fixed at start and said to be so.
func (a *Agent) apply(next *config.Config) {
	a.mu.Lock()
	old := a.cfg
	a.cfg = *next
	client := a.worker
	a.mu.Unlock()

	setLevel(a.opt.Level, next.Log.Level)
	var err error
	if reflect.DeepEqual(old.Sensors, next.Sensors) {
		err = a.scheduler.Update(next.Sample)
	} else {
		err = a.scheduler.Replace(next.Sample, a.sensors(next))
	}
	a.decide.Update(next.Plan())
	if client != nil {
		err = errors.Join(err, client.Update(next.Setup()))
	}
	if err != nil {
		a.log.Error("a part refused its new config", "err", err)
	}
	a.log.Info("config applied", "path", a.opt.ConfigPath)
	for _, k := range fixedAtStart(&old, next) {
		a.log.Warn("this key is read at start only: restart fulmard to apply it", "key", k)
	}
}

// fixedAtStart names the changed sections that a running agent does not apply.
func fixedAtStart(old, next *config.Config) []string {
	var out []string
	for _, s := range []struct {
		key string
		a   any
		b   any
	}{
		{"board", old.Board, next.Board},
		{"data", old.Data, next.Data},
		{"fleet", old.Fleet, next.Fleet},
		{"broker", old.Broker, next.Broker},
		{"key", old.Key, next.Key},
		{"tpm", old.TPM, next.TPM},
		{"spool", old.Spool, next.Spool},
		{"link", old.Link, next.Link},
		{"infer", old.Infer, next.Infer},
		{"status", old.Status, next.Status},
		{"log.format", old.Log.Format, next.Log.Format},
	} {
		if !reflect.DeepEqual(s.a, s.b) {
			out = append(out, s.key)
		}
	}
	return out
}

func setLevel(v *slog.LevelVar, s string) {
	var l slog.Level
	if v != nil && l.UnmarshalText([]byte(s)) == nil {
		v.Set(l)
	}
}

// ParseLevel reads log.level; the config has been validated.
func ParseLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, fmt.Errorf("log.level: %w", err)
	}
	return l, nil
}

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
	config.Watch(ctx, a.opt.ConfigPath, a.log, func() {
		// Between the reading at the start and the watch somebody may have been fast.
		next, err := config.Load(a.opt.ConfigPath)
		if was := a.fileConfig(); err == nil && !reflect.DeepEqual(*next, was) || err != nil && a.opt.BrokenConfig == nil {
			a.reload(ctx)
		}
	}, func() { a.reload(ctx) })
	return nil
}

func (a *Agent) reload(ctx context.Context) {
	next, err := config.Load(a.opt.ConfigPath)
	if err != nil {
		a.log.Error("new config refused, the last good one goes on", "err", err)
		a.sayConfig(err)
		return
	}
	a.tell(a.notify.Reloading())
	defer func() { a.tell(a.notify.Ready()) }()
	a.mu.Lock()
	a.base = *next
	a.mu.Unlock()
	a.control.Rebase(ctx) // puts the twin over it, and both in force
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
// log level change at once; the rest is fixed at start and said to be so. Its one caller is
// the shadow.
func (a *Agent) apply(next *config.Config) error {
	a.mu.Lock()
	old := a.cfg
	if reflect.DeepEqual(&old, next) {
		a.mu.Unlock()
		return nil
	}
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
	if client != nil {
		err = errors.Join(err, client.Update(a.setup(next)))
	}
	if err != nil {
		err = fmt.Errorf("a part refused its new config: %w", err)
		a.log.Error("config not all in force", "err", err)
	}
	a.log.Info("config applied", "path", a.opt.ConfigPath)
	for _, k := range old.FixedAtStart(next) {
		a.log.Warn("this key is read at start only: restart fulmard to apply it", "key", k)
	}
	return err
}

func setLevel(v *slog.LevelVar, s string) {
	var l slog.Level
	if v != nil && l.UnmarshalText([]byte(s)) == nil {
		v.Set(l)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"fulmar/agent/config"
	"fulmar/agent/diagnose"
	"fulmar/inference/worker"
	"fulmar/schema"
)

// stopFor ends the program in order: systemd or the launcher starts it again.
func (a *Agent) stopFor(why string) {
	a.log.Info("ended to be started anew", "why", why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stop != nil {
		a.stop()
	}
}

// keepFile brings a file to the fleet as pictures go there: the file, then its record.
func (a *Agent) keepFile(_ context.Context, name, media, source string, data []byte) error {
	sum, err := a.blobs.Put(name, data)
	if err != nil {
		return err
	}
	a.append(schema.ClassSnapshot, &schema.Record{
		Kind: schema.KindSnapshot, Time: a.clock.Now(),
		Snapshot: &schema.Snapshot{Name: name, Size: int64(len(data)), SHA256: sum, Media: media, Source: source},
	})
	return nil
}

// setup is what the worker is to have now: by the config, and what is asked of it beside.
func (a *Agent) setup(cfg *config.Config) worker.Setup {
	return a.errands.Setup(a.updates.Setup(cfg.Setup()))
}

// wireErrands tells errands of the worker and its cameras.
func (a *Agent) wireErrands() {
	a.errands.Client = func() *worker.Client {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.worker
	}
	a.errands.Cameras = func() (names []string) {
		for _, c := range a.config().Cameras {
			names = append(names, c.Name)
		}
		return names
	}
	a.errands.Update = func(c *worker.Client) error {
		cfg := a.config()
		return c.Update(a.setup(&cfg))
	}
}

// diagnose gives what support asks for.
func (a *Agent) diagnose(_ context.Context, add func(name string, data []byte)) {
	a.status.mu.Lock()
	w := a.status.worker
	a.status.mu.Unlock()
	diagnose.Collect(add, a.opt.ConfigPath, a.opt.Tail, []diagnose.Part{
		{Name: "health.json", Value: a.Health()},
		{Name: "facts.json", Value: map[string]any{"release": a.opt.Release, "facts": a.facts, "now": a.clock.Now()}},
		{Name: "spool.json", Value: a.spool.Stats()},
		{Name: "schedule.json", Value: a.scheduler.Stats()},
		{Name: "commands.json", Value: a.control.Commands().Stats()},
		{Name: "worker.json", Value: w},
	})
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"fulmar/agent/config"
	"fulmar/inference/worker"
	"fulmar/ota"
	"fulmar/ota/install/conf"
	"fulmar/ota/install/models"
	"fulmar/ota/install/programs"
	"fulmar/ota/install/rootfs"
	"fulmar/ota/install/site"
	"fulmar/ota/slot"
)

// parts are what a board can update.
type parts struct {
	cfg      *Config
	programs *programs.Programs // nil: it runs out of a plain folder
	slots    *slot.Store        // of programs
	sums     sums
	models   *models.Models // nil: its folder cannot be read
	conf     *conf.Config   // nil: no config file
	system   *system        // nil: no fulmar-rootfs
	site     map[string]*site.Program
	fell     bool // the config was gone back from at this start, after it was read
}

func openParts(cfg *Config, c *config.Config) *parts {
	p := &parts{cfg: cfg, system: openSystem(cfg.Rootfs), site: map[string]*site.Program{}}
	// Folders that others make parts in.
	for _, dir := range []string{c.OTADir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			cfg.Log.Error("no folder for updates", "err", err)
		}
	}
	slots := c.Updates.Slots
	if slots == "" {
		slots = cfg.Slots
	}
	if slots != "" {
		if store := slot.Open(slots); store.Own() == nil {
			p.slots = store
			p.programs = programs.New(programs.Options{Slots: store, Dir: c.OTADir(), Self: cfg.Slot, RestartWorker: cfg.RestartWorker})
		} else {
			cfg.Log.Warn("the programs cannot be updated: the folder of slots is another user's", "slots", slots)
		}
	}
	var err error
	p.models, err = models.Open(models.Options{Dir: filepath.Join(c.Data, "models"), Configured: p.configured, Changed: cfg.ModelsChanged})
	if err != nil {
		cfg.Log.Error("models that came over the air are not all there", "err", err)
	}
	fell, err := p.models.Begin()
	for _, f := range fell {
		cfg.Log.Warn("a model over the air was gone back from", "why", f)
	}
	if err != nil {
		cfg.Log.Warn("a start is not counted for models on trial", "err", err)
	}
	if cfg.ConfigPath != "" {
		p.conf, err = conf.Open(conf.Options{
			Dir: filepath.Join(c.Data, "config"), Changed: cfg.ConfigChanged,
			Check: func(dir string) error {
				_, err := config.With(cfg.ConfigPath, dir)
				return err
			},
			Restart: func(from, to string) bool { return fixed(cfg.ConfigPath, from, to) },
		})
		if err != nil {
			cfg.Log.Error("no config over the air", "err", err)
		} else if why, err := p.conf.Begin(); err != nil || why != "" {
			p.fell = why != ""
			cfg.Log.Warn("the config over the air", "gone_back_from", why, "err", err)
		}
	}
	for _, path := range c.Updates.Programs {
		x, err := site.Load(path, cfg.Program)
		if err != nil {
			cfg.Log.Error("a program for updates is left out", "path", path, "err", err)
			continue
		}
		p.site[x.Component()] = x
	}
	return p
}

// fixed tells whether a key differs between two configs that is read at the start only.
func fixed(path, from, to string) bool {
	a, err := config.With(path, from)
	b, err2 := config.With(path, to)
	return err != nil || err2 != nil || len(a.FixedAtStart(b)) > 0
}

// configured is the path that the config names for a model.
func (p *parts) configured(name string) string {
	for _, m := range p.cfg.Config().Models {
		if m.Name == name {
			return m.Path
		}
	}
	return ""
}

// installer gives that of a component; nil where the board has none.
func (p *parts) installer(component string) ota.Installer {
	if x := p.site[component]; x != nil {
		return x
	}
	switch {
	case component == programs.Agent && p.programs != nil,
		component == programs.Worker && p.programs != nil && p.cfg.Config().Infer.Mode != "off":
		return p.programs.Installer(component)
	case component == conf.Component && p.conf != nil:
		return p.conf
	case component == rootfs.Component && p.system != nil:
		return p.system
	case strings.HasPrefix(component, models.Prefix) && p.models != nil && p.cfg.Config().Infer.Mode != "off":
		if in, err := p.models.Installer(component); err == nil {
			return in
		}
	}
	return nil
}

// kinds are the components that the board can update, as a fact.
func (p *parts) kinds() string {
	var out []string
	infer := p.cfg.Config().Infer.Mode != "off"
	for _, k := range []struct {
		name string
		can  bool
	}{
		{programs.Agent, p.programs != nil},
		{programs.Worker, p.programs != nil && infer},
		{"model", p.models != nil && infer},
		{conf.Component, p.conf != nil},
		{rootfs.Component, p.system != nil},
	} {
		if k.can || p.site[k.name] != nil {
			out = append(out, k.name)
		}
	}
	return strings.Join(out, " ")
}

// names are the components that the board has something of.
func (p *parts) names() []string {
	out := []string{}
	for _, n := range []string{programs.Agent, programs.Worker, conf.Component, rootfs.Component} {
		if p.installer(n) != nil {
			out = append(out, n)
		}
	}
	for _, m := range p.cfg.Config().Models {
		if n := models.Prefix + m.Name; p.installer(n) != nil {
			out = append(out, n)
		}
	}
	return out
}

// forsake removes what was staged for components of which a record that was lost once knows
// nothing, and ends that updates own what is on trial. What is in force stays so.
func (p *parts) forsake(ctx context.Context, st *ota.Status) {
	known := map[string]bool{}
	for n := range st.Components {
		known[n] = true
	}
	for i := range st.Waiting {
		known[st.Waiting[i].Component] = true
	}
	if st.Work != nil {
		known[st.Work.Component] = true
	}
	for _, n := range p.names() {
		if known[n] {
			continue
		}
		if err := p.installer(n).Sweep(ctx, nil); err != nil {
			p.cfg.Log.Warn("what was staged before the record of updates was lost is not let go of; it is tried again with the next start", "component", n, "err", err)
		}
	}
}

// versions are those that run, by component; what is not known is left out.
func (p *parts) versions(ctx context.Context) map[string]string {
	out := map[string]string{}
	for _, n := range p.names() {
		if v, err := p.installer(n).Running(ctx); err == nil && v != "" {
			out[n] = v
		}
	}
	return out
}

// owns tells whether an update has put this slot on trial.
func (p *parts) owns(id string) bool { return p.programs != nil && p.programs.Owns(id) }

// modelPath is the folder of a model that is to run, "" where the config's own does.
func (p *parts) modelPath(name string) string {
	if p.models != nil {
		if dir, _, ok := p.models.Path(name); ok {
			return dir
		}
	}
	return p.configured(name)
}

// setup has the worker load what came over the air in place of what the config names.
func (p *parts) setup(s worker.Setup) worker.Setup {
	for i := range s.Models {
		s.Models[i].Path = p.modelPath(s.Models[i].Name)
	}
	return s
}

// begin counts this start for what is on trial, and has the worker follow a choice that was
// made before the program ended.
func (p *parts) begin(ctx context.Context) {
	if p.fell {
		p.cfg.ConfigChanged()
	}
	if p.programs != nil {
		if err := p.programs.Follow(ctx); err != nil {
			p.cfg.Log.Warn("the worker does not follow the slot in force", "err", err)
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package models brings models into force: the components model/NAME, each a folder of its
// own versions (package tree), swapped in the worker without a restart of anything.
//
// # Whose model runs
//
// The config names models by their names and a path. A version that came over the air runs
// in place of that path, until somebody changes the path: the newest deed wins, as with a
// package and an update of the programs. A model that the config does not name runs nowhere,
// and is kept. [Models.List] tells people which one it is and why.
package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/tree"
	"fulmar/ota/release"
)

// Prefix is that of the components.
const Prefix = "model/"

// Max is how many models a board keeps, of all names: the worker takes 32.
const Max = 32

// ErrNoShadow: the inference of this release runs one model for a camera, none beside it.
var ErrNoShadow = errors.New("this release cannot run a model beside the one in use; it is staged, and act install puts it in force on trial")

// Options are what models need.
type Options struct {
	Dir string // DATA/models; is made where it is missing
	// Configured gives the path that the config names for a model, "" where it names none.
	Configured func(name string) string
	// Changed, where there is one, is called after another version of a model came in force.
	Changed func()
	// Beside runs a folder beside the model in use, "" none. nil: see [ErrNoShadow].
	Beside func(ctx context.Context, name, dir string) error
	Disk   disk.Disk // nil is the machine's
}

// Models are those of one board. Safe for concurrent use.
type Models struct {
	o Options

	mu    sync.Mutex
	trees map[string]*tree.Tree
}

// Open finds the models that are there. It changes nothing. What of them cannot be read is
// in the error, and the others are there all the same.
func Open(o Options) (*Models, error) {
	if o.Configured == nil {
		o.Configured = func(string) string { return "" }
	}
	m := &Models{o: o, trees: map[string]*tree.Tree{}}
	ents, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("models: %w", err)
	}
	var errs []error
	for _, e := range ents {
		if e.IsDir() && release.ComponentName(Prefix+e.Name()) {
			_, err := m.tree(e.Name())
			errs = append(errs, err)
		}
	}
	return m, errors.Join(errs...)
}

// tree gives the versions of a model.
func (m *Models) tree(name string) (*tree.Tree, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.trees[name]; t != nil {
		return t, nil
	}
	if !release.ComponentName(Prefix + name) {
		return nil, fmt.Errorf("models: %.80q is no name of a model", name)
	}
	if len(m.trees) >= Max {
		return nil, fmt.Errorf("models: %d are kept already, no room for %s; remove a folder of %s that is not needed and restart fulmard", Max, name, m.o.Dir)
	}
	t, err := tree.Open(tree.Options{
		Dir: filepath.Join(m.o.Dir, name), Component: Prefix + name, Changed: m.o.Changed, Disk: m.o.Disk,
		Mark:  func() string { return m.o.Configured(name) },
		Bases: func() []string { return m.bases(name) },
	})
	if err != nil {
		return nil, err
	}
	m.trees[name] = t
	return t, nil
}

// bases are the folders of a model that did not come over the air: a patch may be of it.
func (m *Models) bases(name string) []string {
	if p := m.o.Configured(name); filepath.IsAbs(p) {
		return []string{p}
	}
	return nil
}

// Path gives the folder and version of a model that came over the air, where that is what
// is to run: ok is false where the config's own path is.
func (m *Models) Path(name string) (dir, version string, ok bool) {
	m.mu.Lock()
	t := m.trees[name]
	m.mu.Unlock()
	if t == nil {
		return "", "", false
	}
	dir, version = t.InForce()
	return dir, version, dir != "" && t.Mark() == m.o.Configured(name)
}

// Begin counts a start of the program, before models are loaded; see [tree.Tree.Begin]. fell
// are those that were gone back from.
func (m *Models) Begin() (fell []string, err error) {
	for _, name := range m.names() {
		m.mu.Lock()
		t := m.trees[name]
		m.mu.Unlock()
		f, e := t.Begin()
		if err = errors.Join(err, e); f != "" {
			fell = append(fell, f)
		}
	}
	return fell, err
}

func (m *Models) names() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.trees {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Model is how one that came over the air stands, for people.
type Model struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Dir     string `json:"dir"`
	Trial   bool   `json:"trial,omitempty"`
	Runs    bool   `json:"runs"`
	Why     string `json:"why"` // it runs, or does not
}

// List tells of each model of which a version came over the air, by name.
func (m *Models) List() (out []Model) {
	for _, name := range m.names() {
		m.mu.Lock()
		t := m.trees[name]
		m.mu.Unlock()
		dir, version := t.InForce()
		if dir == "" {
			continue
		}
		x := Model{Name: name, Version: version, Dir: dir, Trial: t.OnTrial()}
		switch now, was := m.o.Configured(name), t.Mark(); {
		case now == was && now == "":
			x.Why = "the config names no model " + name + ": it is kept and runs nowhere"
		case now == was:
			x.Runs, x.Why = true, "it came over the air after the config named "+now
		default:
			x.Why = fmt.Sprintf("the config was changed after it came, from %s to %s: that runs", cmp.Or(was, "nothing"), cmp.Or(now, "nothing"))
		}
		out = append(out, x)
	}
	return out
}

// Installer is the one of a component model/NAME.
func (m *Models) Installer(component string) (ota.Installer, error) {
	name, ok := strings.CutPrefix(component, Prefix)
	if !ok {
		return nil, fmt.Errorf("models: %.80q is no %sNAME", component, Prefix)
	}
	t, err := m.tree(name)
	if err != nil {
		return nil, err
	}
	return &model{Tree: t, m: m, name: name}, nil
}

// model is the installer of one.
type model struct {
	*tree.Tree
	m    *Models
	name string
}

// Running implements [ota.Installer]. "" where the config's own path runs.
func (x *model) Running(context.Context) (string, error) {
	_, version, ok := x.m.Path(x.name)
	if !ok {
		return "", nil
	}
	return version, nil
}

// Stage implements [ota.Installer]. The folder above is made here, for the first of all.
func (x *model) Stage(ctx context.Context, c *release.Component, paths map[string]string) (string, error) {
	if !slices.ContainsFunc(c.Files, func(f release.File) bool { return f.Path == "model.yaml" || f.Unpack }) {
		return "", fmt.Errorf("stage %s: it has no model.yaml, so it is no model package", c.Name)
	}
	if err := x.m.room(); err != nil {
		return "", fmt.Errorf("stage %s: %w", c.Name, err)
	}
	return x.Tree.Stage(ctx, c, paths)
}

// Space implements [ota.Installer].
func (x *model) Space(ctx context.Context, c *release.Component) (need, free int64, err error) {
	if err := x.m.room(); err != nil {
		return 0, 0, err
	}
	return x.Tree.Space(ctx, c)
}

// room makes the folder of all models, durably.
func (m *Models) room() error {
	d := m.o.Disk
	if d == nil {
		d = disk.OS{}
	}
	if fi, err := os.Stat(m.o.Dir); err == nil && fi.IsDir() {
		return nil
	}
	if err := d.Mkdir(m.o.Dir); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(m.o.Dir))
}

// Shadow implements [ota.Shadower].
func (x *model) Shadow(ctx context.Context, token string) error {
	if token == "" && x.m.o.Beside == nil {
		return nil // nothing runs beside
	}
	dir := ""
	if token != "" {
		if dir = x.Folder(token); dir == "" {
			return fmt.Errorf("shadow %s: %.140q is not staged", x.name, token)
		}
	}
	if x.m.o.Beside == nil {
		return fmt.Errorf("shadow model %s: %w (in %s)", x.name, ErrNoShadow, dir)
	}
	return x.m.o.Beside(ctx, x.name, dir)
}

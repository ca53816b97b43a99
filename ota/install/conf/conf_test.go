// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package conf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/agent/config"
	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/conf"
	"fulmar/ota/install/installtest"
	"fulmar/ota/release"
)

// board is a config file and its data folder, with the real loader.
type board struct {
	t    *testing.T
	path string
	o    conf.Options
	c    *conf.Config
}

func newBoard(t *testing.T, root string, d disk.Disk) *board {
	t.Helper()
	b := &board{t: t, path: filepath.Join(root, "fulmard.yaml")}
	// Written anew each time: the file is the board's, not the update's.
	if err := os.WriteFile(b.path, []byte("data: "+root+"\nfleet: {address: \"old:1\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.o = conf.Options{
		Dir: filepath.Join(root, "config"), Disk: d,
		Check: func(dir string) error { _, err := config.With(b.path, dir); return err },
		Restart: func(from, to string) bool {
			x, err := config.With(b.path, from)
			y, err2 := config.With(b.path, to)
			return err == nil && err2 == nil && len(x.FixedAtStart(y)) > 0
		},
	}
	b.Restart(ota.RestartNone)
	return b
}

func (b *board) Restart(r ota.Restart) {
	var err error
	if b.c, err = conf.Open(b.o); err != nil {
		panic(err)
	}
	if r != ota.RestartNone {
		if fell, err := b.c.Begin(); err != nil || fell != "" {
			panic(fell)
		}
	}
}

func (b *board) Installer() ota.Installer { return b.c }

func (b *board) Component(version string) (*release.Component, map[string]string) {
	return installtest.Files(b.t, conf.Component, version, map[string]string{"site.yaml": "models: [{name: m" + version + ", path: /m}]\n"})
}

// Runs is what the loader of the agent finds.
func (b *board) Runs() string {
	c, err := config.Load(b.path)
	if err != nil {
		return err.Error()
	}
	if len(c.Models) == 0 || c.Models[0].Path != "/m" {
		return ""
	}
	return strings.TrimPrefix(c.Models[0].Name, "m")
}

func TestConformance(t *testing.T) {
	t.Parallel()
	installtest.Run(t, func(t *testing.T) installtest.Subject { return newBoard(t, t.TempDir(), nil) })
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	installtest.PowerCuts(t, func(t *testing.T, root string, d disk.Disk) installtest.Subject { return newBoard(t, root, d) })
}

// TestChecked: the board's own loader decides, and a key that is read at the start only asks for one.
func TestChecked(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	stage := func(version string, files map[string]string) (string, error) {
		c, paths := installtest.Files(t, conf.Component, version, files)
		return b.c.Stage(t.Context(), c, paths)
	}
	for what, files := range map[string]map[string]string{
		"unknown key": {"a.yaml": "flet: {}\n"}, "board: is of the board": {"a.yaml": "board: all\n"}, "threads": {"a.yaml": "infer: {threads: 1000}\n"},
		"is no drop-in": {"a.yml": "log: {level: info}\n"}, "side by side": {"x/a.yaml": "log: {level: info}\n"},
	} {
		if token, err := stage("1.0", files); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %s, %v", what, token, err)
		}
	}
	token, err := stage("2.0", map[string]string{"a.yaml": "fleet: {address: \"new:1\"}\n"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.c.Switch(t.Context(), token); err != nil || r != ota.RestartProgram {
		t.Errorf("%v, %v", r, err)
	}
	if c, err := config.Load(b.path); err != nil || c.Fleet.Address != "new:1" {
		t.Errorf("%v, %+v", err, c)
	}
	if r, err := b.c.Back(t.Context(), token, "no link"); err != nil || r != ota.RestartProgram {
		t.Errorf("%v, %v", r, err)
	}
	// What fitted when it was staged may not when it is switched to.
	if token, err = stage("3.0", map[string]string{"a.yaml": "cameras: [{name: c, kind: scene, fps: 1, model: m}]\nmodels: [{name: m, path: /m}]\n"}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(config.DropInDir(b.path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config.DropInDir(b.path), "own.yaml"), []byte("models: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.c.Switch(t.Context(), token); err == nil || !strings.Contains(err.Error(), "not among the models") {
		t.Error(err)
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package models_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/models"
	"fulmar/ota/release"
)

// board has a config that names models, and a worker that runs what it is told.
type board struct {
	t      *testing.T
	o      models.Options
	m      *models.Models
	config map[string]string
	told   int
}

func newBoard(t *testing.T, root string, d disk.Disk) *board {
	t.Helper()
	b := &board{t: t, config: map[string]string{"parcels": "builtin:parcels"}}
	b.o = models.Options{
		Dir: filepath.Join(root, "models"), Disk: d,
		Configured: func(name string) string { return b.config[name] },
		Changed:    func() { b.told++ },
	}
	b.Restart(ota.RestartNone)
	return b
}

func (b *board) Restart(r ota.Restart) {
	var err error
	if b.m, err = models.Open(b.o); err != nil {
		panic(err)
	}
	if r != ota.RestartNone {
		if fell, err := b.m.Begin(); err != nil || len(fell) > 0 {
			panic(fmt.Sprint(fell, err))
		}
	}
}

func (b *board) Installer() ota.Installer {
	i, err := b.m.Installer("model/parcels")
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

func (b *board) Component(version string) (*release.Component, map[string]string) {
	return installtest.Files(b.t, "model/parcels", version, map[string]string{"model.yaml": version, "net.onnx": strings.Repeat(version, 1000)})
}

func (b *board) Runs() string {
	dir, version, ok := b.m.Path("parcels")
	if !ok {
		return ""
	}
	if got, err := os.ReadFile(filepath.Join(dir, "model.yaml")); err != nil || string(got) != version {
		return fmt.Sprintf("%q, %v", got, err)
	}
	return version
}

func TestConformance(t *testing.T) {
	t.Parallel()
	installtest.Run(t, func(t *testing.T) installtest.Subject { return newBoard(t, t.TempDir(), nil) })
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	installtest.PowerCuts(t, func(t *testing.T, root string, d disk.Disk) installtest.Subject { return newBoard(t, root, d) })
}

func (b *board) install(version string) string {
	b.t.Helper()
	c, paths := b.Component(version)
	token, err := b.Installer().Stage(b.t.Context(), c, paths)
	if err == nil {
		_, err = b.Installer().Switch(b.t.Context(), token)
	}
	if err == nil {
		err = b.Installer().Confirm(b.t.Context(), token)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// TestNewestDeedWins: a path that is changed in the config after a model came over the air
// runs, and the next update wins again; people are told each time.
func TestNewestDeedWins(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	want := func(runs, why string) {
		t.Helper()
		l := b.m.List()
		if b.Runs() != runs || len(l) != 1 || l[0].Runs != (runs != "") || !strings.Contains(l[0].Why, why) {
			t.Errorf("runs %q, %+v; wants %q because %q", b.Runs(), l, runs, why)
		}
	}
	if l := b.m.List(); b.Runs() != "" || len(l) != 0 {
		t.Error(l)
	}
	b.install("1.0")
	want("1.0", "after the config named builtin:parcels")
	b.config["parcels"] = "/srv/parcels-of-ours"
	want("", "the config was changed after it came, from builtin:parcels to /srv/parcels-of-ours")
	if v, err := b.Installer().Running(t.Context()); v != "" || err != nil {
		t.Errorf("running %q, %v", v, err)
	}
	b.Restart(ota.RestartProgram)
	want("", "was changed after")
	token := b.install("2.0")
	want("2.0", "after the config named /srv/parcels-of-ours")
	if _, err := b.Installer().Back(t.Context(), token, "worse"); err != nil {
		t.Error(err)
	}
	want("", "from builtin:parcels to /srv/parcels-of-ours") // 1.0 was from before the change
	delete(b.config, "parcels")
	want("", "to nothing")
	b.install("3.0")
	if l := b.m.List(); len(l) != 1 || l[0].Runs || !strings.Contains(l[0].Why, "names no model parcels") {
		t.Errorf("%+v", l)
	}
	if b.told != 4 {
		t.Errorf("told of %d changes", b.told)
	}
}

// TestBases: what the config's folder holds can be patched.
func TestBases(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	_, paths := b.Component("0.9")
	b.config["parcels"] = filepath.Dir(paths["net.onnx"])
	got, err := b.Installer().Base(t.Context(), installtest.Object(t, paths["net.onnx"]).SHA256)
	if err != nil || got != paths["net.onnx"] {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := b.Installer().Base(t.Context(), release.Hash{1}); !errors.Is(err, ota.ErrNoBase) {
		t.Error(err)
	}
	b.config["parcels"] = "builtin:parcels"
	if _, err := b.Installer().Base(t.Context(), release.Hash{1}); !errors.Is(err, ota.ErrNoBase) {
		t.Error(err)
	}
}

// TestShadow: without a pipeline that can, it says so and where the files lie; with one it is asked.
func TestShadow(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	c, paths := b.Component("1.0")
	token, err := b.Installer().Stage(t.Context(), c, paths)
	if err != nil {
		t.Fatal(err)
	}
	s := b.Installer().(ota.Shadower)
	if err := s.Shadow(t.Context(), token); !errors.Is(err, models.ErrNoShadow) || !strings.Contains(err.Error(), token) {
		t.Error(err)
	}
	if err := s.Shadow(t.Context(), "nobody-0123456789abcdef"); err == nil || errors.Is(err, models.ErrNoShadow) {
		t.Error(err)
	}
	if err := s.Shadow(t.Context(), ""); err != nil || b.Runs() != "" {
		t.Error(err)
	}
	beside := []string{}
	b.o.Beside = func(_ context.Context, name, dir string) error {
		beside = append(beside, name, filepath.Base(dir))
		return nil
	}
	b.Restart(ota.RestartNone)
	s = b.Installer().(ota.Shadower)
	if err := errors.Join(s.Shadow(t.Context(), token), s.Shadow(t.Context(), "")); err != nil || fmt.Sprint(beside) != fmt.Sprint([]string{"parcels", token, "parcels", "."}) {
		t.Errorf("%v, %v", err, beside)
	}
}

// TestNames: what is no model, and too many of them.
func TestNames(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	for _, name := range []string{"agent", "model/", "model/../x", "model/a/b", "model/.x"} {
		if _, err := b.m.Installer(name); err == nil {
			t.Errorf("%s has an installer", name)
		}
	}
	c, paths := installtest.Files(t, "model/parcels", "1.0", map[string]string{"net.onnx": "x"})
	if _, err := b.Installer().Stage(t.Context(), c, paths); err == nil || !strings.Contains(err.Error(), "model.yaml") {
		t.Error(err)
	}
	for i := 1; i < models.Max; i++ {
		if _, err := b.m.Installer(fmt.Sprintf("model/m%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.m.Installer("model/one-more"); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Error(err)
	}
}

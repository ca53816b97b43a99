// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tree_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/tree"
	"fulmar/ota/release"
)

const component = "model/parcels"

// board is a tree in a folder; who reads follows the link.
type board struct {
	t    *testing.T
	o    tree.Options
	tree *tree.Tree
}

func newBoard(t *testing.T, root string, d disk.Disk) *board {
	t.Helper()
	b := &board{t: t, o: tree.Options{Dir: filepath.Join(root, "parcels"), Component: component, Disk: d}}
	b.Restart(ota.RestartNone)
	return b
}

func (b *board) Installer() ota.Installer { return b.tree }

func (b *board) Restart(r ota.Restart) {
	b.t.Helper()
	var err error
	if b.tree, err = tree.Open(b.o); err != nil {
		b.t.Fatal(err)
	}
	if r == ota.RestartNone {
		return
	}
	if fell, err := b.tree.Begin(); err != nil || fell != "" {
		panic(fmt.Sprintf("begin: %s, %v", fell, err)) // a finding, where the power was cut
	}
}

func (b *board) Component(version string) (*release.Component, map[string]string) {
	return installtest.Files(b.t, component, version, map[string]string{
		"model.yaml": "version " + version, "weights/net.onnx": "weights " + version, "labels": "the same in all", "golden/a/1.txt": version,
	})
}

func (b *board) Runs() string {
	dir, version := b.tree.InForce()
	if dir == "" {
		if _, err := os.Lstat(filepath.Join(b.o.Dir, "current")); err == nil {
			b.t.Error("nothing is in force, and there is a link")
		}
		return ""
	}
	// What the choice says, what readers of the link see, and each file tell one story.
	for _, d := range []string{dir, filepath.Join(b.o.Dir, "current")} {
		for name, want := range map[string]string{"model.yaml": "version " + version, "weights/net.onnx": "weights " + version, "labels": "the same in all", "golden/a/1.txt": version} {
			if got, err := os.ReadFile(filepath.Join(d, name)); err != nil || string(got) != want {
				return fmt.Sprintf("%s of %s is %q, %v", name, d, got, err)
			}
		}
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *board) stage(version string) string {
	b.t.Helper()
	c, paths := b.Component(version)
	token, err := b.tree.Stage(b.t.Context(), c, paths)
	must(b.t, err)
	return token
}

func (b *board) install(version string) string {
	b.t.Helper()
	token := b.stage(version)
	_, err := b.tree.Switch(b.t.Context(), token)
	must(b.t, err)
	must(b.t, b.tree.Confirm(b.t.Context(), token))
	return token
}

// TestStarts: a version on trial with which the program starts over and over is gone back
// from before it is read once more.
func TestStarts(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	b.install("1.0")
	token := b.stage("2.0")
	_, err := b.tree.Switch(t.Context(), token)
	must(t, err)
	for range tree.MaxTries {
		b.Restart(ota.RestartProgram)
		if b.Runs() != "2.0" || !b.tree.OnTrial() {
			t.Fatal(b.Runs())
		}
	}
	b.tree, err = tree.Open(b.o)
	must(t, err)
	fell, err := b.tree.Begin()
	if err != nil || !strings.Contains(fell, "not confirmed in 5 starts") || b.Runs() != "1.0" {
		t.Fatalf("%q, %v, runs %s", fell, err, b.Runs())
	}
	if s, why, err := b.tree.Look(t.Context(), token); s != ota.Fallen || !strings.Contains(why, "not confirmed") || err != nil {
		t.Errorf("%v, %q, %v", s, why, err)
	}
}

// TestOverTrial: what is switched to while another one is on trial goes back to what was
// confirmed, and a confirmed one that is switched to again needs no second trial.
func TestOverTrial(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	one := b.install("1.0")
	for _, v := range []string{"2.0", "3.0"} {
		_, err := b.tree.Switch(t.Context(), b.stage(v))
		must(t, err)
	}
	_, err := b.tree.Back(t.Context(), b.stage("3.0"), "bad")
	if must(t, err); b.Runs() != "1.0" || b.tree.OnTrial() {
		t.Errorf("runs %s, on trial %v", b.Runs(), b.tree.OnTrial())
	}
	_, err = b.tree.Switch(t.Context(), b.stage("2.0"))
	must(t, err)
	_, err = b.tree.Switch(t.Context(), one)
	if must(t, err); b.Runs() != "1.0" || b.tree.OnTrial() {
		t.Errorf("runs %s, on trial %v", b.Runs(), b.tree.OnTrial())
	}
}

// TestDamage: a version with a file gone is gone back from at the next start; a damaged
// choice goes on by the link; nothing is swept on a guess.
func TestDamage(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	one, two := b.install("1.0"), b.install("2.0")
	must(t, os.WriteFile(filepath.Join(b.o.Dir, "state.json"), []byte("{}\nx"), 0o600))
	b.Restart(ota.RestartNone)
	if b.Runs() != "2.0" || b.tree.Note() == "" || b.tree.OnTrial() {
		t.Errorf("runs %s, %q", b.Runs(), b.tree.Note())
	}
	must(t, b.tree.Sweep(t.Context(), nil))
	if _, err := os.Stat(filepath.Join(b.o.Dir, one)); err != nil {
		t.Error(err)
	}
	b.Restart(ota.RestartProgram) // writes the choice anew
	if b.tree.Note() != "" {
		t.Error(b.tree.Note())
	}
	b.install("3.0")
	must(t, os.Remove(filepath.Join(b.o.Dir, "current", "labels")))
	fell, err := b.tree.Begin()
	if err != nil || fell == "" || b.Runs() != "2.0" {
		t.Errorf("%q, %v, runs %s", fell, err, b.Runs())
	}
	// With what it goes back to damaged too, nothing of it is in force.
	b.install("4.0")
	must(t, os.WriteFile(filepath.Join(b.o.Dir, two, "model.yaml"), nil, 0o600))
	must(t, os.Remove(filepath.Join(b.o.Dir, "current", "labels")))
	if fell, err := b.tree.Begin(); err != nil || !strings.Contains(fell, "to none") || b.Runs() != "" {
		t.Errorf("%q, %v, runs %s", fell, err, b.Runs())
	}
	// And the next update heals it.
	if b.install("2.0") != two || b.Runs() != "2.0" {
		t.Error(b.Runs())
	}
}

// TestShared: what is not new is not written again, and a bit that fell there is noticed.
func TestShared(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	one := b.install("1.0")
	two := b.stage("2.0")
	x, err := os.Stat(filepath.Join(b.o.Dir, one, "labels"))
	must(t, err)
	y, err := os.Stat(filepath.Join(b.o.Dir, two, "labels"))
	must(t, err)
	if !os.SameFile(x, y) {
		t.Error("labels were copied")
	}
	must(t, os.WriteFile(filepath.Join(b.o.Dir, one, "labels"), []byte("the sane in all"), 0o600))
	if _, err := b.tree.Switch(t.Context(), two); err == nil || !strings.Contains(err.Error(), "has changed on the disk") {
		t.Errorf("switched to a damaged one: %v", err)
	}
	if again := b.stage("2.0"); again != two {
		t.Error(again)
	}
	if _, err := b.tree.Switch(t.Context(), two); err != nil {
		t.Error(err)
	}
}

// TestUnpacked: a tar's files lie in its place; what is not a plain file of a clean name is refused.
func TestUnpacked(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	c, paths := b.Component("1.0")
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "one.jpg"), []byte("1"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "deep", "two.jpg"), []byte("22"), 0o600))
	object := c.Files[0].Object
	c.Files = append(c.Files, release.File{Path: "pictures/all.tar", Object: object, Unpack: true, Unpacked: 3})
	paths["pictures/all.tar"] = dir
	token, err := b.tree.Stage(t.Context(), c, paths)
	must(t, err)
	for name, want := range map[string]string{"pictures/one.jpg": "1", "pictures/deep/two.jpg": "22"} {
		if got, err := os.ReadFile(filepath.Join(b.o.Dir, token, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for what, spoil := range map[string]func(){
		"more than it says": func() { c.Files[len(c.Files)-1].Unpacked = 2 },
		"a link":            func() { must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link"))) },
		"a hidden file":     func() { must(t, os.Rename(filepath.Join(dir, "one.jpg"), filepath.Join(dir, ".component.json"))) },
	} {
		c.Version += ".1"
		spoil()
		if _, err := b.tree.Stage(t.Context(), c, paths); err == nil {
			t.Errorf("%s was staged", what)
		}
	}
}

// TestHooks: what does not fit is refused before it is in force, readers are told once, and a
// restart is asked for only where it is needed.
func TestHooks(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), nil)
	told, refuse := 0, error(nil)
	b.o.Check = func(string) error { return refuse }
	b.o.Changed = func() { told++; b.tree.InForce() }
	b.o.Restart = func(from, to string) bool { return from != "" && strings.Contains(to, "3.0-") }
	b.o.Mark = func() string { return fmt.Sprint("mark ", told) }
	b.Restart(ota.RestartNone)
	b.install("1.0")
	two := b.stage("2.0")
	refuse = errors.New("line 3: unknown key")
	if _, err := b.tree.Switch(t.Context(), two); !errors.Is(err, refuse) || b.Runs() != "1.0" || told != 1 {
		t.Errorf("%v, runs %s, told %d", err, b.Runs(), told)
	}
	c, paths := b.Component("2.1")
	if _, err := b.tree.Stage(t.Context(), c, paths); !errors.Is(err, refuse) {
		t.Error(err)
	}
	refuse = nil
	three := b.stage("3.0")
	r, err := b.tree.Switch(t.Context(), three)
	if r != ota.RestartProgram || err != nil || told != 2 || b.tree.Mark() != "mark 1" {
		t.Errorf("%v, %v, told %d, %s", r, err, told, b.tree.Mark())
	}
	if r, err := b.tree.Switch(t.Context(), three); r != ota.RestartNone || err != nil || told != 2 {
		t.Errorf("again: %v, %v, told %d", r, err, told)
	}
	if r, err := b.tree.Back(t.Context(), three, "no"); r != ota.RestartNone || err != nil || told != 3 || b.tree.Mark() != "mark 0" {
		t.Errorf("back: %v, %v, told %d, %s", r, err, told, b.tree.Mark())
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package wipe

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/agent/chip"
	"fulmar/agent/config"
	keeper "fulmar/agent/update/floor"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
	"fulmar/tpm"
	"fulmar/tpm/floor"
	"fulmar/tpm/tpmtest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// board is the data folder of a board that ran, with its key in a TPM at path, or in a
// file if that is "".
func board(t *testing.T, path string) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Data, cfg.TPM.Path = t.TempDir(), path
	files := map[string]string{
		"identity/identity.json": `{"tenant":"default","board":"dock-1"}`, "identity/identity.json.old": "x", "pictures/a.jpg": "x", "commands.journal": "x", "commands.journal.bad": "x",
		"config.last-good.yaml": "x", "engines/a": "x",
		"ota/record.a": "x", "ota/manifests/1": "x", "ota/programs.json": "x", "ota.objects/1": "x", "ota.bundle/.new": "x", "ota.hold": "x", "ota.told": "x",
		"models/parcels/1/model.onnx": "x", "models/.new/a": "x", "config/1/a.yaml": "x", "floor.lost/floor": "x",
	}
	if path == "" {
		files["identity/board.key"] = "secret"
		files["floor/floor"] = "x"
	} else {
		files["identity/"+chip.KeyFile] = "secret"
		files["floor/tpm/key.sealed"] = "x"
	}
	for name, text := range files {
		p := filepath.Join(cfg.Data, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return &cfg
}

func spool(cfg *config.Config) *storage.Spool {
	return must(storage.Open(storage.Config{Dir: cfg.SpoolDir(), Clock: schema.NewClock(1, 0), Holder: must(vault.OpenKeyFile(cfg.SpoolKeyFile()))}))
}

func left(cfg *config.Config) string {
	var names []string
	_ = filepath.WalkDir(cfg.Data, func(p string, _ os.DirEntry, _ error) error {
		rel, _ := filepath.Rel(cfg.Data, p)
		names = append(names, rel)
		return nil
	})
	return strings.Join(names, " ")
}

// A wipe wants the board's name and a board that is at rest; then all that makes it
// this board is gone, in the TPM too, and wiping again is no fault.
func TestWipe(t *testing.T) {
	t.Parallel()
	c := tpmtest.Start(t)
	counter := func() (uint64, error) {
		o := must(tpm.Open(tpm.Config{Path: c.Path(), Timeout: 10 * time.Second}))
		defer o.Close() //nolint:errcheck // a test
		return must(o.Counter(floor.Index)).Value()
	}
	for name, path := range map[string]string{"file": "", "tpm": c.Path()} {
		cfg := board(t, path)
		if path != "" {
			o := must(tpm.Open(tpm.Config{Path: path, Timeout: 10 * time.Second}))
			must(must(o.Counter(floor.Index)).Define())
			_ = o.Close()
		}
		s := spool(cfg)
		all := left(cfg)
		for _, no := range []string{"", "dock-2"} {
			if err := Board(t.Context(), cfg, no, io.Discard); err == nil || !strings.Contains(err.Error(), `"dock-1"`) {
				t.Errorf("%s: named %q: %v", name, no, err)
			}
		}
		if err := Board(t.Context(), cfg, "dock-1", io.Discard); !errors.Is(err, storage.ErrLocked) {
			t.Errorf("%s: a board that runs: %v", name, err)
		}
		if left(cfg) != all {
			t.Errorf("%s: something is gone though nothing was to be", name)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Board = "dock-1" // the file with the name goes, too
		var said bytes.Buffer
		for range 2 {
			if err := Board(t.Context(), cfg, "dock-1", &said); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if got := left(cfg); got != ". config.last-good.yaml engines engines/a models" {
			t.Errorf("%s: left are %s", name, got)
		}
		if strings.Count(said.String(), "gone: the counter") != strings.Count(name, "tpm") {
			t.Errorf("%s: said %s", name, said.String())
		}
	}
	if _, err := counter(); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("the counter: %v", err)
	}
}

// A TPM that does not answer leaves its counter with the record of the floor, which would be
// no floor without it, and nothing else; wiping again, when it answers, takes both.
func TestWipeWithoutTPM(t *testing.T) {
	t.Parallel()
	c := tpmtest.Start(t)
	o := must(tpm.Open(tpm.Config{Path: c.Path(), Timeout: 10 * time.Second}))
	must(must(o.Counter(floor.Index)).Define())
	_ = o.Close()
	cfg := board(t, filepath.Join(t.TempDir(), "none"))
	if err := Board(t.Context(), cfg, "dock-1", io.Discard); !errors.Is(err, tpm.ErrNoTPM) || !strings.Contains(err.Error(), "all else is wiped") {
		t.Error(err)
	}
	if got := left(cfg); got != ". config.last-good.yaml engines engines/a floor floor/tpm floor/tpm/key.sealed floor.lost floor.lost/floor models" {
		t.Errorf("left are %s", got)
	}
	cfg.Board, cfg.TPM.Path = "dock-1", c.Path()
	var said bytes.Buffer
	if err := Board(t.Context(), cfg, "dock-1", &said); err != nil || !strings.Contains(said.String(), "gone: the counter") {
		t.Errorf("again: %v, said %s", err, said.String())
	}
	if got := left(cfg); got != ". config.last-good.yaml engines engines/a models" {
		t.Errorf("then left are %s", got)
	}
}

// A floor of an updated board is the one that is wiped: the next identity begins with none.
func TestWipeFloor(t *testing.T) {
	t.Parallel()
	c := tpmtest.Start(t)
	for name, path := range map[string]string{"file": "", "tpm": c.Path()} {
		cfg := board(t, path)
		cfg.Board = "dock-1"
		if err := os.RemoveAll(cfg.FloorDir()); err != nil {
			t.Fatal(err)
		}
		use := func(f func(k *keeper.Keeper) error) error { // a TPM has one who uses it at a time
			ch := chip.New(path, cfg.IdentityDir(), func() time.Duration { return time.Hour }, slog.New(slog.DiscardHandler))
			defer ch.Close()
			return f(keeper.New(ch, cfg.FloorDir(), func() bool { return path != "" }))
		}
		if err := use(func(k *keeper.Keeper) error { return k.Raise(7) }); err != nil {
			t.Fatal(name, err)
		}
		if err := Board(t.Context(), cfg, "dock-1", io.Discard); err != nil {
			t.Fatal(name, err)
		}
		err := use(func(k *keeper.Keeper) error {
			n, err := k.Floor()
			if n != 0 {
				t.Errorf("%s: the floor is %d", name, n)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is overwritten is the file itself, not what another link to it names.
func TestBlank(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, hard, soft := filepath.Join(dir, "key"), filepath.Join(dir, "hard"), filepath.Join(dir, "soft")
	if err := errors.Join(os.WriteFile(file, []byte("secret"), 0o600), os.Link(file, hard), os.Symlink(hard, soft)); err != nil {
		t.Fatal(err)
	}
	if err := blank(soft); err != nil || string(must(os.ReadFile(hard))) != "secret" {
		t.Errorf("through a symbolic link: %v", err)
	}
	if err := blank(file); err != nil || bytes.Contains(must(os.ReadFile(hard)), []byte("secret")) {
		t.Errorf("the bytes are still there: %v", err)
	}
	if err := blank(file); err != nil {
		t.Error(err)
	}
}

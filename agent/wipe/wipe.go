// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wipe takes from a board all that makes it this board: keys, certificates,
// the TPM's counter, the records and pictures it keeps, and what came to it over the air but
// for its programs. What it leaves behind is a machine that has to enrol anew.
package wipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/agent/chip"
	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/agent/identity"
	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/tpm"
	"fulmar/tpm/floor"
)

// maxKeyFile bounds what is overwritten of a file: keys have under a kilobyte.
const maxKeyFile = 64 << 10

// Board wipes the board of a config; named has to repeat its name. It tells out what it
// did, in the order of doing: what could be read goes first. A board that runs is left
// alone (storage.ErrLocked). After any other error wiping again goes on.
func Board(ctx context.Context, cfg *config.Config, named string, out io.Writer) error {
	if name := Name(cfg); named == "" || named != name {
		return fmt.Errorf("this is board %q and not %q: repeat its name", name, named)
	}
	if err := storage.Wipe(cfg.SpoolDir()); err != nil {
		return err
	}
	fmt.Fprintln(out, "gone: the records it kept, and the keys to them")
	// A wipe before this one, which did not get at the TPM, has left no key but the floor.
	inTPM := identity.Where(cfg.IdentityDir(), cfg.Key.Mode) == schema.KeyTPM || counted(cfg)
	counterErr := deleteCounter(ctx, cfg, inTPM, out)
	if err := blank(cfg.SpoolKeyFile()); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(cfg.IdentityDir(), "*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		if err := blank(path); err != nil {
			return err
		}
	}
	journal := filepath.Join(cfg.Data, commands.JournalName) // who wanted what of this board
	for _, dir := range []string{cfg.IdentityDir(), cfg.BlobDir(), journal, journal + ".bad", journal + ".lock"} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("wipe: %w", err)
		}
	}
	if err := forgetUpdates(cfg, counterErr == nil); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(cfg.Data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wipe: %w", err)
	}
	fmt.Fprintln(out, "gone: its keys, its certificate, its pictures and what was asked of it")
	fmt.Fprintln(out, "gone: models and config that came over the air, and what it knew of updates")
	fmt.Fprintln(out, "kept: its programs, its own config, engines built on it, and what the fleet has of it (fulmar board wipe, at a desk)")
	if inTPM {
		fmt.Fprintln(out, "a copy of the disk made before this is of use with this TPM only; tpm2_clear makes it useless there, too, with all else that other programs keep in the TPM")
	} else {
		fmt.Fprintln(out, "flash keeps old copies of a deleted key: revoke the board at the fleet, and destroy the card if it was worth stealing")
	}
	return counterErr
}

// counted tells whether the floor of updates is one by a counter in the TPM.
func counted(cfg *config.Config) bool {
	for _, name := range []string{"tpm", "tpm.new"} {
		if _, err := os.Lstat(filepath.Join(cfg.FloorDir(), name)); err == nil {
			return true
		}
	}
	return false
}

// forgetUpdates removes what updates keep: the record and what they bring, models and config
// that came by them, and the floor. That one stays where its counter in the TPM is still there:
// a counter without its record is a floor that was tampered with, and the record is what the
// next wipe knows of the counter.
func forgetUpdates(cfg *config.Config, withFloor bool) error {
	// Beside the folder ota: ota.objects, ota.bundle, ota.hold, ota.told. The folder of models
	// itself stays: the worker's sandbox has it mounted.
	patterns := []string{"ota", "ota.*", "config", filepath.Join("models", "*"), filepath.Join("models", ".*")}
	if withFloor {
		patterns = append(patterns, "floor", "floor.lost")
	}
	for _, p := range patterns {
		paths, err := filepath.Glob(filepath.Join(cfg.Data, p))
		for _, path := range paths {
			err = errors.Join(err, os.RemoveAll(path))
		}
		if err != nil {
			return fmt.Errorf("wipe: %w", err)
		}
	}
	return nil
}

// Name is the board's name: as its config says, or as the fleet called it; "" if neither.
func Name(cfg *config.Config) string {
	if cfg.Board != "" {
		return cfg.Board
	}
	b, err := os.ReadFile(filepath.Join(cfg.IdentityDir(), identity.File))
	var r schema.EnrolReply
	if err != nil || json.Unmarshal(b, &r) != nil || schema.CheckBoard(r.Board) != nil {
		return ""
	}
	return r.Board
}

// deleteCounter takes the counter of the board's floor out of its TPM, if it has one.
func deleteCounter(ctx context.Context, cfg *config.Config, inTPM bool, out io.Writer) error {
	if !inTPM {
		return nil
	}
	c := chip.New(cfg.TPM.Path, cfg.IdentityDir(), func() time.Duration { return chip.Patience }, slog.New(slog.DiscardHandler))
	defer c.Close()
	_, err := chip.Use(ctx, c, chip.Slow, func(t *tpm.TPM) (struct{}, error) {
		n, err := t.Counter(floor.Index)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, n.Delete()
	})
	switch {
	case errors.Is(err, tpm.ErrMissing):
		return nil
	case err != nil:
		return fmt.Errorf("all else is wiped, but not the counter in the TPM and the record of the lowest release beside it, which hold no secret; wipe again when the TPM answers: %w", err)
	}
	fmt.Fprintln(out, "gone: the counter of its floor, in the TPM")
	return nil
}

// blank overwrites a small file that may hold a key, and removes it. On flash that is
// no more than good will.
func blank(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		var st fs.FileInfo
		if st, err = f.Stat(); err == nil && st.Mode().IsRegular() {
			_, err = f.Write(make([]byte, min(st.Size(), maxKeyFile)))
			err = errors.Join(err, f.Sync())
		}
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// What cannot be overwritten (a link, a full disk) is removed all the same.
	if gone := os.Remove(path); gone != nil {
		return fmt.Errorf("wipe %s: %w", path, errors.Join(err, gone))
	}
	return nil
}

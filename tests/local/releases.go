// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ReleaseKey is the private key that signs releases for this site.
func (s *Site) ReleaseKey() string { return filepath.Join(s.Dir, "release.pem") }

// TakeReleases has the fleet, which runs, take releases of a key that is made here: once, and
// it is started anew for it. A key that lies beside its fleet is for trying alone: docs/keys.md.
func (s *Site) TakeReleases(ctx context.Context) error {
	if _, err := os.Stat(s.ReleaseKey()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Under another name until the fleet has it: what was cut is begun anew.
	draft, public := s.ReleaseKey()+".new", filepath.Join(s.Dir, "release.pub")
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := s.fulmar("key", "new", "--out", draft); err != nil {
		return err
	}
	pem, err := s.fulmar("key", "public", "file:"+draft)
	if err == nil {
		err = os.WriteFile(public, []byte(pem), 0o600)
	}
	if err != nil {
		return err
	}
	if _, err := s.fleetCommand("keys", "add-release", public); err != nil {
		return err
	}
	if err := os.Rename(draft, s.ReleaseKey()); err != nil {
		return err
	}
	// It reads its key set when it starts.
	if _, err := s.Fleet.Stop(); err != nil {
		return err
	}
	return s.StartFleet(ctx)
}

// fulmar runs a command of people and gives what it printed.
func (s *Site) fulmar(args ...string) (string, error) {
	out, err := exec.Command(filepath.Join(s.Bin, "fulmar"), args...).Output()
	if err != nil {
		why := ""
		if e := new(exec.ExitError); errors.As(err, &e) {
			why = string(e.Stderr)
		}
		return "", fmt.Errorf("fulmar %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(why))
	}
	return string(out), nil
}

// Desk writes a file that makes fulmar ask this site as an administrator in a shell that has
// read it, and gives its path.
func (s *Site) Desk() (string, error) {
	token, err := s.fleetCommand("api-token", "--scope", "admin", "--for", "24h")
	if err != nil {
		return "", err
	}
	pin, err := s.Pin()
	if err != nil {
		return "", err
	}
	path, file := filepath.Join(s.Dir, "token"), filepath.Join(s.Dir, "desk")
	text := fmt.Sprintf("export FULMAR_FLEET='%s' FULMAR_PIN='%s' FULMAR_TOKEN_FILE='%s'\n", s.HTTPS, pin, path)
	return file, errors.Join(os.WriteFile(path, []byte(token+"\n"), 0o600), os.WriteFile(file, []byte(text), 0o600))
}

// Version is that of the fulmard that was built.
func (s *Site) Version() (string, error) {
	out, err := exec.Command(filepath.Join(s.Bin, "fulmard"), "version").Output()
	return strings.TrimSpace(strings.TrimPrefix(string(out), "fulmard")), err
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package conf brings the component config into force: drop-ins that are read over the
// config file of the board and under the drop-ins that people put beside it. They are
// checked before they are switched to, and read without a restart where no key of them
// wants one.
package conf

import (
	"context"
	"fmt"
	"strings"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/tree"
	"fulmar/ota/release"
)

// Component is its name.
const Component = "config"

// Bounds of what is read at a start, as package agent/config has them.
const (
	maxFiles = 32
	maxBytes = 512 << 10
)

// Options are what the config needs.
type Options struct {
	Dir string // DATA/config; its link current is what the loader reads
	// Check loads the board's config with a folder in the place of the one in force.
	Check func(dir string) error
	// Restart tells that a key differs between two folders that is read at the start only.
	Restart func(from, to string) bool
	Changed func()    // reload
	Disk    disk.Disk // nil is the machine's
}

// Config is the installer.
type Config struct{ *tree.Tree }

// Open reads which version is in force. It changes nothing.
func Open(o Options) (*Config, error) {
	t, err := tree.Open(tree.Options{Dir: o.Dir, Component: Component, Check: o.Check, Restart: o.Restart, Changed: o.Changed, Disk: o.Disk})
	if err != nil {
		return nil, err
	}
	return &Config{t}, nil
}

// Stage implements [ota.Installer].
func (c *Config) Stage(ctx context.Context, rc *release.Component, paths map[string]string) (string, error) {
	total := int64(0)
	for i := range rc.Files {
		f := &rc.Files[i]
		if f.Unpack || strings.Contains(f.Path, "/") || !strings.HasSuffix(f.Path, ".yaml") {
			return "", fmt.Errorf("stage config: %s is no drop-in: wants NAME.yaml, side by side", f.Path)
		}
		total += f.Size
	}
	if len(rc.Files) > maxFiles || total > maxBytes {
		return "", fmt.Errorf("stage config: %d files of %d bytes, at most %d and %d", len(rc.Files), total, maxFiles, maxBytes)
	}
	return c.Tree.Stage(ctx, rc, paths)
}

var _ ota.Installer = (*Config)(nil)

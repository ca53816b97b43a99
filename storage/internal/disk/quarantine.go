// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// quarantineMax bounds the damaged files that are kept for a look.
const quarantineMax = 2

// Quarantine moves a damaged file into dir under a new name and removes the
// oldest files there above two. A file that is gone is no error.
func Quarantine(path, dir, name string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := os.Rename(path, filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("quarantine: %w", err)
	}
	return trimQuarantine(dir)
}

// trimQuarantine removes the oldest files above quarantineMax.
func trimQuarantine(dir string) error {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	type old struct {
		path string
		at   time.Time
	}
	var files []old
	for _, e := range ents {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && strings.HasSuffix(e.Name(), ".db") {
			files = append(files, old{filepath.Join(dir, e.Name()), fi.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b old) int { return a.at.Compare(b.at) })
	for i := range max(0, len(files)-quarantineMax) {
		if err := os.Remove(files[i].path); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("quarantine: %w", err)
		}
	}
	return nil
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

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

// quarantine moves the i-th segment, which cannot be opened, out of the chain.
// Its numbers must have been told as lost before.
func (c *class) quarantine(i int) error {
	sg := c.segs[i]
	c.closeReader()
	if i == len(c.segs)-1 {
		c.mu.Lock()
		first := c.durable + 1
		c.mu.Unlock()
		if err := c.roll(first); err != nil {
			return err
		}
		if c.active().path == sg.path { // it held nothing and has been replaced
			return nil
		}
	}
	return c.shelve(i)
}

// shelve moves the file of the i-th segment to quarantine.
func (c *class) shelve(i int) error {
	sg := c.segs[i]
	dir := filepath.Join(c.s.cfg.Dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("quarantine segment: %w", err)
	}
	if err := os.Rename(sg.path, filepath.Join(dir, c.id.String()+"-"+filepath.Base(sg.path))); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("quarantine segment: %w", err)
	}
	c.segs = slices.Delete(c.segs, i, i+1)
	c.mu.Lock()
	c.stats.Quarantined++
	c.mu.Unlock()
	c.publish()
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

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/steps"
	"fulmar/ota/table"
)

// sweep is what is to be removed after an update.
type sweep struct {
	component string // "" none
	manifest  *release.Manifest
	patches   []release.Patch
}

// sweep removes what no update in work or waiting needs.
func (m *machine) sweep(ctx context.Context, s sweep) steps.Outcome {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	r := m.rec.Load() // nothing that is begun later is touched: it begins after this
	var errs []error
	var c *release.Component
	if s.manifest != nil {
		c = s.manifest.Component(s.component)
	}
	if w := r.Work; w == nil || w.State == string(table.Offered) {
		errs = append(errs, m.bring.Forget(c, s.patches))
	}
	if inst := m.deps.Installer(s.component); s.component != "" && inst != nil {
		var keep []string
		if mem := r.Components[s.component]; mem != nil {
			for _, v := range []*record.Version{mem.Runs, mem.Past, mem.Shadow} {
				if v != nil && v.Token != "" {
					keep = append(keep, v.Token)
				}
			}
		}
		if w := r.Work; w != nil && w.Component == s.component && w.Token != "" {
			keep = append(keep, w.Token)
		}
		errs = append(errs, inst.Sweep(ctx, keep))
	}
	if err := errors.Join(errs...); err != nil {
		m.deps.Log.Warn("what an update left could not all be removed; the next one tries again", "err", err)
	}
	return steps.Outcome{}
}

// sweepManifests removes those of orders that are over. It is the loop's own: a manifest is
// there before its order is in the record.
func (m *machine) sweepManifests() {
	r := m.rec.Load()
	keep := map[string]bool{}
	if r.Work != nil {
		keep[r.Work.Hash.String()] = true
	}
	for i := range r.Queue {
		keep[r.Queue[i].Hash.String()] = true
	}
	ents, err := os.ReadDir(m.manifests())
	for _, e := range ents {
		if !keep[e.Name()] {
			err = errors.Join(err, m.deps.Disk.RemoveAll(filepath.Join(m.manifests(), e.Name())))
		}
	}
	if err != nil {
		m.deps.Log.Warn("manifests of updates that are over could not be removed", "err", err)
	}
}

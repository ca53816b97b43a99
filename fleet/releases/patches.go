// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/registry/releaserows"
	"fulmar/ota/release"
	"fulmar/schema/rest"
)

// Bounds of patches.
const (
	// lookEvery is how often it is looked for patches to make where nothing else wakes it:
	// boards come that run something else.
	lookEvery = 10 * time.Minute
	// makeLimit bounds the making of one: 256 MiB of a program take some minutes.
	makeLimit = time.Hour
	// againAfter is how long one that failed is left alone.
	againAfter = time.Hour
	// maxBases bounds the releases for which patches to one file are made: those that most
	// boards run. A directive has room for patches of 16 files.
	maxBases = 8
	// worth is the share of what there is that a patch has to stay under.
	worth = 0.9
	// patchShare is the part of all objects' bytes that patches may take.
	patchShare = 4
	// largest is the longest file that one is made of, as ota/delta/make has it.
	largest = 1 << 30
	// packed is the codec that needs no base: where nothing else is shorter.
	packed = "zstd"
)

// Maker makes a patch from base to target into out, and tells its codec.
type Maker func(ctx context.Context, base, target, out *os.File) (codec string, err error)

// pair is two files by their SHA-256.
type pair struct{ was, became release.Hash }

const (
	waiting = "waiting"
	making  = "making"
	made    = "made"
	failed  = "failed"
	useless = "useless"
)

// patch is one patch; its row is written when it is made or useless.
type patch struct {
	row   releaserows.Patch
	state string
	due   due
}

func (p *patch) object() release.Object {
	return release.Object{SHA256: p.row.SHA, Size: p.row.Size, Tree: p.row.Tree}
}

// due is a patch that is wanted.
type due struct {
	pair
	tenant, component, path, from string
	base, target                  release.Object
	full                          int64
	boards                        int
}

func (x *Releases) keepPatch(r releaserows.Patch) {
	state := useless
	if r.Size > 0 {
		state = made
	}
	x.patches[pair{r.Was, r.Became}] = &patch{row: r, state: state}
}

// Wake has it looked for patches to make: a rollout was planned, or a release is here.
func (x *Releases) Wake() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run makes patches, one at a time, for files of releases that rollouts want, from those
// that boards run. No rollout waits for one: without it boards take the whole file.
func (x *Releases) Run(ctx context.Context) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		for x.cfg.Maker != nil {
			d, ok := x.next(ctx)
			if !ok {
				break
			}
			x.make(ctx, d)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-x.wake:
		}
	}
}

// next looks for what most boards would gain from, and notes all that is wanted as waiting.
func (x *Releases) next(ctx context.Context) (due, bool) {
	if ctx.Err() != nil {
		return due{}, false
	}
	var all []due
	for _, tenant := range x.tenants() {
		running, err := x.cfg.Running(ctx, tenant)
		if err != nil {
			x.cfg.Log.Warn("not looked for patches to make", "tenant", tenant, "error", err.Error())
			continue
		}
		for _, e := range x.list(tenant) {
			if !e.row.Ready.IsZero() && e.trusted && len(x.cfg.Uses(tenant, e.row.Name)) > 0 {
				all = append(all, x.wanted(e, running)...)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b due) int { return cmp.Compare(b.boards, a.boards) })
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	var first *due
	for i := range all {
		d := &all[i]
		p := x.patches[d.pair]
		if p == nil || p.state == failed && now.Sub(p.row.At) > againAfter {
			p = &patch{state: waiting, row: releaserows.Patch{Was: d.was, Became: d.became, At: now.UTC()}, due: *d}
			x.patches[d.pair] = p
		}
		if p.state == waiting && first == nil {
			first = d
		}
	}
	if first == nil {
		return due{}, false
	}
	x.patches[first.pair].state = making
	return *first, true
}

func (x *Releases) tenants() (out []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.by {
		if !slices.Contains(out, k.tenant) {
			out = append(out, k.tenant)
		}
	}
	return out
}

// wanted lists the patches to a release's files from what boards run.
func (x *Releases) wanted(e *entry, running map[string]map[string]int) (out []due) {
	others := x.list(e.row.Tenant)
	for i := range e.manifest.Components {
		c := &e.manifest.Components[i]
		bases := 0
		for _, is := range most(running[c.Name]) {
			if e.runs(c, is.Release) || bases == maxBases {
				continue
			}
			from := base(others, c.Name, is.Release)
			if from == nil {
				continue
			}
			bases++
			for j := range c.Files {
				if d, ok := between(from, e, c, &c.Files[j], is.Boards); ok {
					out = append(out, d)
				}
			}
		}
	}
	return out
}

// most sorts what boards run, most first.
func most(by map[string]int) (out []rest.ReleaseRuns) {
	for name, n := range by {
		out = append(out, rest.ReleaseRuns{Release: name, Boards: n})
	}
	slices.SortFunc(out, func(a, b rest.ReleaseRuns) int {
		return cmp.Or(cmp.Compare(b.Boards, a.Boards), strings.Compare(a.Release, b.Release))
	})
	return out
}

// base finds the release whose component boards say they run; its objects have to be here.
func base(list []*entry, component, says string) *entry {
	for _, e := range list {
		if c := e.manifest.Component(component); c != nil && !e.row.Ready.IsZero() && e.runs(c, says) {
			return e
		}
	}
	return nil
}

// between tells whether a patch from the file of the same path is to be made: not where
// the manifest has one.
func between(from, to *entry, c *release.Component, f *release.File, boards int) (due, bool) {
	d := due{tenant: to.row.Tenant, component: c.Name, path: f.Path, from: from.row.Name, target: f.Object, full: shortest(f), boards: boards}
	old := from.manifest.Component(c.Name)
	i := slices.IndexFunc(old.Files, func(o release.File) bool { return o.Path == f.Path })
	if i < 0 || old.Files[i].SHA256 == f.SHA256 || f.Size > largest || old.Files[i].Size > largest {
		return d, false
	}
	d.base, d.pair = old.Files[i].Object, pair{old.Files[i].SHA256, f.SHA256}
	return d, !slices.ContainsFunc(f.Encodings, func(e release.Encoding) bool { return e.From != nil && *e.From == d.was })
}

// make makes one patch and notes what became of it.
func (x *Releases) make(ctx context.Context, d due) {
	started := time.Now()
	row, err := x.made(ctx, d)
	x.mu.Lock()
	p := x.patches[d.pair]
	if p == nil {
		x.mu.Unlock()
		return
	}
	p.row, x.ready = row, nil
	switch {
	case ctx.Err() != nil:
		delete(x.patches, d.pair) // begun anew at the next start
	case err != nil:
		p.state, p.row.Say = failed, err.Error()
		x.cfg.Log.Warn("patch not made", "component", d.component, "from", d.from, "error", err.Error())
	case row.Size == 0:
		p.state = useless
	default:
		p.state = made
		x.cfg.Log.Info("patch made", "component", d.component, "path", d.path, "from", d.from, "bytes", row.Size, "full", d.full, "took", time.Since(started).Round(time.Millisecond).String())
	}
	x.mu.Unlock()
	if err := x.trim(ctx, d.pair); err != nil {
		x.cfg.Log.Warn("old patches not removed", "error", err.Error())
	}
}

func (x *Releases) made(ctx context.Context, d due) (row releaserows.Patch, err error) {
	row = releaserows.Patch{Was: d.was, Became: d.became, At: time.Now().UTC().Truncate(time.Millisecond)}
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	was, err := x.cfg.Objects.Open(d.base.Tree)
	if err != nil {
		return row, err
	}
	defer was.Close() //nolint:errcheck // only read
	became, err := x.cfg.Objects.Open(d.target.Tree)
	if err != nil {
		return row, err
	}
	defer became.Close() //nolint:errcheck // only read
	path := filepath.Join(x.cfg.Dir, fmt.Sprintf("patch-%s-%s", d.was.String()[:16], d.became.String()[:16]))
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return row, err
	}
	defer func() { _ = os.Remove(path) }() // where it was taken over it is gone
	if row.Codec, err = x.cfg.Maker(ctx, was, became, out); err != nil {
		return row, errors.Join(err, out.Close())
	}
	if _, err = out.Seek(0, 0); err != nil {
		return row, errors.Join(err, out.Close())
	}
	o, _, err := release.Describe(out)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return row, err
	}
	if float64(o.Size) > worth*float64(d.full) {
		row.Say = fmt.Sprintf("%d bytes, and without it %d", o.Size, d.full)
		return row, x.cfg.Rows.PutPatch(ctx, row)
	}
	if !x.cfg.Objects.Has(o.Tree) {
		if err := x.cfg.Objects.Put(ctx, o, path); err != nil {
			return row, err
		}
	}
	row.SHA, row.Tree, row.Size = o.SHA256, o.Tree, o.Size
	return row, x.cfg.Rows.PutPatch(ctx, row)
}

// trim removes the oldest patches, but for one, where they take more than their part.
func (x *Releases) trim(ctx context.Context, keep pair) error {
	x.mu.Lock()
	var sum int64
	var list []*patch
	for k, p := range x.patches {
		if sum += p.row.Size; p.state == made && k != keep {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *patch) int { return a.row.At.Compare(b.row.At) })
	var rows []releaserows.Patch
	for _, p := range list {
		if sum <= x.cfg.Bytes/patchShare {
			break
		}
		sum -= p.row.Size
		rows = append(rows, p.row)
		delete(x.patches, pair{p.row.Was, p.row.Became})
		x.ready = nil
	}
	x.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	errs := []error{x.cfg.Rows.DropPatches(ctx, rows)}
	for _, r := range rows {
		errs = append(errs, x.cfg.Objects.Remove(r.Tree))
	}
	return errors.Join(errs...)
}

// Patches gives what was made for a board that says what it runs.
func (w *Wanted) Patches(x *Releases, says string) (out []release.Patch) {
	from := base(x.list(w.entry.row.Tenant), w.Component.Name, says)
	if from == nil {
		return nil
	}
	for i := range w.Component.Files {
		f := &w.Component.Files[i]
		d, ok := between(from, w.entry, w.Component, f, 0)
		if !ok || len(out) == release.MaxPatches {
			continue
		}
		x.mu.Lock()
		p := x.patches[d.pair]
		if p != nil && p.state == made {
			e := release.Encoding{Codec: p.row.Codec, From: &d.was, Object: p.object()}
			if e.Codec == packed {
				e.From = nil
			}
			out = append(out, release.Patch{To: f.SHA256, Encoding: e})
		}
		x.mu.Unlock()
	}
	return out
}

// patchesOf shows the patches to a release.
func (x *Releases) patchesOf(e *entry, running map[string]map[string]int) (out []rest.ReleasePatch) {
	others := x.list(e.row.Tenant)
	for i := range e.manifest.Components {
		c := &e.manifest.Components[i]
		for _, from := range others {
			if from.row.Name == e.row.Name || from.row.Ready.IsZero() || from.manifest.Component(c.Name) == nil {
				continue
			}
			n := 0
			for is, boards := range running[c.Name] {
				if from.runs(from.manifest.Component(c.Name), is) {
					n += boards
				}
			}
			for j := range c.Files {
				d, ok := between(from, e, c, &c.Files[j], n)
				x.mu.Lock()
				if p := x.patches[d.pair]; ok && p != nil {
					out = append(out, rest.ReleasePatch{
						Component: c.Name, Path: d.path, From: d.from, Boards: n, State: p.state, Bytes: p.row.Size, Full: d.full, Codec: p.row.Codec, Say: p.row.Say, At: p.row.At,
					})
				}
				x.mu.Unlock()
			}
		}
	}
	return out
}

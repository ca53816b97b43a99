// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"fulmar/fleet/access"
	"fulmar/internal/ustar"
	"fulmar/ota/release"
	"fulmar/schema/rest"
)

// runsShown bounds what is shown of what boards run.
const runsShown = 20

// raw is the way of a file that travels as it is.
const raw = "raw"

// List gives a tenant's releases, newest first, without the objects that are missing.
func (x *Releases) List(ctx context.Context, by access.Caller) ([]rest.Release, error) {
	if err := by.May(rest.BoardsRead); err != nil {
		return nil, err
	}
	running, err := x.cfg.Running(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	out := []rest.Release{}
	for _, e := range x.list(by.Tenant) {
		out = append(out, *x.viewed(e, false, running))
	}
	return out, nil
}

// Get gives one.
func (x *Releases) Get(ctx context.Context, by access.Caller, name string) (*rest.Release, error) {
	if err := by.May(rest.BoardsRead); err != nil {
		return nil, err
	}
	e, err := x.find(by.Tenant, name)
	if err != nil {
		return nil, err
	}
	return x.view(ctx, e, true)
}

// view looks a release up; whole with what is missing, with patches and who uses it.
func (x *Releases) view(ctx context.Context, e *entry, whole bool) (*rest.Release, error) {
	running, err := x.cfg.Running(ctx, e.row.Tenant)
	if err != nil {
		return nil, err
	}
	v := x.viewed(e, whole, running)
	if whole {
		v.InUse = x.cfg.Uses(e.row.Tenant, e.row.Name)
		v.Patches = x.patchesOf(e, running)
	}
	return v, nil
}

// viewed is a release as people see it.
func (x *Releases) viewed(e *entry, whole bool, running map[string]map[string]int) *rest.Release {
	v := &rest.Release{
		Release: e.row.Name, State: rest.ReleaseReady, Epoch: e.row.Epoch, Notes: e.manifest.Notes, Manifest: release.Hash(e.row.Hash).String(),
		Signers: append([]string{}, e.signers...), Trusted: e.trusted, Author: e.row.Actor, Created: e.row.Created,
	}
	if e.row.Ready.IsZero() {
		v.State = rest.ReleaseIncomplete
	}
	for o := range objects(e.manifest) {
		has := x.have(o)
		v.Bytes += o.Size
		v.Have += has.Have
		if whole && !has.Done {
			v.Missing = append(v.Missing, has)
		}
	}
	for i := range e.manifest.Components {
		c := &e.manifest.Components[i]
		one := rest.ReleaseComponent{Name: c.Name, Version: c.Version, Files: len(c.Files), Needs: needs(&c.Needs), Ways: x.ways(e.row.Tenant, c)}
		for j := range c.Files {
			one.Bytes += c.Files[j].Size
			one.Travel += shortest(&c.Files[j])
		}
		for is, n := range running[c.Name] {
			if e.runs(c, is) {
				one.Boards += n
			}
			one.Runs = append(one.Runs, rest.ReleaseRuns{Release: is, Boards: n})
		}
		slices.SortFunc(one.Runs, func(a, b rest.ReleaseRuns) int {
			return cmp.Or(cmp.Compare(b.Boards, a.Boards), strings.Compare(a.Release, b.Release))
		})
		one.Runs = one.Runs[:min(len(one.Runs), runsShown)]
		v.Boards = max(v.Boards, one.Boards)
		v.Components = append(v.Components, one)
	}
	return v
}

// runs tells whether what a board says it runs of a component is of this release: programs
// tell their version, updates the release.
func (e *entry) runs(c *release.Component, says string) bool {
	return says == e.row.Name || says == c.Version
}

// shortest is what a file costs a board that has nothing.
func shortest(f *release.File) int64 {
	n := f.Size
	for i := range f.Encodings {
		if f.Encodings[i].From == nil {
			n = min(n, f.Encodings[i].Size)
		}
	}
	return n
}

// ways sums the ways of a component's files, each over the files that have it.
func (x *Releases) ways(tenant string, c *release.Component) []rest.ReleaseWay {
	type way struct{ codec, from string }
	by, whole := map[way]int64{}, map[way]int64{}
	for i := range c.Files {
		f := &c.Files[i]
		by[way{raw, ""}] += f.Size
		whole[way{raw, ""}] += f.Size
		for j := range f.Encodings {
			w := way{f.Encodings[j].Codec, ""}
			if from := f.Encodings[j].From; from != nil {
				w.from = x.nameOf(tenant, *from)
			}
			by[w] += f.Encodings[j].Size
			whole[w] += f.Size
		}
	}
	out := make([]rest.ReleaseWay, 0, len(by))
	for w, n := range by {
		out = append(out, rest.ReleaseWay{Codec: w.codec, From: w.from, Bytes: n, Share: float64(n) / float64(whole[w])})
	}
	slices.SortFunc(out, func(a, b rest.ReleaseWay) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), strings.Compare(a.Codec, b.Codec), strings.Compare(a.From, b.From))
	})
	return out
}

// nameOf gives the release that has a file; its hash where none has.
func (x *Releases) nameOf(tenant string, sha release.Hash) string {
	for _, e := range x.list(tenant) {
		if e.has(sha) {
			return e.row.Name
		}
	}
	return sha.String()
}

// needs puts what a component needs into a sentence.
func needs(n *release.Needs) string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if n.Arch != "" {
		add("%s", n.Arch)
	}
	if n.Board != "" {
		add("%s", n.Board)
	}
	switch {
	case n.L4TMin != "" && n.L4TMax != "":
		add("L4T %s to %s", n.L4TMin, n.L4TMax)
	case n.L4TMin != "":
		add("L4T %s or later", n.L4TMin)
	case n.L4TMax != "":
		add("L4T up to %s", n.L4TMax)
	}
	if n.TensorRT != "" {
		add("TensorRT %s or later", n.TensorRT)
	}
	for _, name := range slices.Sorted(maps.Keys(n.Components)) {
		add("%s %s or later", name, n.Components[name])
	}
	if n.Space > 0 {
		add("%d MiB free", (n.Space+1<<20-1)>>20)
	}
	return strings.Join(out, ", ")
}

func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// unpacked lists the SHA-256 of what packed files hold, by component: what an attested
// report names may be one of them.
func (x *Releases) unpacked(ctx context.Context, m *release.Manifest) (map[string][]string, error) {
	out := map[string][]string{}
	for i := range m.Components {
		c := &m.Components[i]
		for j := range c.Files {
			f := &c.Files[j]
			if !f.Unpack {
				continue
			}
			sums, err := x.inside(ctx, f)
			if err != nil {
				return nil, fmt.Errorf("%w: component %s: file %s: %w", ErrWrong, c.Name, f.Path, err)
			}
			out[c.Name] = append(out[c.Name], sums...)
		}
	}
	return out, nil
}

func (x *Releases) inside(ctx context.Context, f *release.File) (sums []string, err error) {
	o, err := x.cfg.Objects.Open(f.Tree)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	r := ustar.NewReader(io.NewSectionReader(o, 0, f.Size), ustar.Limits{Files: release.MaxFiles, Total: f.Unpacked, Name: release.CleanPath})
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return sums, nil
		} else if err != nil {
			return nil, err
		}
		h := sha256.New()
		if _, err := io.Copy(h, &guarded{ctx, r}); err != nil {
			return nil, err
		}
		sums = append(sums, hex.EncodeToString(h.Sum(nil)))
	}
}

// guarded ends a long read with its context.
type guarded struct {
	ctx context.Context
	r   io.Reader
}

func (g *guarded) Read(b []byte) (int, error) {
	if err := g.ctx.Err(); err != nil {
		return 0, err
	}
	return g.r.Read(b)
}

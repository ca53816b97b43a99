// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"fulmar/cmd/fulmar/here"
	"fulmar/ota/delta"
	maker "fulmar/ota/delta/make"
	rel "fulmar/ota/release"
)

const (
	// A way to bring a file costs a board some 300 bytes of manifest, so it has to save
	// more than that, and a patch a tenth of what it stands for.
	minSaved   = 512
	patchShare = 0.9
)

// openAll opens the earlier releases.
func openAll(names []string) (out []*source, err error) {
	for _, n := range names {
		s, err := open(n)
		if err == nil {
			err = s.index()
		}
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func closeAll(list []*source) {
	for _, s := range list {
		s.Close()
	}
}

// encodings makes the ways in which a file can travel, the shortest first: a board takes the
// first that fits what it has. Each was applied once when it was made.
func (k *creating) encodings(ctx context.Context, component string, f *rel.File, target *io.SectionReader, old []*source) ([]rel.Encoding, error) {
	if f.Size < 2*minSaved || f.Size > maker.MaxFile {
		return nil, nil
	}
	var out []rel.Encoding
	k.say.step("%s/%s, %s: packed by zstd", component, f.Path, size(f.Size))
	best := f.Size
	p, err := maker.Make(ctx, delta.Zstd, nil, target)
	if err != nil {
		return nil, err
	}
	if int64(len(p.Bytes))+minSaved <= f.Size {
		best = int64(len(p.Bytes))
		e, err := k.encoding(p, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	if f.Unpack {
		return out, nil // boards keep no tar to apply a patch to
	}
	seen := map[rel.Hash]bool{f.SHA256: true}
	for _, s := range old {
		base := baseOf(s.m, component, f.Path)
		if base == nil || seen[base.SHA256] || base.Size > maker.MaxFile {
			continue
		}
		seen[base.SHA256] = true
		k.say.step("%s/%s, %s: patch from %s", component, f.Path, size(f.Size), s.m.Release)
		p, err := k.patch(ctx, s, base, target)
		if err != nil {
			return nil, fmt.Errorf("patch from %s: %w", s.name, err)
		}
		if p == nil || float64(len(p.Bytes)) > patchShare*float64(best) || int64(len(p.Bytes))+minSaved > best {
			continue
		}
		e, err := k.encoding(p, &base.SHA256)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b rel.Encoding) int { return cmp.Compare(a.Size, b.Size) })
	return out, nil
}

// baseOf is the file of an earlier release in this place.
func baseOf(m *rel.Manifest, component, path string) *rel.File {
	c := m.Component(component)
	if c == nil {
		return nil
	}
	for i := range c.Files {
		if c.Files[i].Path == path && !c.Files[i].Unpack {
			return &c.Files[i]
		}
	}
	return nil
}

// patch makes the shortest one; nil where the whole file, packed, is shorter.
func (k *creating) patch(ctx context.Context, s *source, base *rel.File, target *io.SectionReader) (*maker.Patch, error) {
	r, err := s.whole(ctx, base)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	p, err := maker.Make(ctx, maker.Auto, r.SectionReader, target)
	if err != nil {
		return nil, err
	}
	if p.Codec == delta.Zstd {
		return nil, nil
	}
	if rel.Hash(p.Base.SHA256) != base.SHA256 {
		return nil, errors.New("its file is not what its manifest says; fulmar release verify tells more")
	}
	return p, nil
}

// whole gives a file as it is, out of its zstd form where a bundle has only that.
func (s *source) whole(ctx context.Context, f *rel.File) (*object, error) {
	r, err := s.object(f.Object)
	if !errors.Is(err, errNoObject) {
		return r, err
	}
	for _, e := range f.Encodings {
		if e.Codec != delta.Zstd {
			continue
		}
		z, err := s.object(e.Object)
		if err != nil {
			return nil, err
		}
		defer z.Close()    //nolint:errcheck // only read
		var b bytes.Buffer // at most maker.MaxFile, at a desk
		if err := delta.Apply(ctx, e.Codec, nil, z.SectionReader, delta.Target{Size: f.Size, SHA256: f.SHA256}, delta.Limits{Size: maker.MaxFile}, &b); err != nil {
			return nil, err
		}
		return &object{io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, f.Size), func() error { return nil }}, nil
	}
	return nil, fmt.Errorf("%s of it: %w", f.Path, errNoObject)
}

func (k *creating) encoding(p *maker.Patch, from *rel.Hash) (e rel.Encoding, err error) {
	e = rel.Encoding{Codec: p.Codec, From: from}
	e.Object, err = k.add(io.NewSectionReader(bytes.NewReader(p.Bytes), 0, int64(len(p.Bytes))))
	return e, err
}

// progress says what is done right now: over the last line on a terminal, else a line
// each, but only of what takes longer.
type progress struct {
	w        io.Writer
	terminal bool
	last     time.Time
	begun    time.Time
}

func newProgress(w io.Writer) *progress {
	now := time.Now()
	return &progress{w: w, terminal: here.IsTerminal(w), begun: now}
}

// quietFor is how often a line is said to what is no terminal.
const (
	quietFor = 5 * time.Second
	flicker  = 100 * time.Millisecond
)

func (p *progress) step(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if p.terminal {
		line = fmt.Sprintf("%3.0f s  %s", time.Since(p.begun).Seconds(), line)
		fmt.Fprintf(p.w, "\r\x1b[K%s", line[:min(len(line), here.Width(p.w)-1)])
	} else if time.Since(max2(p.last, p.begun)) >= quietFor {
		p.last = time.Now()
		fmt.Fprintln(p.w, line)
	}
}

// bytes tells how far a copy is.
func (p *progress) bytes(what string) func(n, total int64) {
	var last time.Time
	return func(n, total int64) {
		if time.Since(last) >= flicker {
			last = time.Now()
			p.step("%s  %d %%  %s of %s", what, 100*n/max(total, 1), size(n), size(total))
		}
	}
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func max2(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

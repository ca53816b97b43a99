// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"fulmar/cmd/fulmar/release/source"
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

// encodings makes the ways in which a file can travel, the shortest first: a board takes the
// first that fits what it has. Each was applied once when it was made.
func (k *Options) encodings(ctx context.Context, component string, f *rel.File, target *io.SectionReader, old []*source.Release) ([]rel.Encoding, error) {
	if f.Size < 2*minSaved || f.Size > maker.MaxFile {
		return nil, nil
	}
	var out []rel.Encoding
	k.Say.Step("%s/%s, %s: packed by zstd", component, f.Path, source.Size(f.Size))
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
		base := baseOf(s.Manifest, component, f.Path)
		if base == nil || seen[base.SHA256] || base.Size > maker.MaxFile {
			continue
		}
		seen[base.SHA256] = true
		k.Say.Step("%s/%s, %s: patch from %s", component, f.Path, source.Size(f.Size), s.Manifest.Release)
		p, err := k.patch(ctx, s, base, target)
		if err != nil {
			return nil, fmt.Errorf("patch from %s: %w", s.Name, err)
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
func (k *Options) patch(ctx context.Context, s *source.Release, base *rel.File, target *io.SectionReader) (*maker.Patch, error) {
	r, err := s.Whole(ctx, base)
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

func (k *Options) encoding(p *maker.Patch, from *rel.Hash) (e rel.Encoding, err error) {
	e = rel.Encoding{Codec: p.Codec, From: from}
	e.Object, err = k.add(io.NewSectionReader(bytes.NewReader(p.Bytes), 0, int64(len(p.Bytes))))
	return e, err
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"fulmar/ota/delta"
	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
)

// Auto tries what fits and takes the shortest.
const Auto = "auto"

const (
	// MaxSuffix is the largest file in bytes that bsdiff and elf are made of: sorting
	// its suffixes takes 2.5 GB of memory.
	MaxSuffix = 256 << 20
	// MaxFile is the largest file in bytes that any patch is made of.
	MaxFile = 1 << 30
	// maxCopies is the most copies in a patch: with the most streams a board still has
	// memory for them by default. A release of a program of 15 MB takes 5,000.
	maxCopies = 100_000
	// patience is how large a file may be, that bsdiff is tried although words did
	// halve it already: on tuned weights it takes minutes and saves nothing.
	patience = 16 << 20
)

// What Make fails with beside errors of the files and of the context.
var (
	// ErrTooLarge: a file is larger than MaxFile, or than MaxSuffix for that codec, or
	// the files have so little in common that a board would not hold the list of it.
	ErrTooLarge = errors.New("too large to make a patch of")
	// ErrKind: the files are not of a kind that the codec is for.
	ErrKind = errors.New("the codec is not for such files")
	// ErrWrong: a patch did not make the target. It is a fault of this package, and
	// the patch is not returned.
	ErrWrong = errors.New("the patch does not make its target")
)

// Patch is a patch that was applied once and found right.
type Patch struct {
	Codec     string
	Bytes     []byte
	Base, Out delta.Target // Base is zero for delta.Zstd
	// Tried is the length of each patch that was made to choose from, in bytes.
	Tried map[string]int
}

// Make makes a patch that turns base into target, with a codec of package delta, or
// Auto. It ends with ctx's error soon after ctx ends, but for sorting the suffixes of
// a base, which takes 0.2 s a megabyte. base may be nil for delta.Zstd, and Auto then
// packs the whole file.
func Make(ctx context.Context, codec string, base, target *io.SectionReader) (*Patch, error) {
	if target.Size() > MaxFile || base != nil && base.Size() > MaxFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxFile)
	}
	to, err := delta.Sum(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("read the target: %w", err)
	}
	p := &pair{base: base, target: target, to: to}
	if base == nil {
		if codec != Auto && codec != delta.Zstd {
			return nil, fmt.Errorf("%w: %s needs a base", ErrKind, codec)
		}
		codec = delta.Zstd
	} else if p.from, err = delta.Sum(ctx, base); err != nil {
		return nil, fmt.Errorf("read the base: %w", err)
	}
	if codec == Auto {
		return p.auto(ctx)
	}
	b, err := p.make(ctx, codec)
	if err != nil {
		return nil, fmt.Errorf("codec %s: %w", codec, err)
	}
	return p.verified(ctx, codec, b, map[string]int{codec: len(b)})
}

func (p *pair) make(ctx context.Context, codec string) ([]byte, error) {
	switch codec {
	case delta.Zstd:
		return whole(ctx, p.target)
	case delta.BSDiff:
		return p.bsdiff(ctx)
	case delta.ELF:
		return p.elf(ctx)
	case delta.Words:
		return p.words(ctx)
	}
	return nil, fmt.Errorf("%w %q", delta.ErrCodec, codec)
}

// auto tries what fits: for programs elf, else words and bsdiff.
func (p *pair) auto(ctx context.Context) (*Patch, error) {
	best, bytes := "", []byte(nil)
	tried := map[string]int{}
	try := func(codec string) error {
		b, err := p.make(ctx, codec)
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrKind) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("codec %s: %w", codec, err)
		}
		tried[codec] = len(b)
		if best == "" || len(b) < len(bytes) {
			best, bytes = codec, b
		}
		return nil
	}
	if err := try(delta.ELF); err != nil {
		return nil, err
	}
	codecs := []string{delta.Zstd, delta.Words, delta.BSDiff}
	if best != "" {
		codecs = []string{delta.Zstd} // elf with no guess right is bsdiff
	}
	for _, c := range codecs {
		if c == delta.BSDiff && p.to.Size > patience && tried[delta.Words] < tried[delta.Zstd]/2 {
			continue
		}
		if err := try(c); err != nil {
			return nil, err
		}
	}
	return p.verified(ctx, best, bytes, tried)
}

// verified applies a patch as a board would before it is returned.
func (p *pair) verified(ctx context.Context, codec string, b []byte, tried map[string]int) (*Patch, error) {
	r := io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
	if err := delta.Apply(ctx, codec, p.base, r, p.to, delta.Limits{Size: MaxFile}, io.Discard); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: codec %s: %w", ErrWrong, codec, err)
	}
	out := &Patch{Codec: codec, Bytes: b, Base: p.from, Out: p.to, Tried: tried}
	if codec == delta.Zstd {
		out.Base = delta.Target{}
	}
	return out, nil
}

// load reads both files whole.
func (p *pair) load() (prev, next []byte, err error) {
	if p.base.Size() > MaxSuffix || p.target.Size() > MaxSuffix {
		return nil, nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSuffix)
	}
	prev, next = make([]byte, p.base.Size()), make([]byte, p.target.Size())
	if _, err := p.base.ReadAt(prev, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	if _, err := p.target.ReadAt(next, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	return prev, next, nil
}

func (p *pair) bsdiff(ctx context.Context) ([]byte, error) {
	prev, next, err := p.load()
	if err != nil {
		return nil, err
	}
	ops, err := match(ctx, prev, next)
	if err != nil {
		return nil, err
	}
	return p.encode(ctx, &plan{format.BSDiff, 1, ops, nil, predict.NewCopier(p.base)})
}

func (p *pair) elf(ctx context.Context) ([]byte, error) {
	if p.base.Size() > MaxSuffix || p.target.Size() > MaxSuffix {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxSuffix)
	}
	a, err := layout(p.base)
	if err != nil {
		return nil, fmt.Errorf("%w: base: %w", ErrKind, err)
	}
	b, err := layout(p.target)
	if err != nil {
		return nil, fmt.Errorf("%w: target: %w", ErrKind, err)
	}
	if a.Machine != b.Machine {
		return nil, fmt.Errorf("%w: of two machines", ErrKind)
	}
	prev, next, err := p.load()
	if err != nil {
		return nil, err
	}
	ops, err := match(ctx, prev, next)
	if err != nil {
		return nil, err
	}
	return p.encode(ctx, &plan{format.ELF, 1, ops, b.Append(a.Append(nil)), predict.NewRewriter(p.base, a, b, ops)})
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"fulmar/ota/delta/internal/format"
)

// Codecs, as a manifest names them.
const (
	Zstd   = "zstd"
	BSDiff = "bsdiff"
	ELF    = "elf"
	Words  = "words"
)

// What Apply and Peek fail with beside errors of the files and of the context.
var (
	// ErrBase: the base is not the file that the patch was made from. Nothing was
	// written; the whole file is what is left to fetch.
	ErrBase = errors.New("not the patch's base")
	// ErrMismatch: what came out, or what the patch says will, is not what was wanted.
	ErrMismatch = errors.New("not the wanted file")
	// ErrPatch: the patch is damaged, cut short, or no patch.
	ErrPatch = format.ErrForm
	// ErrLimit: the patch, or what is wanted, goes beyond the Limits.
	ErrLimit = format.ErrLimit
	// ErrCodec: a codec that this version does not know; a later one may.
	ErrCodec = errors.New("unknown codec")
)

// Target is a file by its content: size in bytes and SHA-256.
type Target struct {
	Size   int64
	SHA256 [sha256.Size]byte
}

// Limits bounds what a patch may cost. Zero is the default.
type Limits struct {
	// Memory is how many bytes Apply may hold because of what a patch says: lists,
	// tables, and what decompression remembers. By default 16 MiB, which is enough
	// for all that package make makes; elf and bsdiff mostly do with 6.
	Memory int64
	// Size is the longest output in bytes, by default 1 GiB. No codec but zstd makes
	// more than 4 GiB.
	Size int64
}

const (
	defaultMemory = 16 << 20
	defaultSize   = 1 << 30
	maxPatched    = 1<<32 - 1 // positions in a patch are 32 bits
)

func (l Limits) orDefault() Limits {
	if l.Memory <= 0 {
		l.Memory = defaultMemory
	}
	if l.Size <= 0 {
		l.Size = defaultSize
	}
	return l
}

// Info is what a patch says of itself.
type Info struct {
	Codec string
	// Base is what it was made from, Out what it makes; both zero for zstd.
	Base, Out Target
}

// Peek reads what a patch is from its front, less than 200 bytes. It fails with
// ErrPatch, or as reading does; nothing is verified yet.
func Peek(patch *io.SectionReader) (Info, error) {
	var b [4]byte
	if n, err := patch.ReadAt(b[:], 0); n < len(b) {
		if err == io.EOF {
			err = fmt.Errorf("%w: it ends in its header", ErrPatch)
		}
		return Info{}, err
	}
	if b == [4]byte{0x28, 0xb5, 0x2f, 0xfd} { // RFC 8878, 3.1.1
		return Info{Codec: Zstd}, nil
	}
	h, err := format.Read(patch, patch.Size())
	if err != nil {
		return Info{}, err
	}
	return Info{codecName(h.Codec), Target(h.Base), Target(h.Out)}, nil
}

func codecName(c byte) string {
	return map[byte]string{format.BSDiff: BSDiff, format.ELF: ELF, format.Words: Words}[c]
}

// Apply writes to out what patch makes of base, which must be what was wanted. codec
// is the one the manifest names; for Zstd base is not looked at and may be nil.
//
// The base is hashed before anything else is done (ErrBase), out never gets more than
// want.Size bytes, and only nil says that they are the wanted ones; see the package
// for the rest, and the errors above. It ends with ctx's error soon after ctx ends.
func Apply(ctx context.Context, codec string, base, patch *io.SectionReader, want Target, lim Limits, out io.Writer) error {
	lim = lim.orDefault()
	switch {
	case want.Size < 0 || want.Size > lim.Size:
		return fmt.Errorf("%w: %d bytes are wanted, at most %d", ErrLimit, want.Size, lim.Size)
	case patch.Size() > want.Size+want.Size/8+1<<16: // what cannot be compressed grows by far less
		return fmt.Errorf("%w: a patch of %d bytes for %d", ErrLimit, patch.Size(), want.Size)
	}
	w := newOutput(ctx, out, want)
	var err error
	switch codec {
	case Zstd:
		err = full(patch, lim, w)
	case BSDiff, ELF, Words:
		err = patched(ctx, codec, base, patch, want, lim, w)
	default:
		return fmt.Errorf("%w %q", ErrCodec, codec)
	}
	if err != nil {
		return err
	}
	return w.finish()
}

// Sum reads a file to its end and says what it is. It ends early with ctx's error.
func Sum(ctx context.Context, f *io.SectionReader) (Target, error) {
	h := sha256.New()
	t := Target{Size: f.Size()}
	buf := make([]byte, 32<<10)
	for at := int64(0); at < t.Size; {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		n := min(int64(len(buf)), t.Size-at)
		if got, err := f.ReadAt(buf[:n], at); int64(got) < n {
			return t, fmt.Errorf("it ended at %d of %d bytes: %w", at+int64(got), t.Size, err)
		}
		h.Write(buf[:n])
		at += n
	}
	h.Sum(t.SHA256[:0])
	return t, nil
}

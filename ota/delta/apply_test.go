// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"fulmar/ota/delta"
	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
	maker "fulmar/ota/delta/make"
)

var typed = []error{delta.ErrBase, delta.ErrMismatch, delta.ErrPatch, delta.ErrLimit, delta.ErrCodec}

func oneOf(err error, some ...error) bool {
	for _, e := range some {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// edit makes random changes: bytes, pieces cut out, doubled, moved and new ones.
func edit(rng *rand.Rand, b []byte, changes int) []byte {
	out := append([]byte(nil), b...)
	for range changes {
		i := rng.IntN(len(out) + 1)
		n := min(rng.IntN(200), len(out)-i)
		switch rng.IntN(5) {
		case 0:
			for k := range out[i : i+n] {
				out[i+k] += byte(rng.IntN(3))
			}
		case 1:
			out = append(out[:i:i], out[i+n:]...)
		case 2:
			out = append(out[:i+n:i+n], out[i:]...)
		case 3:
			j := rng.IntN(len(out) + 1)
			out = append(append(out[:j:j], b[:min(n, len(b))]...), out[j:]...)
		case 4:
			out = append(append(out[:i:i], noise(rng, n)...), out[i:]...)
		}
	}
	return out
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// elfOf puts bytes into the text and data of an ELF file of 64 bits.
func elfOf(machine uint16, b []byte) []byte {
	h := make([]byte, 64+2*56)
	copy(h, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(h[16:], 2)
	le.PutUint16(h[18:], machine)
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[32:], 64) // program headers
	le.PutUint16(h[52:], 64)
	le.PutUint16(h[54:], 56)
	le.PutUint16(h[56:], 2)
	for i, at := range []uint64{64, 64 + 56} {
		p := h[at:]
		half := uint64(len(b) / 2)
		le.PutUint32(p, 1)
		le.PutUint64(p[8:], uint64(len(h))+half*uint64(i))
		le.PutUint64(p[16:], 0x10000+0x10000000*uint64(i))
		le.PutUint64(p[32:], half)
		le.PutUint64(p[40:], half+0x1000)
	}
	return append(h, b...)
}

// TestRandomEdits: whatever changed, each codec makes the same bytes again.
func TestRandomEdits(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 14))
	rounds := 150
	if raceOn {
		rounds = 20
	}
	for i := range rounds {
		n := rng.IntN(20_000)
		base := noise(rng, n)
		if i%2 == 0 { // few values: many matches
			for k := range base {
				base[k] &= 3
			}
		}
		next := edit(rng, base, rng.IntN(30))
		if i%10 == 0 {
			next = noise(rng, rng.IntN(5000))
		}
		machine := uint16([]int{predict.ARM64, predict.AMD64, 1}[i%3])
		for _, c := range append([]string{maker.Auto}, codecs...) {
			a, b := base, next
			if c == delta.ELF {
				a, b = elfOf(machine, base), elfOf(machine, next)
			}
			roundTrip(t, c, a, b)
		}
	}
}

func TestEmptyAndSame(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	some := noise(rng, 100_000)
	for _, p := range [][2][]byte{{nil, nil}, {nil, some}, {some, nil}, {some, some}, {some[:1], some[:1]}, {some[:3], some[:5]}, {make([]byte, 1<<20), make([]byte, 1<<20+1)}} {
		for _, c := range []string{delta.Zstd, delta.BSDiff, delta.Words, maker.Auto} {
			n := roundTrip(t, c, p[0], p[1])
			if bytes.Equal(p[0], p[1]) && c != delta.Zstd && n > 300 {
				t.Errorf("%s: %d bytes to say that nothing changed", c, n)
			}
		}
	}
	e := elfOf(predict.ARM64, some)
	if n := roundTrip(t, delta.ELF, e, e); n > 400 {
		t.Errorf("elf: %d bytes to say that nothing changed", n)
	}
}

// example is a pair and its patch for each codec that has a base.
func example(t testing.TB, codec string) (base, next []byte, p *maker.Patch) {
	rng := rand.New(rand.NewPCG(2, 3))
	base = noise(rng, 6000)
	next = edit(rng, base, 12)
	base, next = elfOf(predict.ARM64, base), elfOf(predict.ARM64, next)
	return base, next, mustMake(t, codec, base, next)
}

// TestDamage: a patch cut short or with one bit turned is an error, and none of
// another kind than told.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, c := range codecs {
		base, next, p := example(t, c)
		want := target(t, next)
		check := func(what string, patch []byte, kinds ...error) {
			kinds = append(kinds, delta.ErrPatch, delta.ErrMismatch, delta.ErrLimit)
			got, err := apply(t.Context(), c, base, patch, want, delta.Limits{})
			switch {
			case err == nil && !bytes.Equal(got, next):
				t.Fatalf("%s %s: wrong bytes were accepted", c, what)
			case err == nil && c != delta.Zstd && len(kinds) == 3: // a zstd frame has bits that say nothing
				t.Fatalf("%s %s: no error", c, what)
			case err != nil && !oneOf(err, kinds...):
				t.Fatalf("%s %s: %v", c, what, err)
			case int64(len(got)) > want.Size:
				t.Fatalf("%s %s: %d bytes came out, %d are wanted", c, what, len(got), want.Size)
			}
		}
		for i := range p.Bytes {
			check("cut short", p.Bytes[:i])
		}
		check("with a byte more", append(append([]byte(nil), p.Bytes...), 0))
		if c != delta.Zstd {
			check("with a byte more and the sum right", mend(append(append([]byte(nil), p.Bytes...), 0)))
		}
		for i := range 8 * len(p.Bytes) {
			if i > 8*300 && i%7 != 0 {
				continue
			}
			b := append([]byte(nil), p.Bytes...)
			b[i/8] ^= 1 << (i % 8)
			check("with a bit turned", b)
			if c != delta.Zstd {
				check("with a bit turned and the sum right", mend(b), delta.ErrBase)
			}
		}
	}
}

// mend makes the checksum right again, as a person would who changes a patch.
func mend(b []byte) []byte {
	b = append([]byte(nil), b...)
	if len(b) >= 92 {
		clear(b[88:92])
		binary.LittleEndian.PutUint32(b[88:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	return b
}

// TestFinalHash: a patch that is right in all but what it makes.
func TestFinalHash(t *testing.T) {
	t.Parallel()
	for _, c := range codecs {
		base, next, p := example(t, c)
		want := target(t, next)
		want.SHA256[5] ^= 1
		b := append([]byte(nil), p.Bytes...)
		if c != delta.Zstd { // the header lies as well
			b[56+5] ^= 1
			b = mend(b)
		}
		if _, err := apply(t.Context(), c, base, b, want, delta.Limits{}); !errors.Is(err, delta.ErrMismatch) {
			t.Errorf("%s, another hash: %v", c, err)
		}
		if c != delta.Zstd { // a patch of another release is told before the base is read
			if _, err := apply(t.Context(), c, base[1:], p.Bytes, want, delta.Limits{}); !errors.Is(err, delta.ErrMismatch) {
				t.Errorf("%s, the patch of another file: %v", c, err)
			}
		}
		short := target(t, next)
		short.Size--
		if got, err := apply(t.Context(), c, base, p.Bytes, short, delta.Limits{}); !errors.Is(err, delta.ErrMismatch) || int64(len(got)) > short.Size {
			t.Errorf("%s, a byte too many: %d bytes, %v", c, len(got), err)
		}
		long := target(t, next)
		long.Size++
		if _, err := apply(t.Context(), c, base, p.Bytes, long, delta.Limits{}); !errors.Is(err, delta.ErrMismatch) {
			t.Errorf("%s, a byte too few: %v", c, err)
		}
	}
}

// TestWrongBase: it is told before a byte is written, and Peek says which it was.
func TestWrongBase(t *testing.T) {
	t.Parallel()
	for _, c := range codecs[1:] {
		base, next, p := example(t, c)
		other := append([]byte(nil), base...)
		other[len(other)/2] ^= 1
		for _, b := range [][]byte{other, base[1:], nil} {
			got, err := apply(t.Context(), c, b, p.Bytes, target(t, next), delta.Limits{})
			if !errors.Is(err, delta.ErrBase) || len(got) > 0 {
				t.Errorf("%s: %d bytes, %v", c, len(got), err)
			}
		}
		err := delta.Apply(t.Context(), c, nil, section(p.Bytes), target(t, next), delta.Limits{}, io.Discard)
		if !errors.Is(err, delta.ErrBase) {
			t.Errorf("%s, no base: %v", c, err)
		}
		if info, err := delta.Peek(section(p.Bytes)); err != nil || info.Base != target(t, base) || info.Out != target(t, next) || info.Codec != c {
			t.Errorf("peek: %+v, %v", info, err)
		}
	}
}

func TestCodecOfTheManifest(t *testing.T) {
	t.Parallel()
	base, next, p := example(t, delta.BSDiff)
	for c, want := range map[string]error{delta.ELF: delta.ErrPatch, delta.Words: delta.ErrPatch, delta.Zstd: delta.ErrPatch, "xdelta": delta.ErrCodec, "": delta.ErrCodec} {
		if _, err := apply(t.Context(), c, base, p.Bytes, target(t, next), delta.Limits{}); !errors.Is(err, want) {
			t.Errorf("%q: %v", c, err)
		}
	}
	for _, b := range [][]byte{nil, []byte("FUL"), []byte("not a patch, but a text that is longer than the header of one, which has 92 bytes and more")} {
		if _, err := delta.Peek(section(b)); !errors.Is(err, delta.ErrPatch) {
			t.Errorf("peek at %q: %v", b, err)
		}
	}
}

// TestZstdIsPlain: the whole file is a frame as any tool makes it.
func TestZstdIsPlain(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("sensor 4711; "), 5000)
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := e.EncodeAll(data, nil)
	if got, err := apply(t.Context(), delta.Zstd, nil, packed, target(t, data), delta.Limits{}); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if info, err := delta.Peek(section(packed)); err != nil || info != (delta.Info{Codec: delta.Zstd}) {
		t.Error(info, err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range codecs {
		base, next, p := example(t, c)
		if _, err := apply(ctx, c, base, p.Bytes, target(t, next), delta.Limits{}); !errors.Is(err, context.Canceled) {
			t.Errorf("apply %s: %v", c, err)
		}
	}
}

type failing struct{ after int }

func (f *failing) Write(b []byte) (int, error) {
	if f.after -= len(b); f.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func (f *failing) ReadAt(b []byte, _ int64) (int, error) { return 0, io.ErrClosedPipe }

// TestBadDisk: a file that fails is not told as a bad patch, or it would be fetched
// again for ever.
func TestBadDisk(t *testing.T) {
	t.Parallel()
	for _, c := range codecs {
		base, next, p := example(t, c)
		if err := delta.Apply(t.Context(), c, section(base), section(p.Bytes), target(t, next), delta.Limits{}, &failing{100}); !errors.Is(err, io.ErrClosedPipe) || oneOf(err, typed...) {
			t.Errorf("%s, output: %v", c, err)
		}
		bad := io.NewSectionReader(&failing{}, 0, int64(len(p.Bytes)))
		if err := delta.Apply(t.Context(), c, section(base), bad, target(t, next), delta.Limits{}, io.Discard); !errors.Is(err, io.ErrClosedPipe) || oneOf(err, typed...) {
			t.Errorf("%s, patch: %v", c, err)
		}
		if c == delta.Zstd {
			continue
		}
		bad = io.NewSectionReader(&failing{}, 0, int64(len(base)))
		if err := delta.Apply(t.Context(), c, bad, section(p.Bytes), target(t, next), delta.Limits{}, io.Discard); !errors.Is(err, io.ErrClosedPipe) || oneOf(err, typed...) {
			t.Errorf("%s, base: %v", c, err)
		}
	}
}

func frame(b []byte, opts ...zstd.EOption) []byte {
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(format.Window), zstd.WithZeroFrames(true)}, opts...)...)
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(b, nil)
}

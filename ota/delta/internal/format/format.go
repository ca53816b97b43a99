// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package format is how a patch lies in a file: what ota/delta reads and
// ota/delta/make writes. All numbers are little endian.
//
//	 0  4  magic "FULD"
//	 4  1  version, 1
//	 5  1  codec: 1 bsdiff, 2 elf, 3 words
//	 6  1  width of a word in bytes: 1, 2 or 4; 1 but for codec words
//	 7  1  bit i: plane i is sparse
//	 8  8  size of the base        16 32  SHA-256 of the base
//	48  8  size of what comes out  56 32  SHA-256 of it
//	88  4  CRC-32C of the whole patch with these four bytes zero
//	92  8 * streams: the length of each
//	    the streams, each one zstd frame: control, extra, then for each plane
//	    its bytes (dense), or its gaps and its values (sparse)
//
// The control stream is, for codec elf, the layouts of both files (package
// predict), then the count of copies as a varint and for each copy three: bytes to
// copy, bytes of extra that follow them, and signed how far the copy begins behind
// the end of the one before it in the base. That is bsdiff's control list (Colin
// Percival, "Naive differences of executable code", 2003) with varints.
//
// A sparse plane is its nonzero bytes: the count of zeros before each as a varint in
// gaps, the byte in values. After the last only zeros follow.
package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
)

// Codecs as they stand in a header.
const (
	BSDiff = 1
	ELF    = 2
	Words  = 3
)

// Window is the most that a stream of a patch may make its decoder remember. With up
// to ten streams open at once it is what bounds the memory; 1 MiB instead of it
// saved less than 1 % of a patch.
const Window = 1 << 19

const (
	magic   = "FULD"
	version = 1
	fixed   = 92
	crcAt   = 88
	// MaxWidth is the widest word, and so the most planes.
	MaxWidth = 4
)

// What reading a patch fails with; package delta publishes them.
var (
	// ErrForm is a header or list that no maker writes.
	ErrForm = errors.New("malformed patch")
	// ErrLimit is more than the caller allows.
	ErrLimit = errors.New("beyond the limits")
)

// Header is what stands before the streams.
type Header struct {
	Codec   byte
	Width   int  // bytes in a word
	Sparse  byte // bit i: plane i is sparse
	Base    File
	Out     File
	Streams []int64 // lengths of the streams in bytes
}

// File is a file by content.
type File struct {
	Size   int64
	SHA256 [32]byte
}

// streams says how many streams follow such a header.
func (h *Header) streams() int { return 2 + h.Width + bits.OnesCount8(h.Sparse) }

// Len is the length of the header in bytes, so where the first stream begins.
func (h *Header) Len() int64 { return fixed + 8*int64(h.streams()) }

// Encode puts header and streams together.
func (h *Header) Encode(streams [][]byte) []byte {
	b := append(make([]byte, 0, fixed), magic...)
	b = append(b, version, h.Codec, byte(h.Width), h.Sparse)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Base.Size))
	b = append(b, h.Base.SHA256[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Out.Size))
	b = append(b, h.Out.SHA256[:]...)
	b = append(b, 0, 0, 0, 0)
	for _, s := range streams {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	}
	for _, s := range streams {
		b = append(b, s...)
	}
	binary.LittleEndian.PutUint32(b[crcAt:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// Read takes the header from the front of a patch and checks each field of it, but not
// the sum (Check). It reads less than 200 bytes.
func Read(r io.ReaderAt, size int64) (*Header, error) {
	var b [fixed]byte
	if n, err := r.ReadAt(b[:], 0); n < fixed {
		if err == io.EOF {
			err = fmt.Errorf("%w: it ends in its header", ErrForm)
		}
		return nil, err
	}
	h := &Header{Codec: b[5], Width: int(b[6]), Sparse: b[7]}
	h.Base = file(b[8:48])
	h.Out = file(b[48:88])
	switch {
	case string(b[:4]) != magic:
		return nil, fmt.Errorf("%w: no patch", ErrForm)
	case b[4] != version:
		return nil, fmt.Errorf("%w: version %d", ErrForm, b[4])
	case h.Codec < BSDiff || h.Codec > Words:
		return nil, fmt.Errorf("%w: codec %d", ErrForm, h.Codec)
	case h.Width != 1 && (h.Codec != Words || h.Width != 2 && h.Width != 4):
		return nil, fmt.Errorf("%w: words of %d bytes", ErrForm, h.Width)
	case int(h.Sparse)>>h.Width != 0:
		return nil, fmt.Errorf("%w: more sparse planes than planes", ErrForm)
	case h.Base.Size < 0 || h.Out.Size < 0:
		return nil, fmt.Errorf("%w: negative size", ErrForm)
	}
	return h, h.lengths(r, size)
}

func file(b []byte) (f File) {
	f.Size = int64(binary.LittleEndian.Uint64(b))
	copy(f.SHA256[:], b[8:])
	return f
}

// lengths reads the table of streams, which must fill the patch exactly.
func (h *Header) lengths(r io.ReaderAt, size int64) error {
	b := make([]byte, 8*h.streams())
	if n, err := r.ReadAt(b, fixed); n < len(b) {
		if err == io.EOF {
			err = fmt.Errorf("%w: it ends in its header", ErrForm)
		}
		return err
	}
	left := size - h.Len()
	for i := 0; i < len(b); i += 8 {
		n := int64(binary.LittleEndian.Uint64(b[i:]))
		if n < 0 || n > left {
			return fmt.Errorf("%w: a stream longer than the patch", ErrForm)
		}
		left -= n
		h.Streams = append(h.Streams, n)
	}
	if left != 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrForm, left)
	}
	return nil
}

// Check reads the whole patch and compares its sum: what a bad disk or line did is
// found before any work. It is no protection against a person; the SHA-256 of what
// comes out is.
func Check(r io.ReaderAt, size int64) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, 32<<10)
	var sum, want uint32
	for at := int64(0); at < size; {
		n := min(int64(len(buf)), size-at)
		if got, err := r.ReadAt(buf[:n], at); int64(got) < n {
			return err
		}
		if at == 0 { // a header was read, so the first piece holds the sum
			want = binary.LittleEndian.Uint32(buf[crcAt:])
			clear(buf[crcAt : crcAt+4])
		}
		sum = crc32.Update(sum, table, buf[:n])
		at += n
	}
	if sum != want {
		return fmt.Errorf("%w: its checksum is wrong", ErrForm)
	}
	return nil
}

// Op copies Len bytes of the base from Old, which differ from what comes out by the
// planes, and then takes Extra bytes as they are.
type Op struct{ Old, Len, Extra uint32 }

// AppendOps writes a list of copies.
func AppendOps(b []byte, ops []Op) []byte {
	b = binary.AppendUvarint(b, uint64(len(ops)))
	end := int64(0)
	for _, o := range ops {
		b = binary.AppendUvarint(b, uint64(o.Len))
		b = binary.AppendUvarint(b, uint64(o.Extra))
		b = binary.AppendVarint(b, int64(o.Old)-end)
		end = int64(o.Old) + int64(o.Len)
	}
	return b
}

// ReadOps reads a list of at most limit copies, whose lengths make outSize together
// and which stay inside a base of baseSize bytes.
func ReadOps(r io.ByteReader, limit int, baseSize, outSize int64) ([]Op, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, inControl(err)
	}
	if n > uint64(limit) {
		return nil, fmt.Errorf("%w: %d copies, at most %d", ErrLimit, n, limit)
	}
	ops := make([]Op, n)
	end, out := int64(0), int64(0)
	for i := range ops {
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, inControl(err)
		}
		extra, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, inControl(err)
		}
		step, err := binary.ReadVarint(r)
		if err != nil {
			return nil, inControl(err)
		}
		left := uint64(outSize - out)
		// Each copy must make a byte, so that their count bounds nothing but memory.
		if size > left || extra > left-size || size+extra == 0 {
			return nil, fmt.Errorf("%w: copy %d makes %d + %d bytes where %d are missing", ErrForm, i, size, extra, left)
		}
		if step < -end || step > baseSize-end || int64(size) > baseSize-end-step {
			return nil, fmt.Errorf("%w: copy %d is outside the base", ErrForm, i)
		}
		ops[i] = Op{uint32(end + step), uint32(size), uint32(extra)}
		end += step + int64(size)
		out += int64(size + extra)
	}
	if out != outSize {
		return nil, fmt.Errorf("%w: the copies make %d of %d bytes", ErrForm, out, outSize)
	}
	return ops, nil
}

// inControl tells an end that came too early from a failing read.
func inControl(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the control list ends early", ErrForm)
	}
	return fmt.Errorf("control list: %w", err)
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package meta is what a class of the spool remembers besides its segments: two
// copies of one page, written in place in turn.
package meta

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/storage/internal/ranges"
)

// ErrNewer says that a newer version of the program wrote the file.
var ErrNewer = errors.New("spool was written by a newer version")

// The file is one page: magic, version, class, number of intervals,
// generation, epoch, reserved, low, intervals, zeros, CRC-32C. All numbers are
// little endian. Size, magic, place of the version and of the CRC are for ever,
// so that an older program can tell a newer file from a damaged one.
const (
	magic   = "fulspool"
	version = 2
	size    = 4096
	head    = 8 + 4 + 5*8
	// MaxIntervals is how many settled intervals above the cursor a file keeps.
	MaxIntervals = (size - head - 4) / 16
)

// Meta is the content of one copy.
type Meta struct {
	Gen      uint64 // the copy with the higher generation stands
	Epoch    uint64
	Reserved uint64 // highest number that may have been used
	Low      uint64 // all numbers up to it are settled
	// Newest is the first number of the newest segment that was begun; 0: not told
	// (version 1).
	Newest uint64
	Above  []ranges.Range
}

var errSum = errors.New("meta file does not match its checksum")

func (m *Meta) encode(id schema.Class) []byte {
	b := make([]byte, 0, size)
	b = append(b, magic...)
	// The lowest intervals matter most: they are nearest to being sent again.
	above := m.Above[:min(len(m.Above), MaxIntervals)]
	b = append(b, version, byte(id), byte(len(above)), 0)
	for _, v := range [...]uint64{m.Gen, m.Epoch, m.Reserved, m.Low, m.Newest} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, r := range above {
		b = binary.LittleEndian.AppendUint64(b, r.First)
		b = binary.LittleEndian.AppendUint64(b, r.Last)
	}
	b = b[:size]
	binary.LittleEndian.PutUint32(b[size-4:], crc32.Checksum(b[:size-4], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func decode(id schema.Class, b []byte) (Meta, error) {
	if len(b) != size || string(b[:8]) != magic ||
		crc32.Checksum(b[:size-4], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[size-4:]) {
		return Meta{}, errSum
	}
	if b[8] > version {
		return Meta{}, fmt.Errorf("%w: format %d, this program writes %d; update fulmar or move the spool away", ErrNewer, b[8], version)
	}
	if b[8] == 0 || b[9] != byte(id) || int(b[10]) > MaxIntervals {
		return Meta{}, errSum
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[12+8*i:]) }
	m := Meta{Gen: u(0), Epoch: u(1), Reserved: u(2), Low: u(3)}
	at := 4
	if b[8] > 1 {
		m.Newest, at = u(4), 5
	}
	prev := m.Low
	for i := range int(b[10]) {
		r := ranges.Range{First: u(at + 2*i), Last: u(at + 1 + 2*i)}
		if r.First <= prev || r.Last < r.First {
			return Meta{}, errSum
		}
		prev = r.Last
		m.Above = append(m.Above, r)
	}
	if m.Epoch == 0 || m.Low > m.Reserved {
		return Meta{}, errSum
	}
	return m, nil
}

func copyPath(dir string, gen uint64) string {
	return filepath.Join(dir, [2]string{"meta.a", "meta.b"}[gen%2])
}

// Load reads both copies. bad counts those that are there and unreadable, or
// missing while the other is there. A zero epoch says that none was readable.
func Load(dir string, id schema.Class) (m Meta, bad int, err error) {
	missing := 0
	for gen := range uint64(2) {
		b, err := readSmall(copyPath(dir, gen), size+1)
		if errors.Is(err, os.ErrNotExist) {
			missing++
			continue
		} else if err != nil {
			return Meta{}, 0, fmt.Errorf("read spool meta: %w", err)
		}
		c, err := decode(id, b)
		switch {
		case errors.Is(err, ErrNewer):
			return Meta{}, 0, fmt.Errorf("%s: %w", copyPath(dir, gen), err)
		case err != nil || c.Gen%2 != gen:
			bad++
		case c.Gen > m.Gen || m.Epoch == 0:
			m = c
		}
	}
	if missing == 1 {
		bad++
	}
	return m, bad, nil
}

// Write puts one copy on disk, in place. The very first write of a copy also
// makes its name durable.
func Write(dir string, id schema.Class, m Meta, noSync bool) error {
	f, err := os.OpenFile(copyPath(dir, m.Gen), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write spool meta: %w", err)
	}
	fi, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(m.encode(id), 0)
	}
	if err == nil && !noSync {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && fi.Size() == 0 && !noSync {
		err = atomicfile.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write spool meta %s: %w", f.Name(), err)
	}
	return nil
}

// readSmall reads at most limit bytes of a file.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// Owns tells whether a file of that name is a copy of a meta.
func Owns(name string) bool { return name == "meta.a" || name == "meta.b" }

// NewEpoch gives a random number that is not zero.
func NewEpoch() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, see crypto/rand
		if e := binary.LittleEndian.Uint64(b[:]); e != 0 {
			return e
		}
	}
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
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

// The meta file is one sector: magic, version, class, number of intervals,
// generation, epoch, reserved, low, intervals, zeros, CRC-32C. All numbers are
// little endian. Size, magic, place of the version and of the CRC are for ever,
// so that an older program can tell a newer file from a damaged one.
const (
	metaMagic     = "fulspool"
	metaVersion   = 1
	metaSize      = 512
	metaHead      = 8 + 4 + 4*8
	metaIntervals = (metaSize - metaHead - 4) / 16
)

// meta is what a class remembers besides its segments.
type meta struct {
	gen      uint64 // the copy with the higher generation stands
	epoch    uint64
	reserved uint64 // highest number that may have been used
	low      uint64 // all numbers up to it are settled
	above    []ranges.Range
}

var errMeta = errors.New("meta file does not match its checksum")

func (m *meta) encode(id schema.Class) []byte {
	b := make([]byte, 0, metaSize)
	b = append(b, metaMagic...)
	// The lowest intervals matter most: they are nearest to being sent again.
	above := m.above[:min(len(m.above), metaIntervals)]
	b = append(b, metaVersion, byte(id), byte(len(above)), 0)
	for _, v := range [...]uint64{m.gen, m.epoch, m.reserved, m.low} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, r := range above {
		b = binary.LittleEndian.AppendUint64(b, r.First)
		b = binary.LittleEndian.AppendUint64(b, r.Last)
	}
	b = b[:metaSize]
	binary.LittleEndian.PutUint32(b[metaSize-4:], crc32.Checksum(b[:metaSize-4], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func decodeMeta(id schema.Class, b []byte) (meta, error) {
	if len(b) != metaSize || string(b[:8]) != metaMagic ||
		crc32.Checksum(b[:metaSize-4], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[metaSize-4:]) {
		return meta{}, errMeta
	}
	if b[8] > metaVersion {
		return meta{}, fmt.Errorf("%w: format %d, this program writes %d; update fulmar or move the spool away", ErrNewer, b[8], metaVersion)
	}
	if b[8] == 0 || b[9] != byte(id) || int(b[10]) > metaIntervals {
		return meta{}, errMeta
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[12+8*i:]) }
	m := meta{gen: u(0), epoch: u(1), reserved: u(2), low: u(3)}
	prev := m.low
	for i := range int(b[10]) {
		r := ranges.Range{First: u(4 + 2*i), Last: u(5 + 2*i)}
		if r.First <= prev || r.Last < r.First {
			return meta{}, errMeta
		}
		prev = r.Last
		m.above = append(m.above, r)
	}
	if m.epoch == 0 || m.low > m.reserved {
		return meta{}, errMeta
	}
	return m, nil
}

func metaPath(dir string, gen uint64) string {
	return filepath.Join(dir, [2]string{"meta.a", "meta.b"}[gen%2])
}

// loadMeta reads both copies. bad counts those that are there and unreadable, or
// missing while the other is there. A zero epoch says that none was readable.
func loadMeta(dir string, id schema.Class) (m meta, bad int, err error) {
	missing := 0
	for gen := range uint64(2) {
		b, err := readSmall(metaPath(dir, gen), metaSize+1)
		if errors.Is(err, os.ErrNotExist) {
			missing++
			continue
		} else if err != nil {
			return meta{}, 0, fmt.Errorf("read spool meta: %w", err)
		}
		c, err := decodeMeta(id, b)
		switch {
		case errors.Is(err, ErrNewer):
			return meta{}, 0, fmt.Errorf("%s: %w", metaPath(dir, gen), err)
		case err != nil || c.gen%2 != gen:
			bad++
		case c.gen > m.gen || m.epoch == 0:
			m = c
		}
	}
	if missing == 1 {
		bad++
	}
	return m, bad, nil
}

// writeMeta puts one copy on disk, in place. The very first write of a copy also
// makes its name durable.
func writeMeta(dir string, id schema.Class, m meta, noSync bool) error {
	f, err := os.OpenFile(metaPath(dir, m.gen), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
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

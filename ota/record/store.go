// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/internal/disk"
)

const (
	// FileSize is that of each copy, in bytes: MaxQueue+1 orders with all their patches and
	// MaxComponents components, each as large as they may be, take 230 KiB.
	FileSize   = 256 << 10
	magic      = "FULMOTA1"
	header     = len(magic) + 8 + 4 + 4
	maxPayload = FileSize - header
)

func copies() [2]string { return [2]string{"record.a", "record.b"} }

// Store keeps the record. Its owner calls it from one goroutine at a time, and is the one
// process that writes there.
type Store struct {
	dir   string
	disk  disk.Disk
	seq   uint64
	next  int  // copy that is written next
	whole bool // both copies are files of their size
}

// Open reads the record in a folder, which has to be there. Where there is none, or
// neither copy is whole, it begins a new one, Unsure, and Lost where there was one. note says
// what was found damaged, "" for nothing: one copy is what a power cut leaves.
//
// An error is one of the disk: nothing is known, and nothing was changed.
func Open(d disk.Disk, dir string) (s *Store, r *Record, note string, err error) {
	s = &Store{dir: dir, disk: d, whole: true}
	var bad []error
	for i, name := range copies() {
		b, err := readCopy(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			s.whole, s.next = false, i
			continue
		}
		if err != nil {
			return nil, nil, "", fmt.Errorf("read the record of updates: %w", err)
		}
		got, seq, err := decode(b)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", name, err))
			s.next = i
			if len(b) != FileSize {
				s.whole = false
			}
			continue
		}
		if len(b) != FileSize {
			s.whole = false
		}
		if r == nil || seq > s.seq {
			r, s.seq, s.next = got, seq, 1-i
		}
	}
	if len(bad) > 0 {
		note = errors.Join(bad...).Error()
	}
	if r == nil {
		r = &Record{V: 1, Unsure: true, Lost: note != ""}
		s.whole = false
	}
	if !s.whole {
		if err := s.create(r); err != nil {
			return nil, nil, "", fmt.Errorf("make the record of updates: %w", err)
		}
	}
	return s, r, note, nil
}

// create makes both copies, first the one that is not whole.
func (s *Store) create(r *Record) error {
	for range 2 {
		image, err := encode(r, s.seq+1)
		if err != nil {
			return err
		}
		path := filepath.Join(s.dir, copies()[s.next])
		tmp := filepath.Join(s.dir, "."+copies()[s.next]+".new")
		if err := disk.Put(s.disk, tmp, 0o600, append(image, make([]byte, FileSize-len(image))...)); err != nil {
			return err
		}
		if err := s.disk.Rename(tmp, path); err != nil {
			return err
		}
		if err := s.disk.SyncDir(s.dir); err != nil {
			return err
		}
		s.seq++
		s.next = 1 - s.next
	}
	s.whole = true
	return nil
}

// Save makes a record durable. After an error the one before is what counts, or this
// one: it has to be saved again before anything is built on it.
func (s *Store) Save(r *Record) error {
	image, err := encode(r, s.seq+1)
	if err != nil {
		return fmt.Errorf("keep the record of updates: %w", err)
	}
	f, err := s.disk.Open(filepath.Join(s.dir, copies()[s.next]))
	if err != nil {
		return fmt.Errorf("keep the record of updates: %w", err)
	}
	if _, err = f.WriteAt(image, 0); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep the record of updates: %w", err)
	}
	s.seq++
	s.next = 1 - s.next
	return nil
}

func encode(r *Record, seq uint64) ([]byte, error) {
	payload, err := r.Encode()
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint64([]byte(magic), seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, sum(b[len(magic):], payload))
	return append(b, payload...), nil
}

func decode(b []byte) (*Record, uint64, error) {
	if len(b) < header || string(b[:len(magic)]) != magic {
		return nil, 0, fmt.Errorf("%w: no record", ErrDamaged)
	}
	head, at := b[len(magic):header], header
	seq, n := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint32(head[8:]))
	if n > int64(len(b)-at) {
		return nil, 0, fmt.Errorf("%w: cut off", ErrDamaged)
	}
	payload := b[at : at+int(n)]
	if sum(head[:12], payload) != binary.LittleEndian.Uint32(head[12:]) {
		return nil, 0, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	r, err := Parse(payload)
	return r, seq, err
}

func sum(parts ...[]byte) (c uint32) {
	for _, p := range parts {
		c = crc32.Update(c, crc32.MakeTable(crc32.Castagnoli), p)
	}
	return c
}

func readCopy(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, FileSize))
}

// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package kept keeps one small state in two files that are written in turn: after a power
// cut at any moment the newest whole one counts, and a file that the disk damaged later
// leaves the one before it. A damaged file is put aside, not thrown away.
package kept

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/internal/atomicfile"
)

// A file is the magic, the SHA-256 of all behind it, eight bytes of the number of the save
// (big-endian), and the state.
const (
	magic  = "FULMTWN1"
	header = len(magic) + sha256.Size + 8
)

// Disk is where the files lie. Write replaces one; when it returns an error, or not at all,
// the file holds the old, the new or a part of it.
type Disk interface {
	Read(name string) ([]byte, error) // fs.ErrNotExist where there is none
	Write(name string, b []byte) error
	Aside(name string) error // out of the way, to be looked at
}

// Folder is a [Disk] that is a folder, made at the first write. Limit bounds what is read
// of a file, in bytes.
type Folder struct {
	Dir   string
	Limit int64
}

// Read reads a file; of one that is too large no more than shows it.
func (d Folder) Read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(d.Dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, d.Limit+int64(header)+1))
}

// Write replaces a file, for its owner's eyes only.
func (d Folder) Write(name string, b []byte) error {
	path := filepath.Join(d.Dir, name)
	err := atomicfile.WriteFile(path, b, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, b, 0o600)
}

// Aside renames a file to NAME.bad, over an earlier one: of damage one is enough to see.
func (d Folder) Aside(name string) error {
	path := filepath.Join(d.Dir, name)
	return os.Rename(path, path+".bad")
}

// State is one state on a disk. Its owner calls it from one goroutine at a time.
type State struct {
	disk  Disk
	limit int
	seq   uint64
}

func slots() [2]string { return [2]string{"state.0", "state.1"} }

// Open reads the newest state that takes accepts; nil if there is none. What cannot be
// read is put aside; damage tells of it, "" for none. limit bounds a state, in bytes.
func Open(disk Disk, limit int, takes func(state []byte) error) (s *State, newest []byte, damage string) {
	s = &State{disk: disk, limit: limit}
	for _, name := range slots() {
		b, err := disk.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var state []byte
		var seq uint64
		if err == nil {
			seq, state, err = s.unwrap(b)
		}
		if err == nil {
			err = takes(state)
		}
		switch {
		case err != nil:
			damage = fmt.Sprintf("%s %v; it lies beside it as %s.bad", name, err, name)
			if err := disk.Aside(name); err != nil {
				damage = fmt.Sprintf("%s %v; it could not be put aside", damage, err)
			}
		case newest == nil || seq > s.seq:
			newest, s.seq = state, seq
		}
	}
	return s, newest, damage
}

func (s *State) unwrap(b []byte) (seq uint64, state []byte, err error) {
	if len(b) > s.limit+header {
		return 0, nil, fmt.Errorf("has over %d bytes", s.limit)
	}
	if len(b) < header || !bytes.HasPrefix(b, []byte(magic)) {
		return 0, nil, errors.New("is no state of a twin")
	}
	sum, body := b[len(magic):len(magic)+sha256.Size], b[len(magic)+sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return 0, nil, errors.New("has another checksum than it was written with")
	}
	return binary.BigEndian.Uint64(body), body[8:], nil
}

// Save puts a state on the disk over the older of the two: it is there when Save returns
// nil. After an error it may be there or not, and the one before it is.
func (s *State) Save(state []byte) error {
	if len(state) > s.limit {
		return fmt.Errorf("%d bytes, at most %d", len(state), s.limit)
	}
	// A number is used once, also by a save that failed: it may lie there.
	s.seq++
	body := append(binary.BigEndian.AppendUint64(nil, s.seq), state...)
	sum := sha256.Sum256(body)
	if err := s.disk.Write(slots()[s.seq%2], append(append([]byte(magic), sum[:]...), body...)); err != nil {
		s.seq++ // so that the next save goes over this one, not over the last that is whole
		return err
	}
	return nil
}
